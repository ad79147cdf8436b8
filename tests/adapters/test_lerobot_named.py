"""The LeRobot sets with names of their own: ground truth, one test for each thing that their makers got wrong, real samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from adapters.lerobot.named import RoboCoin
from adapters.registry import adapter_for
from jobs.demo.raw import Written
from schemas.embodiment import embodiments
from schemas.episode import Episode, EpisodeRef, Stream, VideoSpan
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty, Fact
from schemas.supervision import Task, allowed_tasks
from tests.generators import (
    behavior_1k,
    galaxea,
    humanoid_everyday_lerobot,
    interndata_a1,
    robocasa_gr1,
    robocoin,
)
from tests.generators.lerobot_set import write_small

MODULES = {
    "behavior_1k": behavior_1k,
    "galaxea": galaxea,
    "humanoid_everyday_lerobot": humanoid_everyday_lerobot,
    "interndata_a1": interndata_a1,
    "robocasa_gr1": robocasa_gr1,
    "robocoin": robocoin,
}


def _write(module: ModuleType, root: Path, **options: object) -> Written:
    """Without pictures: nothing here opens a video."""
    written: Written = module.write(root, pictures=False, **options)
    return written


def _refs(source: str, root: Path) -> list[EpisodeRef]:
    adapter = adapter_for(source)
    return list(adapter.discover(root, adapter.survey(root, {})))


def _first(source: str, written: Written) -> Episode:
    return adapter_for(source).load(_refs(source, written.root)[0])


def _stream(episode: Episode, name: str) -> Stream:
    found = episode.stream(name)
    assert found is not None, [s.name for s in episode.streams]
    return found


def _facts(episode: Episode) -> dict[str, Fact]:
    return {f.name: f for f in episode.facts}


def _texts(episode: Episode) -> list[tuple[str, str]]:
    return [(i.kind, i.text) for i in episode.instructions]


def _edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# --- what comes out -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "body"),
    [
        ("galaxea", {}, "galaxea_r1_lite"),
        ("galaxea", {"robot": "r1pro"}, "galaxea_r1pro"),
        ("robocoin", {}, "robocoin_r1_lite"),
        ("interndata_a1", {}, "interndata_lift2_arx"),
        ("interndata_a1", {"robot": "split_aloha"}, "agilex_piper"),
        ("interndata_a1", {"robot": "genie1"}, "interndata_genie1"),
        ("interndata_a1", {"robot": "franka"}, "panda_hand"),
        ("behavior_1k", {}, "behavior_r1pro"),
    ],
)
def test_hands_and_jaws_are_where_the_scene_has_them(
    tmp_path: Path, source: str, options: dict[str, str], body: str
) -> None:
    written = _write(MODULES[source], tmp_path / "s", **options)
    episode = _first(source, written)
    scene = next(iter(written.scenes.values()))
    assert episode.embodiment == body
    for side in scene.sides:
        pose = _stream(episode, f"{side}.T_base_eef")
        T_src_hand = embodiments()[body].arms[side].T_src_hand
        turn = np.eye(4) if T_src_hand is None else T_src_hand
        opening = _stream(episode, f"{side}.gripper_opening")
        for k in range(0, len(pose.t_ns), 2):
            t_s = float(pose.t_ns[k]) / 1e9
            np.testing.assert_allclose(
                pose.values[k] @ turn, scene.T_base_hand(t_s, side), atol=3e-6
            )
            assert opening.values[k, 0] == pytest.approx(scene.gripper_opening(t_s), abs=1e-6)


@pytest.mark.parametrize(
    ("source", "options", "channel", "due_ns"),
    [
        ("galaxea", {"robot": "r1pro"}, "command.right.T_base_eef", 66_666_667),
        ("galaxea", {}, "command.left.gripper_opening", 66_666_667),
        ("robocoin", {}, "command.right.T_base_eef", 33_333_333),
        ("behavior_1k", {}, "command.right.gripper_opening", 33_333_333),
    ],
)
def test_commands_are_due_one_period_later(
    tmp_path: Path, source: str, options: dict[str, str], channel: str, due_ns: int
) -> None:
    written = _write(MODULES[source], tmp_path / "s", **options)
    scene = next(iter(written.scenes.values()))
    command = _stream(_first(source, written), channel)
    assert command.t_ns[0] == due_ns
    t_s = float(command.t_ns[-1]) / 1e9
    side = channel.split(".")[1]
    wanted = (
        scene.T_base_hand(t_s, side) if channel.endswith("eef") else [scene.gripper_opening(t_s)]
    )
    np.testing.assert_allclose(command.values[-1], wanted, atol=3e-6)


def test_a_named_source_is_the_lerobot_reader(tmp_path: Path) -> None:
    written = _write(galaxea, tmp_path / "kitchen")
    named, plain_ = _first("galaxea", written), _first("lerobot", written)
    assert named.ref.episode_id == plain_.ref.episode_id == "kitchen/episode_000000"
    assert (named.ref.source, named.ref.dataset) == ("galaxea", "kitchen")
    assert named.ref.uid != plain_.ref.uid
    for a, b in zip(named.streams, plain_.streams, strict=True):
        np.testing.assert_array_equal(a.values, b.values)
    assert named.licence.licence_class == "non_commercial"
    assert plain_.licence.licence_class == "unknown"


@pytest.mark.parametrize("source", ["behavior_1k", "humanoid_everyday_lerobot"])
def test_ids_of_a_source_of_one_set_do_not_hang_on_the_folder(tmp_path: Path, source: str) -> None:
    ids = [
        [r.episode_id for r in _refs(source, _write(MODULES[source], tmp_path / name).root)]
        for name in ("here", "there")
    ]
    assert ids[0] == ids[1]


def test_sets_of_others_are_refused(tmp_path: Path) -> None:
    other = write_small(tmp_path / "franka").root
    torn = tmp_path / "torn"
    (torn / "meta").mkdir(parents=True)
    (torn / "data").mkdir()
    (torn / "meta/info.json").write_text("{")
    (torn / "data/a.parquet").write_bytes(b"PAR1")
    for source in MODULES:
        with pytest.raises(ConfigError, match=f"is not a {source} dataset"):
            adapter_for(source).survey(other, {})
        with pytest.raises(ConfigError, match="cannot be identified"):
            adapter_for(source).survey(torn, {})
        with pytest.raises(ConfigError, match="mapping"):
            adapter_for(source).survey(other, {"mapping": "m.yaml"})


# --- RoboCOIN -----------------------------------------------------------------------------------------------------------


def test_robocoin_subtasks_move_between_slots_and_overlap(tmp_path: Path) -> None:
    episode = _first("robocoin", _write(robocoin, tmp_path / "s"))
    found = [(i.text, i.start_ns, i.end_ns) for i in episode.instructions if i.kind == "subtask"]
    assert found == [  # rows 0 to 40 and 20 to 60 at 30 Hz; "null" and "End" say nothing
        ("Pick up the plastic bowl", 0, 1_333_333_333),
        ("Place the plastic bowl on the table", 666_666_667, None),
    ]


def test_robocoin_actions_that_were_filled_from_states_are_no_commands(tmp_path: Path) -> None:
    episode = _first("robocoin", _write(robocoin, tmp_path / "s", is_copied=True))
    assert not [s.name for s in episode.streams if "command" in s.name]
    assert _facts(episode)["action_source"].value == "achieved"


def test_robocoin_fewer_names_than_numbers_locate_nothing(tmp_path: Path) -> None:
    written = _write(robocoin, tmp_path / "s", num_names=len(robocoin.STATE) - 2)
    episode = _first("robocoin", written)
    assert episode.stream("joint_position_rad") is None
    assert _stream(episode, "source_state").values.shape[1] == len(robocoin.STATE)
    assert episode.stream("left.T_base_eef") is not None


def test_robocoin_sdk_poses_are_not_taken_for_the_unified_frame(tmp_path: Path) -> None:
    episode = _first("robocoin", _write(robocoin, tmp_path / "s"))
    kept = _stream(episode, "source_state")
    assert "left_eef_pos_x" in kept.spec.names
    assert _stream(episode, "left.T_base_eef").values[0, 0, 3] < 1  # the SDK says 1.5
    tasks, why = allowed_tasks(
        facts=[*episode.facts, *embodiments()["robocoin_r1_lite"].arms["left"].facts("left")],
        has_camera=True,
        action_coverage=1.0,
    )
    assert tasks == (Task.VISUAL_FORECASTING,)
    assert "eef_axes.left is unknown" in why


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ('{"subtask_index": 0, "subtask": "null"}\n', Code.BAD_ANNOTATION),  # others are missing
        ("{'subtask_index': 0}\n", Code.UNREADABLE),  # single quotes, as real files had
        ('{"index": 0, "text": "null"}\n', Code.UNREADABLE),
        ("[0]\n", Code.UNREADABLE),
    ],
)
def test_robocoin_broken_label_tables(tmp_path: Path, lines: str, code: Code) -> None:
    written = _write(robocoin, tmp_path / "s")
    (written.root / "annotations/subtask_annotations.jsonl").write_text(lines)
    with pytest.raises(SourceError) as caught:
        _first("robocoin", written)
    assert caught.value.code == code


def test_robocoin_without_its_label_table_says_so(tmp_path: Path) -> None:
    written = _write(robocoin, tmp_path / "s")
    (written.root / "annotations/subtask_annotations.jsonl").unlink()
    episode = _first("robocoin", written)
    assert _texts(episode) == [("task", "Clear the plastic bowl.")]
    assert _facts(episode)["labels.subtask_annotation"].value == "left out"


# --- Galaxea ------------------------------------------------------------------------------------------------------------


def test_galaxea_has_coarse_and_fine_texts_and_null_is_none(tmp_path: Path) -> None:
    episode = _first("galaxea", _write(galaxea, tmp_path / "s"))
    assert _texts(episode) == [("task", "clean the table"), ("subtask", galaxea.TASKS[1])]
    single = _first("galaxea", _write(galaxea, tmp_path / "single", is_merged=False))
    assert _texts(single) == [("subtask", galaxea.TASKS[1])]


def test_galaxea_lite_commands_no_pose(tmp_path: Path) -> None:
    episode = _first("galaxea", _write(galaxea, tmp_path / "s"))
    assert episode.stream("command.left.T_base_eef") is None
    assert _stream(episode, "joint_position_rad").values.shape[1] == 12


# --- InternData-A1 ------------------------------------------------------------------------------------------------------


def test_interndata_next_states_are_no_commands(tmp_path: Path) -> None:
    episode = _first("interndata_a1", _write(interndata_a1, tmp_path / "s"))
    assert episode.stream("command.left.T_base_eef") is None
    raw = _stream(episode, "raw_command")
    assert {n.split(".")[0] for n in raw.spec.names} == {"master_actions"}
    told = _stream(episode, "command.left.gripper_opening")
    assert set(told.values[:, 0]) == {0.0, 1.0}
    assert told.spec.interpolation == "hold"


@pytest.mark.parametrize(
    ("robot", "robot_type", "body", "has_opening"),
    [
        ("franka", "piper", "panda_hand", True),
        ("frankarobotiq", "Franka", "interndata_franka_robotiq", True),
        ("franka", "Franka", "interndata_franka", False),  # the head picture contradicts the name
        ("lift2", "piper", "interndata_piper", False),
        ("frankarobotiq", "piper", "interndata_piper", False),
    ],
)
def test_interndata_robot_types_that_mislead(
    tmp_path: Path, robot: str, robot_type: str, body: str, has_opening: bool
) -> None:
    written = _write(interndata_a1, tmp_path / "s", robot=robot, robot_type=robot_type)
    episode = _first("interndata_a1", written)
    assert episode.embodiment == body
    assert (episode.stream("left.gripper_opening") is not None) == has_opening
    if not has_opening:
        assert _facts(episode)["gripper_polarity.left"].certainty is Certainty.UNKNOWN


def test_interndata_extrinsics_are_never_used(tmp_path: Path) -> None:
    episode = _first("interndata_a1", _write(interndata_a1, tmp_path / "s", robot="franka"))
    assert not [s.name for s in episode.streams if "cam" in s.name]
    assert not [n for s in episode.streams for n in s.spec.names if "extrinsics" in n]
    assert _facts(episode)["camera_extrinsics"].value == "left out"


def test_interndata_intrinsics_of_twice_the_picture_are_left_out(tmp_path: Path) -> None:
    written = _write(interndata_a1, tmp_path / "s")
    path = written.root / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    at = table.column_names.index("hand_left_camera_intrinsics")
    doubled = interndata_a1.fixed(np.tile([1200.0, 1200, 640, 360], (table.num_rows, 1)))
    pq.write_table(table.set_column(at, "hand_left_camera_intrinsics", doubled), path)
    episode = _first("interndata_a1", written)
    cameras = {c.name: c for c in episode.cameras}
    K_cam = cameras["head"].K_cam
    assert K_cam is not None
    assert K_cam.tolist() == [[600, 0, 319.5], [0, 600, 179.5], [0, 0, 1]]
    assert cameras["head"].K_size == (640, 360)
    assert cameras["hand_left"].K_cam is None
    assert "outside" in _facts(episode)["intrinsics.hand_left"].source


# --- BEHAVIOR-1K --------------------------------------------------------------------------------------------------------


def test_behavior_paths_tasks_and_the_only_real_pictures(tmp_path: Path) -> None:
    written = _write(behavior_1k, tmp_path / "s")
    refs = _refs("behavior_1k", written.root)
    assert [(r.episode_id, r.problem) for r in refs] == [
        ("behavior_1k/episode_000010", None),
        ("behavior_1k/episode_000020", None),
        ("behavior_1k/episode_030010", None),
    ]
    episode = adapter_for("behavior_1k").load(refs[2])
    assert episode.raw_files[0].path == "data/task-0003/episode_00030010.parquet"
    assert episode.raw_files[-1].path == "annotations/task-0003/episode_00030010.json"
    # its rows point to task 0, as an older writer left them
    assert _texts(episode)[0] == ("task", behavior_1k.PROMPTS[3])
    assert [c.name for c in episode.cameras] == ["rgb_left_wrist", "rgb_right_wrist", "rgb_head"]
    for camera in episode.cameras:  # depth and segmentation files hold no video
        assert isinstance(camera.frames, VideoSpan)
        assert ".rgb." in camera.frames.path
    assert sum(f.name.startswith("camera_left_out.") for f in episode.facts) == 6
    assert len(_stream(episode, "source_state").spec.names) == 256 - 14 - 4 - 18


def test_behavior_skills_become_subtasks_and_bad_ones_are_counted(tmp_path: Path) -> None:
    written = _write(behavior_1k, tmp_path / "s")
    path = written.root / "annotations/task-0000/episode_00000010.json"

    def change(value: dict[str, Any]) -> None:
        value["skill_annotation"] += [
            {"skill_description": ["open"], "frame_duration": [40, 10]},
            {"skill_description": "open", "frame_duration": [0, 10]},
            {"skill_description": ["wait"], "frame_duration": [[0, 2], [4, 6]]},
        ]

    _edit(path, change)
    episode = _first("behavior_1k", written)
    assert [(i.text, i.start_ns) for i in episode.instructions if i.kind == "subtask"] == [
        ("move to: radio_89", 0),
        ("pick up from: radio_89, coffee_table_koagbh_0", 666_666_667),
        ("wait", 0),
        ("wait", 133_333_333),
    ]
    assert _facts(episode)["labels.skill_annotation"].source.startswith("2 rows")
    path.unlink()
    assert "not there" in _facts(_first("behavior_1k", written))["labels.skill_annotation"].source


# --- Humanoid Everyday --------------------------------------------------------------------------------------------------


def _ruin_column(path: Path, name: str) -> None:
    """Overwrite the pages of a column: reading it fails from now on."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = [group.column(i) for i in range(group.num_columns)]
    chunk = next(c for c in chunks if c.path_in_schema.startswith(name))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(bytes(data))


def test_humanoid_depth_in_the_rows_is_never_read(tmp_path: Path) -> None:
    written = _write(humanoid_everyday_lerobot, tmp_path / "s")
    path = written.root / "data/chunk-000/episode_000000.parquet"
    _ruin_column(path, humanoid_everyday_lerobot.DEPTH)
    with pytest.raises(OSError, match=r".*"):
        pq.read_table(path)
    episode = _first("humanoid_everyday_lerobot", written)
    assert _stream(episode, "joint_position_rad").values.shape == (60, 43)


def test_humanoid_texts_are_descriptions_and_none_where_there_is_none(tmp_path: Path) -> None:
    written = _write(humanoid_everyday_lerobot, tmp_path / "s")
    episode = _first("humanoid_everyday_lerobot", written)
    assert _texts(episode) == [("task", "Staple the sheets of paper.")]
    tasks = written.root / "meta/tasks.jsonl"
    tasks.write_text(tasks.read_text().replace("Staple the sheets of paper.", ""))
    assert _texts(_first("humanoid_everyday_lerobot", written)) == []


def test_humanoid_set_of_two_robots(tmp_path: Path) -> None:
    """info.json says "mixed"; the episode table says which is which. H1 has other legs and other hands."""
    written = _write(humanoid_everyday_lerobot, tmp_path / "s", robots=("g1", "h1"))
    adapter = adapter_for("humanoid_everyday_lerobot")
    g1, h1 = (adapter.load(r) for r in _refs(adapter.name, written.root))
    assert (g1.embodiment, h1.embodiment) == ("unitree_g1", "unitree_h1_2_inspire")
    assert _stream(h1, "joint_position_rad").spec.names[12:15] == (
        "right_wrist_pitch",
        "right_wrist_yaw",
        "left_hip_yaw",
    )
    assert h1.stream("left.hand_joints_rad") is None  # nobody states the unit of Inspire hands
    assert _stream(h1, "source_state").values.shape[1] == 12
    assert _stream(g1, "right.hand_joints_rad").spec.names[0] == "right_hand_thumb_0_joint"
    for episode, hands in ((g1, 14), (h1, 12)):
        told = _stream(episode, "command.joint_position_rad")  # behind the hands' 0.25
        assert told.values.shape[1] == 14
        assert not (told.values == 0.25).any()
        assert _stream(episode, "raw_command").values.shape[1] == hands + 14
        assert _facts(episode)["action_layout"].certainty is Certainty.UNVERIFIED
        K_cam = episode.cameras[0].K_cam
        assert K_cam is not None
        assert K_cam[0, 0] == pytest.approx(606.5, abs=0.4)


def test_humanoid_set_that_names_no_robot(tmp_path: Path) -> None:
    written = _write(
        humanoid_everyday_lerobot, tmp_path / "s", robots=("g1", "h1"), name_robot=False
    )
    episode = _first("humanoid_everyday_lerobot", written)
    assert episode.embodiment == "humanoid_everyday_mixed"
    assert _stream(episode, "joint_position_rad").values.shape[1] == 14
    assert episode.stream("command.joint_position_rad") is None


# --- RoboCasa-GR1 -------------------------------------------------------------------------------------------------------


def test_gr1_arms_are_commanded_and_hands_are_not(tmp_path: Path) -> None:
    episode = _first("robocasa_gr1", _write(robocasa_gr1, tmp_path / "s"))
    told, seen = (_stream(episode, n) for n in ("command.joint_position_rad", "joint_position_rad"))
    assert told.values.shape[1] == 17
    right_arm = [seen.spec.names.index(f"state.right_arm.{i}") for i in range(7)]
    np.testing.assert_array_equal(told.values[:-1, 7:14], seen.values[1:, right_arm])
    assert _texts(episode) == [("task", robocasa_gr1.TASKS[0])]  # not "valid"
    assert seen.t_ns[:2].tolist() == [0, 50_000_000]


@pytest.mark.real
def test_real_gr1(samples: Path) -> None:
    refs = _refs("robocasa_gr1", samples / "lerobot_v20_gr1_picknplace")
    assert refs[0].episode_id == "lerobot_v20_gr1_picknplace/episode_000000"
    for ref in refs:
        episode = adapter_for("robocasa_gr1").load(ref)
        told = _stream(episode, "command.joint_position_rad").values
        seen = _stream(episode, "joint_position_rad")
        arms = [
            seen.spec.names.index(f"state.{s}_arm.{i}") for s in ("left", "right") for i in range(7)
        ]
        assert np.abs(told[:, :14] - seen.values[:, arms]).max() < 0.4
        assert np.abs(told[:, :14] - seen.values[:, arms]).mean() < 0.04


@pytest.mark.real
def test_real_robocoin_metadata_is_recognised(samples: Path) -> None:
    root = samples / "lerobot_v21_robocoin_meta/examples/example_datas/example_dataset_1"
    refs = list(RoboCoin().discover(root, RoboCoin().survey(root, {})))
    assert [r.problem[0] for r in refs if r.problem] == ["missing_file"] * 498
    assert refs[0].dataset == "example_dataset_1"
    with pytest.raises(ConfigError):
        adapter_for("galaxea").survey(root, {})
