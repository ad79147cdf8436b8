"""Every mapping of mappings.yaml, and what modality.json adds: nothing that is declared is lost in silence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.lerobot.adapter import LeRobot
from adapters.lerobot.identity import meta_for
from adapters.lerobot.mapping import mapping_for, shipped_mappings
from adapters.registry import ADAPTERS, adapter_for
from schemas.fact import Certainty
from schemas.supervision import Task
from tests.adapters.declared_cases import Ingested, assert_not_lost, ingested
from tests.generators.lerobot_mappings import ROWS, numbers_of, write_mapped

ADAPTER = LeRobot()
MAPPINGS = {mapping.name: mapping for mapping in shipped_mappings()}
ORDERS = {
    "unnamed": (),
    "named_xyzw": ("qx", "qy", "qz", "qw"),
    "named_wxyz": ("qw", "qx", "qy", "qz"),
}


def load(root: Path) -> Ingested:
    [ref] = ADAPTER.discover(root, ADAPTER.survey(root, {}))
    return ingested(ADAPTER.load(ref))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MAPPINGS)
def test_nothing_that_a_mapping_declares_is_lost(tmp_path: Path, name: str, order: str) -> None:
    mapping = MAPPINGS[name]
    values = write_mapped(tmp_path, mapping, names=ORDERS[order])
    info, modality = meta_for(tmp_path, None)
    fits = mapping_for(info, modality)
    assert fits is not None
    assert fits.name == name
    found = load(tmp_path)
    for channel, numbers in numbers_of(mapping, values, tmp_path).items():
        assert_not_lost(found, channel, numbers)
    lost = [f.name for f in found.vectors.facts if f.name.startswith("not_carried")]
    assert not lost  # a limit would do, and the adapter does better


def test_every_named_source_reads_by_mappings_that_are_walked() -> None:
    named = [a for a in map(adapter_for, ADAPTERS) if isinstance(a, LeRobot) and a.mappings]
    assert len(named) == 6
    assert {m for adapter in named for m in adapter.mappings} <= set(MAPPINGS)


# --- modality.json ------------------------------------------------------------------------------------------------------


def with_modality_column(root: Path, group: str, column: pa.Array, dtype: str) -> Path:
    """A set without any mapping, whose modality.json names one column beside the state and the action."""
    write_mapped(root, MAPPINGS["lda_demo"])
    info = json.loads((root / "meta/info.json").read_text())
    info["robot_type"] = "nobody_knows"
    info["features"]["tactile"] = {"dtype": dtype, "shape": [2], "names": None}
    (root / "meta/info.json").write_text(json.dumps(info))
    key = {"touch": {"start": 0, "end": 2, "original_key": "tactile"}}
    (root / "meta/modality.json").write_text(json.dumps({group: key}))
    path = root / "data/chunk-000/episode_000000.parquet"
    pq.write_table(pq.read_table(path).append_column("tactile", column), path)
    return root


@pytest.mark.parametrize(
    ("group", "stream"), [("state", "source_state"), ("action", "raw_command")]
)
def test_a_column_that_only_modality_json_names_is_kept(
    tmp_path: Path, group: str, stream: str
) -> None:
    numbers = np.random.default_rng(0).uniform(size=(ROWS, 2))
    column = pa.array(numbers.tolist(), pa.list_(pa.float64()))
    found = load(with_modality_column(tmp_path, group, column, "float64"))
    raw = found.episode.stream(stream)
    assert raw is not None
    np.testing.assert_array_equal(raw.values[:, -2:], numbers)
    assert raw.spec.names[-2:] == ("tactile.0", "tactile.1")


def pickles() -> pa.Array:
    return pa.array([b"cos\nsystem\n(S'false'\ntR."] * ROWS, pa.binary())


def holes() -> pa.Array:
    return pa.array([[0.0, float("nan")]] * ROWS, pa.list_(pa.float64()))


@pytest.mark.parametrize(("column", "dtype"), [(pickles(), "float64"), (holes(), "float64")])
def test_a_declared_column_that_cannot_be_read_is_a_fact_and_a_limit(
    tmp_path: Path, column: pa.Array, dtype: str
) -> None:
    found = load(with_modality_column(tmp_path, "state", column, dtype))
    facts = {f.name: f for f in found.vectors.facts}
    lost = facts["not_carried.modality.state.touch"]
    assert (lost.certainty, lost.is_for_actions) == (Certainty.UNKNOWN, True)
    assert found.tasks == (Task.VISUAL_FORECASTING,)


# --- Unitree G1 ---------------------------------------------------------------------------------------------------------


def test_nested_names_of_a_unitree_g1_name_every_joint(tmp_path: Path) -> None:
    """Official v2.1 writers nest the list of names once more; of 28 joints each has its name, fingers by name and not by place."""
    values = write_mapped(tmp_path, MAPPINGS["unitree_g1"])
    info = json.loads((tmp_path / "meta/info.json").read_text())
    for column in ("observation.state", "action"):
        info["features"][column]["names"] = [info["features"][column]["names"]]
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    found = load(tmp_path)
    joints = found.episode.stream("joint_position_rad")
    assert joints is not None
    assert joints.spec.names[:2] == ("left_shoulder_pitch_joint", "left_shoulder_roll_joint")
    np.testing.assert_array_equal(joints.values, values["observation.state"][:, :14])
    assert found.episode.stream("source_state") is None  # every number has its channel
    assert found.episode.embodiment == "unitree_g1"
    # Fingers without the pose of their arm teach no action: forward kinematics (--urdf) gives it.
    assert found.tasks == (Task.VISUAL_FORECASTING,)
