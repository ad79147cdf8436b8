"""LDA-1B's demo set in its true layout: 22 annotations of which 21 are pickles, wxyz quaternions, a gripper without a state."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from adapters.containers.lerobot_table import read_rows
from ingest.corpus import snapshot
from schemas.errors import Code, SourceError
from schemas.fact import Certainty
from schemas.supervision import Task
from tests.adapters.declared_cases import Ingested, assert_not_lost, ingested
from tests.adapters.episode_parts import stream_of
from tests.adapters.lerobot_cases import facts_of, first_of, refs_of
from tests.curation.manifest_cases import invoke
from tests.faults.runs import run
from tests.generators import lda_demo


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lda_demo.write(tmp_path_factory.mktemp("lda") / "sim_pick_place").root


@pytest.fixture(scope="module")
def episode(raw: Path) -> Ingested:
    return ingested(first_of(lda_demo.Written(root=raw, scenes={})))


def test_the_layout_is_the_real_one(raw: Path) -> None:
    features = lda_demo.info_of(raw)["features"]
    assert isinstance(features, dict)
    assert len([n for n in features if n.startswith(("action.", "state."))]) == 26
    assert len(lda_demo.ANNOTATIONS) == 21
    modality = json.loads((raw / "meta/modality.json").read_text())
    assert len(modality["annotation"]) == 22
    stored = pq.read_schema(raw / "data/chunk-000/episode_000000.parquet")
    assert str(stored.field("annotation.bbox3d").type) == "binary"
    assert str(stored.field("state.eef_quaternion").type) == "list<element: double>"


def test_an_episode_teaches_a_policy_of_ten_numbers(episode: Ingested) -> None:
    spec = episode.vectors.spec
    assert spec is not None
    assert spec.width == 10
    assert [s.name for s in spec.slices] == [
        "left.position_m",
        "left.rot6d_cols",
        "left.gripper_opening",
    ]
    assert Task.POLICY in episode.tasks
    assert episode.vectors.command_only == ("left.gripper_opening",)
    assert episode.vectors.action_source == "commanded"


def test_poses_and_gripper_are_those_of_the_scene(raw: Path, episode: Ingested) -> None:
    scene = lda_demo.Scene(seed=0, duration_s=2.0, width=64, height=48)
    T = stream_of(episode.episode, "left.T_base_eef")
    T_hand = np.eye(4)
    T_hand[:3, :3], T_hand[:3, 3] = lda_demo.R_SRC_HAND, lda_demo.TCP_M
    for k in (0, 17, 59):
        np.testing.assert_allclose(T.values[k] @ T_hand, scene.T_base_hand(k / 30), atol=1e-9)
    jaws = stream_of(episode.episode, "command.left.gripper_opening").values[:, 0]
    np.testing.assert_array_equal(jaws, np.where(lda_demo.closed(scene, 60)[:, 0] > 0, 0.0, 1.0))


def test_columns_that_nothing_needs_are_counted_and_not_opened(episode: Ingested) -> None:
    found = facts_of(episode.episode)["columns_not_opened"]
    assert (found.value, found.certainty) == ("21", Certainty.VERIFIED)
    assert not found.is_for_actions
    assert [i.text for i in episode.episode.instructions] == [lda_demo.TASKS[0]]


def test_every_column_of_motion_is_kept(raw: Path, episode: Ingested) -> None:
    table = pq.read_table(raw / "data/chunk-000/episode_000000.parquet")
    for name in table.column_names:
        group, _, key = name.partition(".")
        is_used = name.startswith(("state.eef_position", "state.eef_quaternion", "state.joints"))
        if group in ("state", "action") and (
            not is_used or "frankaX" in name or "velocity" in name
        ):
            numbers = np.array(table[name].to_pylist())
            assert_not_lost(episode, f"modality.{group}.{key}", numbers)


def test_a_damaged_page_of_a_column_that_nothing_needs_does_no_harm(tmp_path: Path) -> None:
    """The bytes of every annotation are wrong on disk: whoever decodes them fails."""
    root = lda_demo.write(tmp_path / "s", annotation=b"DAMAGE-ME" * 9).root
    file = root / "data/chunk-000/episode_000000.parquet"
    groups = pq.ParquetFile(file).metadata.row_group(0)
    data = bytearray(file.read_bytes())
    for i in range(groups.num_columns):
        chunk = groups.column(i)
        if chunk.path_in_schema.startswith("annotation."):
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            data[start : start + chunk.total_compressed_size] = (
                b"\xff" * chunk.total_compressed_size
            )
    file.write_bytes(bytes(data))
    with pytest.raises(SourceError) as caught:
        read_rows(file, ["annotation.bbox3d"], where="f", episode=None)
    assert caught.value.code is Code.UNREADABLE
    assert len(refs_of(root)) == 2
    assert Task.POLICY in ingested(first_of(lda_demo.Written(root=root, scenes={}))).tasks


def test_a_dotted_name_is_not_opened_with_its_stem(tmp_path: Path) -> None:
    """Arrow takes "a.b" for a child of "a"; a column of its own beside it stays closed."""
    path = tmp_path / "f.parquet"
    rows = {"action": np.zeros(3), "action.pickle": [b"x"] * 3, "episode_index": np.zeros(3, int)}
    pq.write_table(lda_demo.pa.table(rows), path)
    found = read_rows(path, ["action"], where="f", episode=None)
    assert found.unopened == ("action.pickle",)
    assert found.table.column_names == ["action", "episode_index"]


def test_a_needed_column_must_still_be_safe(tmp_path: Path) -> None:
    root = lda_demo.write(tmp_path / "s").root
    file = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(file)
    at = table.column_names.index("state.eef_position")
    pickled = lda_demo.pa.array([lda_demo.PICKLE] * len(table), lda_demo.pa.binary())
    pq.write_table(table.set_column(at, "state.eef_position", pickled), file)
    with pytest.raises(SourceError) as caught:
        first_of(lda_demo.Written(root=root, scenes={}))
    assert caught.value.code is Code.UNSAFE_CONTENT


def test_it_is_ingested_and_verifies(raw: Path, tmp_path: Path) -> None:
    tally = run(raw, tmp_path / "corpus", source="lerobot")
    assert (tally.discovered, tally.committed) == (2, 2)
    rows = snapshot.load(tmp_path / "corpus").read(tmp_path / "corpus", "episodes").to_pylist()
    assert all("policy" in row["supervises"] for row in rows), rows[0]["supervision_limits"]
    answer = json.loads(invoke("verify", str(tmp_path / "corpus"), "--json").stdout)["result"]
    assert answer["findings"] == []
