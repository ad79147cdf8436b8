"""Mappings of LeRobot columns: known values through a user's, and every way that one may not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adapters.lerobot.mapping import mappings_from, shipped_mappings
from schemas.embodiment import embodiments
from schemas.errors import Code, ConfigError, SourceError
from tests.adapters.episode_parts import stream_of
from tests.adapters.lerobot_cases import ADAPTER, facts_of, refs_of
from tests.generators.lerobot_set import write_small

MAPPING = """
version: 1
mappings:
  - name: mine
    source: a test
    embodiment: widowx_250
    match: {columns: {observation.state: 8}}
    channels:
      - kind: pose
        channel: right.T_base_eef
        certainty: verified
        source: a test
        form: quat_xyzw
        metres_per_unit: 0.001
        position: {column: observation.state, start: 0, end: 3}
        rotation: {column: observation.state, start: 3, end: 7}
      - kind: gripper
        channel: right.gripper_opening
        certainty: verified
        source: a test
        at: {column: observation.state, start: 7, end: 8}
        scale: -0.01
        offset: 1
        binary: true
      - kind: joints
        channel: joint_position_rad
        certainty: documented
        source: a test
        radians_per_unit: 0.017453292519943295
        parts: [{column: action, start: 0, end: 2}, {column: action, start: 7, end: 8}]
"""


def _by_hand(tmp_path: Path) -> Path:
    """A set of three rows with round numbers: millimetres, a quarter turn about z, 0..100 with 100 closed, degrees."""
    root = write_small(tmp_path / "s").root
    half = np.sqrt(0.5)
    state = [[500.0, -250.0, 100.0, 0.0, 0.0, half, half, g] for g in (0.0, 25.0, 100.0)]
    action = [[90.0, 180.0, 0, 0, 0, 0, 0, -90.0]] * 3
    table = pa.table({"observation.state": state, "action": action, "task_index": [0, 0, 0]})
    pq.write_table(table, root / "data/chunk-000/episode_000000.parquet")
    return root


def test_known_values_through_a_users_mapping(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING)
    root = _by_hand(tmp_path)
    episode = ADAPTER.load(refs_of(root, mapping=str(tmp_path / "m.yaml"))[0])
    quarter_turn = [[0, -1, 0, 0.5], [1, 0, 0, -0.25], [0, 0, 1, 0.1], [0, 0, 0, 1]]
    pose = stream_of(episode, "right.T_base_eef").values
    np.testing.assert_allclose(pose, [quarter_turn] * 3, atol=1e-9)
    opening = stream_of(episode, "right.gripper_opening")
    np.testing.assert_allclose(opening.values[:, 0], [1.0, 0.75, 0.0])
    assert opening.spec.interpolation == "hold"
    joints = stream_of(episode, "joint_position_rad")
    np.testing.assert_allclose(joints.values[0], [np.pi / 2, np.pi, -np.pi / 2])
    assert episode.embodiment == "widowx_250"
    assert facts_of(episode)["gripper_polarity.right"].value == "opening = clip(-0.01 x + 1, 0, 1)"
    assert [s.name for s in episode.streams][-1] == "raw_command"


def test_mapping_that_asks_for_an_absent_column(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(MAPPING.replace("parts: [{column: action,", "parts: [{column: actoin,"))
    ref = refs_of(_by_hand(tmp_path), mapping=str(path))[0]
    with pytest.raises(SourceError, match="actoin") as caught:
        ADAPTER.load(ref)
    assert caught.value.code == Code.MISSING_CHANNEL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("end: 3}", "end: 4}"),
        ("start: 7, end: 8}\n        scale", "start: 6, end: 8}\n        scale"),
    ],
)
def test_mapping_of_wrong_width(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "m.yaml").write_text(MAPPING.replace(old, new))
    ref = refs_of(_by_hand(tmp_path), mapping=str(tmp_path / "m.yaml"))[0]
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code == Code.SHAPE_MISMATCH


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("form: quat_xyzw", "form: quaternion"),
        ("channel: right.T_base_eef", "channel: right.pose"),
        ("certainty: verified", "certainty: sure"),
        ("scale: -0.01", "scale: -0.01\n        invert: true"),
        ("at: {column: observation.state,", "at: {column: observation.state, modality: state.x,"),
        ("version: 1", "version: [1"),
        ("kind: joints", "kind: angles"),
        ("kind: joints", "names: ['(']\n        kind: joints"),
    ],
)
def test_mapping_that_breaks_a_rule(old: str, new: str) -> None:
    assert MAPPING.replace(old, new) != MAPPING
    with pytest.raises(ConfigError):
        mappings_from(MAPPING.replace(old, new), "m.yaml")


def test_mapping_file_that_does_not_fit_or_is_not_there(tmp_path: Path) -> None:
    root = write_small(tmp_path / "s").root
    path = tmp_path / "m.yaml"
    path.write_text(MAPPING.replace("observation.state: 8", "observation.state: 9"))
    for mapping in (str(path), str(tmp_path / "absent.yaml")):
        with pytest.raises(ConfigError):
            ADAPTER.survey(root, {"mapping": mapping})


def test_shipped_mappings_name_registered_bodies() -> None:
    named = {m.embodiment for m in shipped_mappings() if m.embodiment}
    assert {name for name in named if "{robot_type}" not in name} <= set(embodiments())
    order = [m.name for m in shipped_mappings()]
    assert len(set(order)) == len(order)
    assert order[-1] == "ei30k"  # the widest match comes last


def test_a_robot_that_stands_still_is_not_taken_for_a_copy(tmp_path: Path) -> None:
    root = _by_hand(tmp_path)
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    still = pa.array([table["action"][0].as_py()] * 3)
    pq.write_table(pa.table({"observation.state": still, "action": still}), path)
    (root / "meta/modality.json").unlink()
    assert "action_source" not in facts_of(ADAPTER.load(refs_of(root)[0]))
