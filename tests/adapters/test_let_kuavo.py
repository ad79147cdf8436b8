"""LET: known values by hand, forward kinematics of what it stores, each known defect, hostile bags."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters.containers import rosbag1
from adapters.let_kuavo import recording
from adapters.let_kuavo.adapter import LetKuavo
from ingest.transforms.forward_kinematics import Robot, with_forward_kinematics
from jobs.demo.raw.scene import Scene
from schemas.episode import EncodedImages, Episode
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from tests.adapters.episode_parts import only_episode, stream_of
from tests.generators import let_kuavo as generator
from tests.generators.let_kuavo import Topic, claw, joint_state, mark, write_labels

ADAPTER = LetKuavo()
FOLDER = "real/Labelled/coil_sorting-P4-leju_claw"
JULY_8_AT_0H05 = 1_751_904_300_000_000_000  # 2025-07-08 00:05 at UTC+8, still the 7th at UTC
Change = Callable[[Topic], Topic | None]


def one(root: Path, change: Change = lambda topic: topic, **how: Any) -> Path:
    scene = Scene(seed=1, duration_s=0.4, sides=("left", "right"), width=32, height=24)
    path = root / FOLDER / "take_1.bag"
    generator.write_bag(path, scene, change=change, **how)
    return path


def refused(root: Path) -> tuple[Code, str]:
    with pytest.raises(SourceError) as caught:
        only_episode(ADAPTER, root)
    return caught.value.code, str(caught.value)


def certainty(episode: Episode, name: str) -> Certainty:
    return next(f.certainty for f in episode.facts if f.name.startswith(name))


def only(*names: str) -> Change:
    return lambda topic: topic if topic.name in names else None


def instead(name: str, at: Callable[[float], Any]) -> Change:
    return lambda topic: replace(topic, at=at) if topic.name == name else topic


# --- values -------------------------------------------------------------------------------------------------------------


def test_values_by_hand(tmp_path: Path) -> None:
    def change(topic: Topic) -> Topic | None:
        told = {
            "/kuavo_arm_traj": lambda t: joint_state([90.0, -180.0, *[0.0] * 12]),
            "/leju_claw_state": lambda t: claw("State", [25, 101], state=np.zeros(2, np.int8)),
            "/leju_claw_command": lambda t: claw("Command", [0, 60]),
        }
        return replace(topic, at=told[topic.name]) if topic.name in told else topic

    one(tmp_path, change)
    episode = only_episode(ADAPTER, tmp_path)
    joints = stream_of(episode, "joint_position_rad")
    np.testing.assert_allclose(joints.values[10, 12:15], 0.5 * np.sin([0.1, 1.1, 2.1]))
    assert joints.t_ns[10] == 100_000_000
    at = joints.spec.names.index
    assert (at("leg_l1_joint"), at("leg_r1_joint"), at("zarm_l1_joint")) == (0, 6, 12)
    assert (at("zarm_r1_joint"), at("zhead_1_joint")) == (19, 26)
    command = stream_of(episode, "command.joint_position_rad")
    np.testing.assert_allclose(command.values[0, :2], [np.pi / 2, -np.pi])
    assert command.t_ns[0] == 33_333_333  # due one period of the head camera later
    assert stream_of(episode, "left.gripper_opening").values[0] == [0.75]
    assert stream_of(episode, "right.gripper_opening").values[0] == [0.0]  # 101 is clipped
    assert stream_of(episode, "command.right.gripper_opening").values[0] == [0.4]
    raw = stream_of(episode, "raw_command")
    assert raw.t_ns[0] == 0
    assert raw.values[0].tolist() == [90.0, -180.0, *[0.0] * 13, 60.0]
    assert (raw.spec.names[0], raw.spec.names[14:]) == (
        "zarm_l1_joint_deg",
        ("left_claw", "right_claw"),
    )
    assert certainty(episode, "gripper_polarity") is Certainty.DOCUMENTED
    assert (episode.embodiment, episode.licence.licence_class) == ("kuavo4pro", "non_commercial")


def test_raw_command_is_what_each_joint_was_last_told(tmp_path: Path) -> None:
    """Two topics of different rates: nothing is interpolated, and it begins when both have spoken."""

    def change(topic: Topic) -> Topic | None:
        if topic.name == "/leju_claw_command":  # 0, 0.2 s
            return replace(topic, rate_hz=5, at=lambda t: claw("Command", [100 * t] * 2))
        return replace(topic, at=lambda t: joint_state([t] * 14)) if "arm" in topic.name else None

    one(tmp_path, change)
    raw = stream_of(only_episode(ADAPTER, tmp_path), "raw_command")
    assert raw.t_ns.tolist() == [k * 20_000_000 for k in range(20)]
    np.testing.assert_allclose(raw.values[:, 0], np.arange(20) / 50)
    np.testing.assert_allclose(raw.values[:, 15], [0] * 10 + [20] * 10)


def test_hands_stay_in_their_own_unit(tmp_path: Path) -> None:
    def told(t: float) -> Any:
        six = np.full(6, 10, np.uint8)
        kind = "kuavo_msgs/msg/robotHandPosition"
        return generator.message(kind, left_hand_position=six, right_hand_position=six * 9)

    one(tmp_path, instead("/control_robot_hand_position", told), tool="dex_hand")
    episode = only_episode(ADAPTER, tmp_path)
    fingers = stream_of(episode, "source_state")
    assert fingers.spec.names[:7] == (
        *(f"left_qiangnao_{k}" for k in range(1, 7)),
        "right_qiangnao_1",
    )
    assert fingers.values.max() > 50
    assert not [s.name for s in episode.streams if "gripper" in s.name or "hand_joints" in s.name]
    assert stream_of(episode, "raw_command").values[0, 14:].tolist() == [10.0] * 6 + [90.0] * 6


def test_the_simulator(tmp_path: Path) -> None:
    """Another gripper scale, and radians of all joints where no arm trajectory was recorded."""
    one(tmp_path, tool="joint_cmd")
    episode = only_episode(ADAPTER, tmp_path)
    command = stream_of(episode, "command.joint_position_rad").values
    truth = [generator.joints(k / 50 + 1 / 30)[12:26] for k in range(20)]
    np.testing.assert_allclose(command, truth, atol=1e-9)
    both = [stream_of(episode, f"{p}left.gripper_opening").values for p in ("", "command.")]
    assert min(v.min() for v in both) < 0.1 < 0.9 < max(v.max() for v in both)
    assert stream_of(episode, "raw_command").spec.names[0] == "leg_l1_joint_rad"


def test_pictures_are_the_recorders_bytes(tmp_path: Path) -> None:
    one(tmp_path, compression="lz4")
    (head, wrist) = only_episode(ADAPTER, tmp_path).cameras
    assert (head.name, wrist.name) == ("cam_h", "cam_l")
    assert isinstance(head.frames, EncodedImages)
    assert not head.frames.is_bgr
    assert head.frames.images[0][:3] == b"\xff\xd8\xff"
    assert head.t_ns is not None
    assert head.t_ns[:2].tolist() == [0, 33_333_333]  # the record clock; header stamps are zero


def test_the_swapped_wrist_of_one_day(tmp_path: Path) -> None:
    one(tmp_path / "a", start_ns=JULY_8_AT_0H05)
    one(tmp_path / "b")
    assert certainty(only_episode(ADAPTER, tmp_path / "a"), "camera_sides") is Certainty.UNVERIFIED
    assert certainty(only_episode(ADAPTER, tmp_path / "b"), "camera_sides") is Certainty.DOCUMENTED


# --- forward kinematics -------------------------------------------------------------------------------------------------


def test_poses_come_from_a_urdf(tmp_path: Path) -> None:
    """Shoulders 0.4 m up and 0.3 m aside; joint 1 pitches about y, the rest are kept in line; the arm is 0.6 m long."""
    one(tmp_path)
    parts = ['<link name="base_link"/>']
    for side, y in (("l", 0.3), ("r", -0.3)):
        links = ["base_link", *(f"zarm_{side}{k}_link" for k in range(1, 8))]
        for k in range(1, 8):
            axis, at = ("0 1 0", f"0 {y} 0.4") if k == 1 else ("0 0 1", "0 0 0")
            parts.append(
                f'<link name="{links[k]}"/><joint name="zarm_{side}{k}_joint" type="revolute"><parent link="{links[k - 1]}"/>'
                f'<child link="{links[k]}"/><origin xyz="{at}"/><axis xyz="{axis}"/></joint>'
            )
        tip = f"zarm_{side}7_end_effector"
        parts.append(
            f'<link name="{tip}"/><joint name="{tip}_joint" type="fixed"><parent link="{links[7]}"/>'
            f'<child link="{tip}"/><origin xyz="0 0 -0.6"/></joint>'
        )
    urdf = tmp_path / "kuavo.urdf"
    urdf.write_text(f'<robot name="kuavo">{"".join(parts)}</robot>')
    episode = with_forward_kinematics(
        only_episode(ADAPTER, tmp_path), Robot.open(urdf, "kuavo4pro")
    )
    for side, joint, y in (("left", 12, 0.3), ("right", 19, -0.3)):
        q = stream_of(episode, "joint_position_rad").values[:, joint]
        p = stream_of(episode, f"{side}.T_base_eef").values[:, :3, 3]
        truth = np.stack([-0.6 * np.sin(q), np.full_like(q, y), 0.4 - 0.6 * np.cos(q)], axis=1)
        np.testing.assert_allclose(p, truth, atol=1e-12)
        told = stream_of(episode, "command.joint_position_rad").values[:, joint - 12]
        p = stream_of(episode, f"command.{side}.T_base_eef").values[:, :3, 3]
        np.testing.assert_allclose(p[:, 0], -0.6 * np.sin(told), atol=1e-12)
    assert certainty(episode, "eef_pose_source") is Certainty.INFERRED


# --- labels -------------------------------------------------------------------------------------------------------------


def test_labels_and_their_times(tmp_path: Path) -> None:
    path = one(tmp_path)
    assert [i.text for i in only_episode(ADAPTER, tmp_path, instruction="Sort.").instructions] == [
        "Sort."
    ]
    assert [i.text for i in only_episode(ADAPTER, tmp_path).instructions] == [
        "coil sorting"
    ]  # of the folder
    late = mark(0.3, 9.0, "", skillDetail="放置")
    write_labels(path, mark(-0.1, 0.2, "pick coil"), late, taskPrompt="Sort the coils.")
    episode = only_episode(ADAPTER, tmp_path, instruction="unused")
    told = [(i.kind, i.text, i.start_ns, i.end_ns) for i in episode.instructions]
    assert told == [
        ("task", "Sort the coils.", 0, None),
        ("subtask", "pick coil", 0, 100_000_000),
        ("subtask", "放置", 300_000_000, 9_300_000_000),
    ]
    assert episode.scene_id == "Coil sorting"
    assert [f.path.rsplit("/")[-1] for f in episode.raw_files] == ["take_1.bag", "take_1.json"]


@pytest.mark.parametrize(
    "wrong",
    [
        [mark(8 * 3600.0, 0.2, "eight hours off", markStart="2025-07-22 17:18:34.100")],
        [mark(0.1, 0.2, "x", markStart="yesterday")],
        [mark(0.1, 0.2, "x", duration="long")],
        [mark(0.1, 0.0, "x")],
        [mark(0.1, 0.2, " ", skillDetail="")],
        [{"duration": 1}],
        "none",
    ],
)
def test_wrong_labels(tmp_path: Path, wrong: Any) -> None:
    path = one(tmp_path, only("/leju_claw_state"))
    path.with_suffix(".json").write_text(json.dumps({"marks": wrong}))
    code, said = refused(tmp_path)
    assert code is Code.BAD_ANNOTATION
    assert "take_1.json" in said


# --- defects ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.001, 0.3, 0.7, 0.999])
def test_a_bag_that_was_cut_off(tmp_path: Path, share: float) -> None:
    path = one(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    code, _ = refused(tmp_path)
    expected = {0.0: Code.UNREADABLE, 0.0001: Code.UNREADABLE, 0.999: Code.CORRUPT_RECORD}
    assert code is expected.get(share, Code.TRUNCATED)


def test_a_bag_that_was_never_closed(tmp_path: Path) -> None:
    path = one(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"index_pos=") + 10
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    assert refused(tmp_path)[0] is Code.TRUNCATED
    path.write_bytes(b"#ROSBAG V1.2\n" + data[13:])
    assert refused(tmp_path)[0] is Code.UNKNOWN_VERSION


def test_flipped_bytes_never_escape(tmp_path: Path) -> None:
    """Whatever a damaged bag does to the library, it ends as a code or as values."""
    path = one(tmp_path, only("/sensors_data_raw", "/leju_claw_state"), compression="lz4")
    data = path.read_bytes()
    rng = np.random.default_rng([3])
    codes = set()
    for at in rng.integers(4200, len(data), 80):
        wrong = bytearray(data)
        wrong[at] ^= int(rng.integers(1, 256))
        path.write_bytes(wrong)
        try:
            only_episode(ADAPTER, tmp_path)
        except SourceError as error:
            codes.add(error.code)
    assert Code.CORRUPT_RECORD in codes


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            instead("/sensors_data_raw", lambda t: generator.sensors(np.zeros(27))),
            Code.SHAPE_MISMATCH,
        ),
        (instead("/sensors_data_raw", lambda t: generator.sensors([np.nan] * 28)), Code.NOT_FINITE),
        (instead("/leju_claw_state", lambda t: joint_state([1, 2])), Code.UNKNOWN_LAYOUT),
        (
            instead("/cam_h/color/image_raw/compressed", lambda t: joint_state([])),
            Code.UNKNOWN_LAYOUT,
        ),
        (lambda topic: replace(topic, name="/tf"), Code.EMPTY_EPISODE),
        (
            lambda topic: replace(
                topic, name="/leju_claw_state", at=lambda t: claw("Command", [900, 0])
            ),
            Code.EMPTY_EPISODE,
        ),
    ],
)
def test_defects(tmp_path: Path, change: Change, code: Code) -> None:
    one(tmp_path, change)
    assert refused(tmp_path)[0] is code


def test_a_picture_that_is_none_and_too_many_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\xff\xd8\xff\xe0", b"\x00\xd8\xff\xe0"))
    assert refused(tmp_path)[0] is Code.CORRUPT_IMAGE
    path.unlink()
    one(tmp_path)
    monkeypatch.setattr(recording, "MAX_PICTURE_BYTES", 5000)
    assert refused(tmp_path)[0] is Code.TOO_LARGE


def test_grippers_of_another_scale_are_left_out(tmp_path: Path) -> None:
    state = np.zeros(2, np.int8)
    one(tmp_path, instead("/leju_claw_state", lambda t: claw("State", [0, 255], state=state)))
    episode = only_episode(ADAPTER, tmp_path)
    assert episode.stream("left.gripper_opening") is None
    assert certainty(episode, "gripper_polarity.leju_claw_state") is Certainty.UNKNOWN


@pytest.mark.parametrize("compression", ["lz4", "bz2"])
def test_a_chunk_that_is_a_bomb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    one(tmp_path, compression=compression)
    monkeypatch.setattr(rosbag1, "MAX_CHUNK_BYTES", 20_000)
    assert refused(tmp_path)[0] is Code.TOO_LARGE


@pytest.mark.parametrize(
    "line", ["int8[] state; import os", "float64[9999999999] x", "string __x", "@x y", "MSG: a.b/C"]
)
def test_a_definition_of_anything_but_names(tmp_path: Path, line: str) -> None:
    """Definitions become code inside the library; only plain fields may reach it."""
    path = one(tmp_path, only("/leju_claw_state"))
    data, old = path.read_bytes(), b"int8[] state # 0: left; 1: right"
    path.write_bytes(data.replace(old, line.encode().ljust(len(old), b" ")))
    code, said = refused(tmp_path)
    assert (code, "not a valid line of a message definition" in said) == (Code.UNKNOWN_LAYOUT, True)


def test_links_and_wrong_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = one(tmp_path / "elsewhere")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.bag").symlink_to(path)
    assert refused(root)[0] is Code.UNSAFE_PATH
    monkeypatch.setitem(__import__("sys").modules, "rosbags.rosbag1", None)
    with pytest.raises(ConfigError, match=r"eicorpus\[ros\]"):
        ADAPTER.survey(root, {})
