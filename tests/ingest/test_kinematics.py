"""Forward kinematics against a product of screws written out here, a real robot, and every way a URDF can be wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ingest.transforms import forward_kinematics as module
from ingest.transforms import urdf as urdf_module
from ingest.transforms.forward_kinematics import Robot, with_forward_kinematics
from ingest.transforms.urdf import read_urdf
from schemas.embodiment import embodiments
from schemas.episode import (
    Episode,
    EpisodeRef,
    Stream,
    Unit,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.errors import Code, ConfigError, SourceError
from schemas.fact import Certainty
from schemas.geometry import geodesic_rad, rotmat_from_euler
from schemas.kinematics import all_kinematics, kinematics_from, kinematics_of

ROBOT = """
robots:
  toy:
    base: base_link
    arms:
      left:
        tip: hand
        joints: [turn, tilt, slide]
        elements: [[a, b, c]]
        slices: [[4, 1]]
      right:
        tip: l3
        joints: [turn, tilt, slide]
        elements: [[a, b, c]]
        slices: [[4, 1]]
    certainty: inferred
    sources: [tests]
"""
NAMES = ("c", "unused", "a", "b")
# base_link hangs on a moving joint of its own, beside the arm: neither may matter to the pose of the hand in it.
LINKS = ["world", "base_link", "wheel", "l1", "l2", "l3", "hand"]
MESH = '<visual><geometry><mesh filename="package://nowhere/x.stl"/></geometry></visual>'
JOINTS = {
    "drive": ("prismatic", "world", "base_link", "3 0 0", "0 0 1", "1 0 0"),
    "roll": ("continuous", "base_link", "wheel", "0 0 0", "0 0 0", "0 1 0"),
    "turn": ("continuous", "base_link", "l1", "0.1 0 0.3", "0 0 0", "0 0 1"),
    "tilt": ("revolute", "l1", "l2", "0 0.05 0.2", "0.3 0 0", "1 1 0"),
    "slide": ("prismatic", "l2", "l3", "0 0 0.4", "0 0.5 0", "1 0 0"),
    "grip": ("fixed", "l3", "hand", "0 0 0.12", "0 0 0.7", "0 0 0"),
}


def written(path: Path, joints: Mapping[str, tuple[str, ...]] = JOINTS, *, extra: str = "") -> Path:
    lines = [f'<link name="{name}">{MESH}</link>' for name in LINKS]
    for name, (kind, parent, child, xyz, rpy, axis) in joints.items():
        lines.append(
            f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
            f'<origin xyz="{xyz}" rpy="{rpy}"/><axis xyz="{axis}"/></joint>'
        )
    path.write_text(f'<?xml version="1.0"?><robot name="toy">{"".join(lines)}{extra}</robot>')
    return path


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    known = all_kinematics() | kinematics_from(ROBOT)
    monkeypatch.setattr(module, "kinematics_of", known.__getitem__)


@pytest.fixture
def robot(tmp_path: Path) -> Robot:
    return Robot.open(written(tmp_path / "toy.urdf"), "toy")


# --- the oracle: exp of screws in the base frame, after Lynch and Park, Modern Robotics, eq. 4.14 ------------------------


def hat(w: np.ndarray) -> np.ndarray:
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])


def turned(axis: np.ndarray, through: np.ndarray, angle: float) -> np.ndarray:
    """[4, 4] rotation by `angle` about a unit axis through a point (Rodrigues)."""
    T = np.eye(4)
    K = hat(axis)
    T[:3, :3] += np.sin(angle) * K + (1 - np.cos(angle)) * K @ K
    T[:3, 3] = through - T[:3, :3] @ through
    return T


def oracle(turn: float, tilt: float, slide_m: float) -> np.ndarray:
    x, y, z = np.eye(3)
    R_tilt = turned(x, np.zeros(3), 0.3)[:3, :3]
    R_slide = R_tilt @ turned(y, np.zeros(3), 0.5)[:3, :3]
    p_turn = np.array([0.1, 0, 0.3])
    p_tilt = p_turn + np.array([0, 0.05, 0.2])
    p_slide = p_tilt + R_tilt @ [0, 0, 0.4]
    home = np.eye(4)
    home[:3, :3] = R_slide @ turned(z, np.zeros(3), 0.7)[:3, :3]
    home[:3, 3] = p_slide + R_slide @ [0, 0, 0.12]
    slid = np.eye(4)
    slid[:3, 3] = R_slide @ x * slide_m
    axis = R_tilt @ (x + y) / np.sqrt(2)
    return turned(z, p_turn, turn) @ turned(axis, p_tilt, tilt) @ slid @ home


def test_three_joints_against_screws(robot: Robot) -> None:
    rng = np.random.default_rng([7])
    q = rng.uniform(-3, 3, (40, 4))
    T = robot.T_base_tip(q, NAMES)["left"]
    expected = [oracle(row[2], row[3], row[0]) for row in q]
    np.testing.assert_allclose(T, expected, atol=1e-12)
    np.testing.assert_allclose(robot.T_base_tip(q[:, [1, 2, 3, 0]])["left"], expected, atol=1e-12)


def test_a_base_below_another_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pose in a link that is no ancestor of the tip: up the one branch, down the other."""
    known = kinematics_from(ROBOT.replace("base: base_link", "base: wheel"))
    monkeypatch.setattr(module, "kinematics_of", known.__getitem__)
    joints = JOINTS | {"roll": ("fixed", "base_link", "wheel", "0 0.5 0", "0 0 0", "0 1 0")}
    robot = Robot.open(written(tmp_path / "x.urdf", joints), "toy")
    (T,) = robot.T_base_tip([[0.2, 0.4, 0.1]], ("a", "b", "c"))["left"]
    np.testing.assert_allclose(T[:3, 3], oracle(0.2, 0.4, 0.1)[:3, 3] - [0, 0.5, 0], atol=1e-12)


# --- the stage --------------------------------------------------------------------------------------------------------


def episode_of(*streams: Stream, embodiment: str = "toy") -> Episode:
    ref = EpisodeRef(source="s", dataset="s", episode_id="e", root="/")
    return Episode(ref=ref, embodiment=embodiment, rate_hz=Fraction(10), streams=streams)


def joints(prefix: str = "", names: tuple[str, ...] = NAMES) -> Stream:
    spec = vector_channel(f"{prefix}joint_position_rad", len(names), Unit.RADIAN, names=names)
    values = np.arange(3 * len(names)).reshape(3, -1) / 10 + (1 if prefix else 0)
    t_ns = np.arange(3, dtype=np.int64) + (5 if prefix else 0)
    valid = np.array([True, False, True])
    values[1] = np.nan
    return Stream(spec=spec, t_ns=t_ns, values=values, valid=valid)


def test_the_stage_adds_measured_and_commanded_poses(robot: Robot) -> None:
    before = episode_of(joints(), joints("command."))
    after = with_forward_kinematics(before, robot)
    pose, told = after.stream("left.T_base_eef"), after.stream("command.left.T_base_eef")
    assert pose is not None
    assert told is not None
    np.testing.assert_allclose(pose.values[2], oracle(1.0, 1.1, 0.8), atol=1e-12)
    np.testing.assert_allclose(told.values[0], oracle(1.2, 1.3, 1.0), atol=1e-12)
    assert pose.valid.tolist() == told.valid.tolist() == [True, False, True]
    assert told.t_ns.tolist() == [5, 6, 7]
    (fact,) = after.facts
    assert fact.name == "eef_pose_source"
    assert fact.value.startswith("forward kinematics of toy.urdf sha256:")
    assert fact.certainty is Certainty.INFERRED  # as the registry says: it bars the policy
    assert fact.is_for_actions
    assert after.streams[:2] == before.streams


def test_what_is_there_stays(robot: Robot) -> None:
    eye = np.tile(np.eye(4), (3, 1, 1))
    t_ns = np.arange(3, dtype=np.int64)
    stored = Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=eye)
    claw = gripper_channel("left.gripper_opening", binary=False)
    opening = Stream(spec=claw, t_ns=t_ns, values=np.zeros((3, 1)))
    one_side = with_forward_kinematics(episode_of(stored, joints(), joints("command.")), robot)
    assert one_side.stream("left.T_base_eef") is stored
    poses = {s.name for s in one_side.streams if s.name.endswith("T_base_eef")}
    assert poses == {"left.T_base_eef", "right.T_base_eef", "command.right.T_base_eef"}
    other = Stream(spec=pose_channel("right.T_base_eef"), t_ns=t_ns, values=eye)
    for episode in (
        episode_of(stored, other, joints(), joints("command.")),
        episode_of(opening),
        episode_of(joints(), embodiment="umi"),
    ):
        assert with_forward_kinematics(episode, robot) is episode


def test_a_joint_that_is_not_recorded(robot: Robot) -> None:
    for names in (("a", "b", "x"), ("p", "q", "r", "s")):  # names decide, whatever the width
        with pytest.raises(SourceError, match=r"tilt|slide") as caught:
            with_forward_kinematics(episode_of(joints(names=names)), robot)
        assert caught.value.code is Code.MISSING_CHANNEL
    with pytest.raises(SourceError):
        robot.T_base_tip(np.zeros((2, 3)))  # no names, and no width that is known


# --- bad URDFs ----------------------------------------------------------------------------------------------------------


def changed(**joints: tuple[str, ...] | None) -> dict[str, tuple[str, ...]]:
    return {name: j for name, j in (JOINTS | joints).items() if j is not None}


@pytest.mark.parametrize(
    ("joints", "extra", "said"),
    [
        (changed(grip=("fixed", "l3", "l1", "0 0 0", "0 0 0", "0 0 1")), "", "expected a tree"),
        (changed(turn=None), "", "root links"),
        (changed(turn=("fixed", "l3", "l1", "0 0 0", "0 0 0", "0 0 1")), "", "loop"),
        (changed(grip=("fixed", "l4", "hand", "0 0 0", "0 0 0", "0 0 1")), "", "nearest: l3"),
        (changed(tilt=None, tilted=JOINTS["tilt"]), "", "'tilt' is no joint.*nearest: tilted"),
        (changed(slide=("fixed", *JOINTS["slide"][1:])), "", "'slide' does not move"),
        (changed(grip=("revolute", *JOINTS["grip"][1:5], "0 0 1")), "", "also moved by grip"),
        (changed(tilt=("floating", *JOINTS["tilt"][1:])), "", "more than one degree"),
        (changed(tilt=("ball", *JOINTS["tilt"][1:])), "", "not a joint type of URDF"),
        (changed(turn=(*JOINTS["turn"][:5], "0 0 0")), "", "expected three numbers"),
        (changed(turn=(*JOINTS["turn"][:3], "${x} 0 0", *JOINTS["turn"][4:])), "", "xacro"),
        (changed(turn=(*JOINTS["turn"][:3], "nan 0 0", *JOINTS["turn"][4:])), "", "three numbers"),
        (JOINTS, '<link name="hand"/>', "unique name"),
        (JOINTS, "<oops>", "not valid XML"),
    ],
)
def test_a_wrong_urdf(
    tmp_path: Path, joints: dict[str, tuple[str, ...]], extra: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Robot.open(written(tmp_path / "toy.urdf", joints, extra=extra), "toy")


def test_what_is_no_urdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "toy.urdf")
    text = path.read_text()
    for wrong, said in (
        (text.replace('"hand"', '"hnad"'), "nearest: hnad; known: base_link, hnad, l1"),
        (text.replace("robot", "mujoco"), "not <robot>"),
        (text.replace("?>", '?><!DOCTYPE r [<!ENTITY a "aaaa">]>'), "entities"),
        ('<?xml version="1.0" encoding="klingon"?><robot/>', "not valid XML"),
        ("", "not valid XML"),
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match=said):
            Robot.open(path, "toy")
    with pytest.raises(ConfigError, match="cannot be read"):
        Robot.open(tmp_path, "toy")
    monkeypatch.setattr(urdf_module, "MAX_BYTES", 10)
    path.write_text(text)
    with pytest.raises(ConfigError, match="more than 10 bytes"):
        Robot.open(path, "toy")


def test_without_pinocchio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pinocchio", None)
    with pytest.raises(ConfigError, match=r"eicorpus\[kinematics\]"):
        Robot.open(written(tmp_path / "toy.urdf"), "toy")


# --- the registry -------------------------------------------------------------------------------------------------------


def test_the_registry_goes_with_the_embodiments() -> None:
    for name, robot in all_kinematics().items():
        body = embodiments()[name]
        assert set(robot.arms) <= set(body.arms), name
        for side, arm in robot.arms.items():
            frame = body.arms[side].source_frame
            if "vx300s" not in arm.tip and "left/right" not in frame:
                assert arm.tip in frame, f"{name}: {arm.tip} is not the frame {frame!r}"
    with pytest.raises(ConfigError, match="no kinematics for 'umi'"):
        kinematics_of("umi")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[a, b, c]", "[a, b]"),
        ("[a, b, c]", "[a, b, b]"),
        ("[4, 1]", "[4, 2]"),
        ("[turn, tilt, slide]", "[]"),
        ("[turn, tilt, slide]", "[turn, turn, slide]"),
        ("left", "middle"),
        ("inferred", "sure"),
        ("robots", "bodies"),
    ],
)
def test_a_registry_that_breaks_its_rules(old: str, new: str) -> None:
    with pytest.raises(ConfigError):
        kinematics_from(ROBOT.replace(old, new))


# --- a real robot -------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_real_agibot_g1(samples: Path) -> None:
    """Joints of a real episode through G1.urdf give the end poses that the robot itself recorded."""
    urdf = samples / "agibot_defect_lists/urdf_solver/G1.urdf"
    demo = samples / "agibot_gesim_v2/demo_000"
    q, recorded = (np.load(demo / f"state_{what}_0.npy") for what in ("joints", "eef_poses"))
    arms = tuple(f"{side}_arm_joint{k}" for side in ("left", "right") for k in range(1, 8))
    names = (*arms, "grip_l", "grip_r", "head_yaw", "head_pitch", "waist_pitch", "waist_lift")
    robot = Robot.open(urdf, "agibot_g1_omnipicker")
    T = robot.T_base_tip(q, names)
    for at, side in ((0, "left"), (7, "right")):
        off_m = np.linalg.norm(T[side][:, :3, 3] - recorded[:, at : at + 3], axis=1)
        R = rotmat_from_euler(recorded[:, at + 3 : at + 6], "xyz")
        assert len(off_m) == 456
        assert off_m.max() < 4e-6
        assert np.rad2deg(geodesic_rad(R, T[side][:, :3, :3]).max()) < 5e-4
    with pytest.raises(SourceError, match="idx01_waist_lift_joint"):
        robot.T_base_tip(q[:, :14], arms)  # an AgiBot World stream: the waist is not in it


def test_entities_are_refused_in_any_encoding(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE r [<!ENTITY a "base">]><robot name="x"><link name="&a;"/></robot>'
    (tmp_path / "r.urdf").write_bytes(text.encode("utf-16"))
    with pytest.raises(ConfigError, match="entities"):
        read_urdf(tmp_path / "r.urdf")
