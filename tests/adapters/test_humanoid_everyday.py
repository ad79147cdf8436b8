"""Humanoid Everyday: known values by hand, each known defect. No real episode was at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.humanoid_everyday.adapter import HumanoidEveryday
from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from jobs.demo.raw.scene import Scene
from schemas.episode import EncodedImages, Episode, EpisodeRef
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from schemas.kinematics import kinematics_of
from tests.adapters.episode_parts import refs_of, stream_of
from tests.generators import humanoid_everyday as generator

ADAPTER = HumanoidEveryday()
SCENE = Scene(duration_s=0.2, width=64, height=48)
START_S = generator.START_S
Steps = list[dict[str, Any]]


def written(root: Path, steps: Steps, name: str = "task/episode_0") -> EpisodeRef:
    generator.write_episode(root / name, SCENE, steps)
    return next(ref for ref in refs_of(ADAPTER, root) if ref.episode_id == name)


def loaded(root: Path, steps: Steps, name: str = "task/episode_0") -> Episode:
    return ADAPTER.load(written(root, steps, name))


def test_a_g1_by_hand(tmp_path: Path) -> None:
    """Every element is a number of its own, so that each must land under its own name."""
    steps = generator.steps_of(SCENE)
    states, actions = steps[0]["states"], steps[0]["actions"]
    states["arm_state"] = [0.01 * k for k in range(14)]
    states["leg_state"] = [1 + 0.01 * k for k in range(15)]
    states["hand_state"] = [2 + 0.01 * k for k in range(14)]
    actions["sol_q"] = [3 + 0.01 * k for k in range(14)]
    steps[1]["time"] = START_S + 0.04  # recorded times count, not 30 Hz
    episode = loaded(tmp_path, steps, "press_the_stapler_g1/episode_7")
    joints = stream_of(episode, "joint_position_rad")
    found = dict(zip(joints.spec.names, joints.values[0].tolist(), strict=True))
    assert found["left_shoulder_pitch_joint"] == 0.0
    assert found["left_elbow_joint"] == 0.03
    assert found["right_wrist_yaw_joint"] == 0.13
    assert found["left_hip_yaw_joint"] == 1.02
    assert found["waist_yaw_joint"] == 1.12
    assert found["left_hand_middle_0_joint"] == 2.03
    assert found["right_hand_index_1_joint"] == 2.13
    assert joints.t_ns[:2].tolist() == [0, pytest.approx(40_000_000, abs=1000)]
    assert stream_of(episode, "left.hand_joints_rad").values[0].tolist() == states["hand_state"][:7]
    assert stream_of(episode, "right.hand_joints_rad").values[0, 0] == 2.07
    told = stream_of(episode, "command.joint_position_rad")
    assert told.values[0].tolist() == actions["sol_q"]
    assert told.spec.names == joints.spec.names[:14]
    assert told.t_ns[0] == 33_333_333  # due one period after its issue
    raw = stream_of(episode, "raw_command")
    at = raw.spec.names.index("left_pose.3")  # row 0, column 3: x of the target
    assert raw.values[0, at] == pytest.approx(SCENE.T_base_hand(0.0)[0, 3])
    assert raw.t_ns[0] == 0
    state = stream_of(episode, "source_state")
    assert state.values[0, state.spec.names.index("imu.quat_wxyz.0")] == 1.0
    assert episode.embodiment == "unitree_g1"
    assert [i.text for i in episode.instructions] == ["press the stapler"]
    assert not [s.name for s in episode.streams if "T_base_eef" in s.name]
    fact = {f.name: f for f in episode.facts}
    assert fact["teleop_pose_frame"].certainty is Certainty.INFERRED
    assert fact["right_hand_order"].certainty is Certainty.UNVERIFIED


def test_an_h1_keeps_its_hands_in_the_sources_unit(tmp_path: Path) -> None:
    episode = loaded(tmp_path, generator.steps_of(SCENE, is_g1=False))
    assert episode.embodiment == "unitree_h1_2_inspire"
    assert episode.stream("left.hand_joints_rad") is None
    assert len(stream_of(episode, "joint_position_rad").spec.names) == 27
    state = stream_of(episode, "source_state")
    assert state.spec.names[-12:-10] == ("left_pinky", "left_ring")
    assert {f.name: f.certainty for f in episode.facts}["hand_state_unit"] is Certainty.UNKNOWN


@pytest.mark.parametrize("is_g1", [True, False])
def test_kinematics_find_the_arms_by_these_names(tmp_path: Path, is_g1: bool) -> None:
    episode = loaded(tmp_path, generator.steps_of(SCENE, is_g1=is_g1))
    names = stream_of(episode, "joint_position_rad").spec.names
    for side, arm in kinematics_of(episode.embodiment).arms.items():
        first = 0 if side == "left" else 7
        assert names[first : first + 7] in {tuple(e) for e in arm.elements}


def test_intrinsics_only_for_the_size_they_were_measured_at(tmp_path: Path) -> None:
    small = loaded(tmp_path, generator.steps_of(SCENE)).cameras[0]
    assert small.K_cam is None
    scene = Scene(duration_s=0.04, width=640, height=480)
    generator.write_episode(tmp_path / "task/episode_1", scene, generator.steps_of(scene))
    camera = ADAPTER.load(refs_of(ADAPTER, tmp_path)[1]).cameras[0]
    assert camera.K_size == (640, 480)
    assert camera.K_cam is not None
    assert camera.K_cam[0].tolist() == [606.2996826171875, 0, 330.7660217285156]


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    steps = generator.steps_of(SCENE)
    camera = loaded(tmp_path, steps).cameras[0]
    assert isinstance(camera.frames, EncodedImages)
    assert camera.frames.images[1][:3] == b"\xff\xd8\xff"
    clock = frame_clock(camera)
    write_video(camera, clock, clock[::3], tmp_path / "out.mp4", VideoSettings())
    (tmp_path / "task/episode_0" / steps[3]["image"]).unlink()
    with pytest.raises(SourceError, match=r"episode_0/color/000003\.jpg") as caught:
        write_video(camera, clock, clock[::3], tmp_path / "two.mp4", VideoSettings())
    assert caught.value.code is Code.MISSING_FILE


def test_steps_without_a_command_are_not_commanded(tmp_path: Path) -> None:
    steps = generator.steps_of(SCENE)
    steps[0]["actions"] = None
    steps[2]["actions"]["sol_q"] = None
    steps[4]["actions"]["left_pose"] = None
    episode = loaded(tmp_path, steps)
    told = stream_of(episode, "command.joint_position_rad")
    assert told.valid.tolist() == [False, True, False, True, True, True]
    raw = stream_of(episode, "raw_command")  # valid where all of it is there
    assert raw.valid.tolist() == [False, True, False, True, False, True]


def _set(path: str, value: Any, at: int = 2) -> Callable[[Steps], None]:
    def change(steps: Steps) -> None:
        *parents, last = path.split(".")
        node = steps[at]
        for parent in parents:
            node = node[parent]
        node[last] = value

    return change


def _drop_arms(steps: Steps) -> None:
    for step in steps:
        del step["states"]["arm_state"]


def _degrees(steps: Steps) -> None:
    for step in steps:
        step["states"]["arm_state"] = [90.0] * 14


DEFECTS: list[tuple[Callable[[Steps], None], Code]] = [
    (_set("time", START_S), Code.CLOCK_NOT_INCREASING),
    (_set("time", START_S * 1000), Code.TOO_LONG),  # milliseconds
    (_set("time", "soon"), Code.BAD_ANNOTATION),
    (_set("image", "../../../../outside.jpg"), Code.UNSAFE_PATH),
    (_set("image", "color/none.jpg"), Code.MISSING_FILE),
    (_set("states.arm_state", [0.0] * 13), Code.SHAPE_MISMATCH),
    (_set("states.arm_state", [float("nan")] * 14), Code.NOT_FINITE),
    (_set("robot_type", "GR1"), Code.UNKNOWN_LAYOUT),
    (lambda steps: [s.pop("robot_type") for s in steps] and None, Code.SHAPE_MISMATCH),  # Dex3, H1
    (_drop_arms, Code.MISSING_CHANNEL),
    (_degrees, Code.UNKNOWN_LAYOUT),
    (lambda steps: steps.clear(), Code.EMPTY_EPISODE),
]


@pytest.mark.parametrize(("change", "code"), DEFECTS)
def test_defects(tmp_path: Path, change: Callable[[Steps], None], code: Code) -> None:
    steps = generator.steps_of(SCENE)
    generator.write_episode(tmp_path / "task/episode_0", SCENE, steps)
    change(steps)
    (tmp_path / "task/episode_0/data.json").write_text(json.dumps(steps))
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(refs_of(ADAPTER, tmp_path)[0])
    assert caught.value.code is code, str(caught.value)


@pytest.mark.parametrize("text", ['[{"time": 1.0, "ima', '{"time": 1}', "\xff", ""])
def test_a_cut_file_is_one_broken_episode(tmp_path: Path, text: str) -> None:
    ref = written(tmp_path, generator.steps_of(SCENE))
    (tmp_path / "task/episode_0/data.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError) as caught:
        ADAPTER.load(ref)
    assert caught.value.code in (Code.CORRUPT_RECORD, Code.BAD_ANNOTATION)


def test_discovery(tmp_path: Path) -> None:
    for name in ("b/episode_10", "b/episode_9", "a/x/episode_1"):
        generator.write_episode(tmp_path / name, SCENE, generator.steps_of(SCENE))
    (tmp_path / "b/episode_9/data.json").unlink()
    found = [(ref.episode_id, ref.problem and ref.problem[0]) for ref in refs_of(ADAPTER, tmp_path)]
    assert found == [
        ("a/x/episode_1", None),
        ("b/episode_9", "missing_file"),
        ("b/episode_10", None),
    ]
    with pytest.raises(ConfigError, match="unpack its zip"):
        ADAPTER.survey(tmp_path / "b/episode_10/color", {})
