"""The acceptance tests of a hand's frame: known values by hand, and planted mistakes that each must turn a verdict to fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ingest.check import Check, Verdict
from ingest.doctor.eef_checks import (
    eef_checks,
    plausibility_checks,
    roll_pitch_yaw_deg,
    rotation_check,
    worst_speed_m_s,
)
from ingest.doctor.hand_checks import approach_directions, grasps, pooled_approach
from ingest.doctor.kinematics_checks import kinematics_checks
from ingest.doctor.staged_columns import Columns
from ingest.transforms.forward_kinematics import Robot
from schemas.embodiment import EefConvention, embodiments
from schemas.geometry import rotmat_from_euler, rotmat_from_quat_xyzw

RATE_HZ = 10.0
CLOSE, OPEN = 0.0, 1.0
PASS, FAIL, SILENT = Verdict.PASS, Verdict.FAIL, Verdict.NOT_MEASURABLE
AGIBOT = "agibot_g1_gripper"


def rot(axis: int, deg: float) -> np.ndarray:
    """[4, 4] turn about an axis, written out."""
    a, b = [k for k in range(3) if k != axis]
    c, s = np.cos(np.deg2rad(deg)), np.sin(np.deg2rad(deg))
    T = np.eye(4)
    T[a, a] = T[b, b] = c
    T[a, b], T[b, a] = (-s, s) if axis != 1 else (s, -s)
    return T


def reaches(times: int = 3, turn: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """T_base_hand [K, 4, 4] and openings [K]: forward 0.1 m with open jaws, close, up 0.2 m, open, and back, again and again.

    The hand points forward, x_can = base x; the way between two objects is longer than the approach, and sideways.
    """
    p, opening = [], []
    for k in range(times):
        y = 0.3 * k
        for x in np.linspace(0.40, 0.50, 11):
            p.append([x, y, 0.2])
            opening.append(OPEN)
        for o in (0.6, 0.3, CLOSE):
            p.append([0.5, y, 0.2])
            opening.append(o)
        for z in np.linspace(0.2, 0.4, 9):
            p.append([0.5, y, z])
            opening.append(CLOSE)
        for share in np.linspace(0, 1, 12):
            p.append([0.5 - 0.1 * share, y + 0.3 * share, 0.4 - 0.2 * share])
            opening.append(OPEN)
    T = np.tile(np.eye(4) if turn is None else turn, (len(p), 1, 1))
    T[:, :3, 3] = p
    return T, np.array(opening)


def pose9(T: np.ndarray) -> np.ndarray:
    return np.concatenate([T[:, :3, 3], T[:, :3, 0], T[:, :3, 1]], axis=1)


def columns(
    T: np.ndarray,
    opening: np.ndarray | None = None,
    *,
    side: str = "left",
    cameras: dict[str, np.ndarray] | None = None,
    valid: np.ndarray | None = None,
) -> Columns:
    names = [f"{side}.position_m.{a}" for a in "xyz"]
    names += [f"{side}.rot6d_cols.{a}" for a in ("xx", "xy", "xz", "yx", "yy", "yz")]
    state, parts = pose9(T), [f"{side}.position_m", f"{side}.rot6d_cols"]
    if opening is not None:
        state = np.concatenate([state, opening[:, None]], axis=1)
        names.append(f"{side}.gripper_opening")
        parts.append(f"{side}.gripper_opening")
    flags = np.ones((len(T), len(parts)))
    if valid is not None:
        flags *= valid[:, None]
    values = {"observation.state": state, "observation.valid": flags}
    known = {"observation.state": tuple(names), "observation.valid": tuple(parts)}
    for camera, T_base_cam in (cameras or {}).items():
        values[f"observation.camera_pose.{camera}"] = pose9(T_base_cam)
        known[f"observation.camera_pose.{camera}"] = tuple(map(str, range(9)))
    return Columns(values=values, names=known)


def verdicts(made: Columns, body: str = AGIBOT, *, is_upright: bool = False) -> dict[str, Check]:
    return {
        c.name: c for c in eef_checks(made, embodiments()[body], RATE_HZ, is_upright=is_upright)
    }


def with_wrong_axes(T: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """What the pipeline would hold had it used `wrong` [4, 4] in place of the registry's transform of AgiBot's link7."""
    right = embodiments()[AGIBOT].arms["left"].T_src_hand
    assert right is not None
    return T @ np.linalg.inv(right) @ wrong


# --- a sound arm --------------------------------------------------------------------------------------------------------


def test_a_sound_arm_passes_every_test() -> None:
    T, opening = reaches()
    mount = rot(1, 90) @ rot(2, -90)  # optical axis along the fingers, picture upright
    mount[:3, 3] = [-0.1, 0, 0.06]
    fixed = np.tile(np.eye(4), (len(T), 1, 1))
    found = verdicts(columns(T, opening, cameras={"wrist": T @ mount, "head": fixed}))
    assert {name: c.verdict for name, c in found.items()} == {
        "axes_are_a_rotation": PASS,
        "hand_reach": PASS,
        "hand_speed": PASS,
        "handshake_roll": PASS,
        "handshake_z": PASS,
        "approach": PASS,
        "wrist_camera_looks": PASS,
        "wrist_camera_side": PASS,
    }
    assert found["handshake_roll"].value == pytest.approx(0.0)
    assert found["handshake_z"].value == pytest.approx(1.0)  # up 1, forward 0
    assert found["approach"].value == pytest.approx(1.0)
    assert "3 grasps come along +x by 1.00" in found["approach"].explanation
    assert found["wrist_camera_looks"].value == pytest.approx(1.0)
    assert found["wrist_camera_side"].value == pytest.approx(60.0)
    assert found["hand_reach"].value == pytest.approx(np.linalg.norm([0.4, 0.9, 0.2]), abs=1e-6)
    assert found["hand_speed"].value == pytest.approx(0.34, abs=0.01)
    for check in found.values():
        assert check.explanation
        assert check.side == "left"
        assert set(check.as_row()) >= {"name", "side", "value", "unit", "wanted", "verdict"}


def test_angles_are_roll_pitch_yaw_about_fixed_axes() -> None:
    R = (rot(2, 30) @ rot(1, 20) @ rot(0, 10))[:3, :3]
    np.testing.assert_allclose(roll_pitch_yaw_deg(R), (10, 20, 30))
    T, opening = reaches(turn=rot(2, 30) @ rot(1, 20) @ rot(0, 10))
    check = verdicts(columns(T, opening))["handshake_roll"]
    assert check.value == pytest.approx(10)
    assert "roll 10, pitch 20, yaw 30 deg" in check.explanation


def test_the_first_valid_timestep_is_the_ready_pose() -> None:
    T, opening = reaches()
    T[:5] = rot(0, 90)
    valid = np.arange(len(T)) >= 5
    assert verdicts(columns(T, opening, valid=valid))["handshake_roll"].verdict is PASS
    assert verdicts(columns(T, opening))["handshake_roll"].verdict is FAIL


def test_grasps_are_found_by_the_openings_own_range() -> None:
    valid = np.ones(12, dtype=bool)
    opening = np.array([0.2, 0.8, 0.8, 0.6, 0.4, 0.3, 0.3, 0.5, 0.8, 0.8, 0.3, 0.3])
    assert grasps(opening, valid) == [(1, 2), (8, 9)]
    assert grasps(opening, valid & (np.arange(12) != 8)) == [(1, 2), (9, 9)]
    assert grasps(np.full(12, 0.5), valid) == []
    assert grasps(opening[::-1] * 0.1, valid) == []  # it hardly opens
    assert grasps(opening, np.zeros(12, dtype=bool)) == []


# --- planted mistakes ---------------------------------------------------------------------------------------------------


def test_axes_swapped() -> None:
    """AgiBot's link7 taken for the hand itself: its x points to the right, its y down, its z forward."""
    T, opening = reaches()
    found = verdicts(columns(with_wrong_axes(T, np.eye(4)), opening))
    assert found["approach"].verdict is FAIL
    assert "come along +z" in found["approach"].explanation
    assert found["handshake_roll"].verdict is FAIL
    assert found["handshake_roll"].value == pytest.approx(-90)
    assert found["handshake_z"].verdict is PASS  # forward


@pytest.mark.parametrize("deg", [90, -90])
def test_roll_flipped_by_a_quarter_turn(deg: float) -> None:
    T, opening = reaches(turn=rot(1, 60))
    check = verdicts(columns(T @ rot(0, deg), opening))["handshake_roll"]
    assert check.verdict is FAIL
    assert check.value == pytest.approx(deg)
    assert "rotated by 90 degrees" in check.explanation


def test_half_a_turn_of_a_gripper_shows_in_z_and_not_in_roll() -> None:
    T, opening = reaches()
    upside_down = T @ rot(0, 180)
    jaws = verdicts(columns(upside_down, opening))
    assert (jaws["handshake_roll"].verdict, jaws["handshake_z"].verdict) == (PASS, FAIL)
    fingers = verdicts(columns(upside_down), "unitree_g1")  # no jaws: a hand has no such symmetry
    assert (fingers["handshake_roll"].verdict, fingers["handshake_z"].verdict) == (FAIL, FAIL)


def test_an_approach_axis_that_points_backwards() -> None:
    T, opening = reaches()
    check = verdicts(columns(T @ rot(2, 180), opening))["approach"]
    assert (check.verdict, check.value) == (FAIL, pytest.approx(-1.0))
    few = verdicts(columns(*(a[:36] for a in (T @ rot(2, 180), opening))))["approach"]
    assert few.verdict is SILENT  # one grasp is no evidence
    assert "1 grasp comes along -x" in few.explanation


def test_millimetres() -> None:
    T, opening = reaches()
    T[:, :3, 3] *= 1000
    found = verdicts(columns(T, opening))
    assert (found["hand_reach"].verdict, found["hand_speed"].verdict) == (FAIL, FAIL)
    assert "millimetres" in found["hand_reach"].explanation
    T[:, :3, 3] /= 1e6
    assert verdicts(columns(T, opening))["hand_reach"].verdict is FAIL
    person = {c.name: c for c in plausibility_checks(columns(T), "left", RATE_HZ, is_human=True)}
    assert person["hand_reach"].verdict is PASS  # a person's hand may lie still


def test_axes_that_are_no_rotation() -> None:
    """The registry refuses such an entry; the check is made all the same."""
    arm = embodiments()[AGIBOT].arms["left"]
    mirrored = EefConvention.model_construct(
        **{**dict(arm), "R_src_to_can": ((1, 0, 0), (0, 1, 0), (0, 0, -1))}
    )
    assert rotation_check(mirrored, "left").verdict is FAIL
    assert rotation_check(mirrored, "left").value == pytest.approx(2.0)
    assert rotation_check(arm, "left").verdict is PASS
    assert rotation_check(embodiments()["behavior_r1pro"].arms["left"], "left").verdict is SILENT


def test_a_camera_that_looks_back_and_hangs_below() -> None:
    T, opening = reaches()
    mount = rot(1, -90)
    mount[:3, 3] = [0.1, 0, -0.04]
    found = verdicts(columns(T, opening, cameras={"wrist": T @ mount}))
    assert found["wrist_camera_looks"].verdict is FAIL
    assert found["wrist_camera_looks"].value == pytest.approx(-1.0)
    assert found["wrist_camera_side"].verdict is FAIL
    still = np.tile(T[:1], (40, 1, 1))
    resting = verdicts(columns(still, cameras={"wrist": still @ mount}))
    assert resting["wrist_camera_looks"].verdict is SILENT  # nothing moves, everything looks rigid
    assert "wrist_camera_side" not in resting


def test_a_jump_is_no_speed_where_it_is_not_valid() -> None:
    p = np.zeros((5, 3))
    p[2] = 10.0
    assert worst_speed_m_s(p, np.ones(5, dtype=bool), 10.0) == pytest.approx(173.2, abs=0.1)
    assert worst_speed_m_s(p, np.arange(5) != 2, 10.0) == 0.0
    assert worst_speed_m_s(p[:1], np.ones(1, dtype=bool), 10.0) == 0.0


# --- what cannot be told ----------------------------------------------------------------------------------------------


def test_what_cannot_be_told_is_not_judged() -> None:
    T, opening = reaches(turn=rot(1, 85))
    down = verdicts(columns(T, opening))
    assert down["handshake_roll"].verdict is SILENT
    assert "roll and yaw cannot be separated" in down["handshake_roll"].explanation
    assert down["handshake_z"].verdict is PASS  # z_can ahead
    sideways = verdicts(columns(rot(2, 90) @ T, opening), "robosuite_two_panda_body")
    assert sideways["handshake_z"].verdict is SILENT  # nobody says where its forward is
    T, opening = reaches()
    assert verdicts(columns(T))["approach"].verdict is SILENT
    nothing = verdicts(columns(T, opening, valid=np.zeros(len(T))))
    assert {c.verdict for n, c in nothing.items() if n != "axes_are_a_rotation"} == {SILENT}


def test_a_persons_hand() -> None:
    T, _ = reaches(turn=rot(0, -90))  # palm down
    found = verdicts(columns(T), "human_hands", is_upright=True)
    assert found["handshake_roll"].verdict is SILENT
    assert found["handshake_roll"].value == pytest.approx(-90)
    assert found["handshake_z"].verdict is SILENT
    up = verdicts(columns(T @ rot(0, 60)), "human_hands", is_upright=True)["handshake_z"]
    assert (up.verdict, up.value) == (PASS, pytest.approx(np.cos(np.deg2rad(30))))
    mistaken = verdicts(columns(T @ rot(0, 240)), "human_hands", is_upright=True)
    assert mistaken["handshake_z"].verdict is FAIL  # left for right, or other wrist axes
    assert verdicts(columns(T), "human_hands")["handshake_z"].verdict is SILENT
    assert "approach" not in found
    assert "wrist_camera_looks" not in found


def test_unknown_axes_are_told_along_what_they_approach() -> None:
    """BEHAVIOR-1K: the source's own z turns out to be the approach."""
    T, opening = reaches(turn=rot(1, 90))  # z_src forward
    made = columns(T, opening)
    values = {"observation.source_eef_pose.left": pose9(T)} | dict(made.values)
    state = ("left.gripper_opening",)
    values["observation.state"] = opening[:, None]
    names = {"observation.state": state, "observation.valid": ("source_eef_pose.left", *state)}
    values["observation.valid"] = np.ones((len(T), 2))
    found = verdicts(Columns(values=values, names=names), "behavior_r1pro")
    assert set(found) == {"axes_are_a_rotation", "approach"}
    assert found["approach"].verdict is SILENT
    assert "along +z by 1.00 in the source's axes" in found["approach"].explanation


def test_several_episodes_tell_more_than_one() -> None:
    T, opening = reaches(1, rot(2, 0))
    ways = approach_directions(columns(T @ rot(2, 90), opening), "left")
    np.testing.assert_allclose(ways, [[0, -1, 0]], atol=1e-9)
    (check,) = pooled_approach([("left", ways, True)] * 3 + [("right", ways, True)])
    assert (check.side, check.verdict) == ("left", FAIL)
    assert list(pooled_approach([("left", ways, True), ("left", ways[:0], True)])) == []


# --- kinematics -----------------------------------------------------------------------------------------------------------


def wandering(count: int = 50) -> np.ndarray:
    t = np.linspace(0, 3, count)
    R = rotmat_from_euler(np.stack([0.3 * t, np.sin(t), 0.5 * t], axis=1), "xyz")
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = R
    T[:, :3, 3] = np.stack([0.4 + 0.1 * np.sin(t), 0.1 * t, 0.3 + 0.05 * np.cos(2 * t)], axis=1)
    return T


def kinematics(T_stored: np.ndarray, T_fk: np.ndarray) -> dict[str, Check]:
    return {c.name: c for c in kinematics_checks(T_stored, T_fk, "left")}


def test_stored_poses_are_kinematics_up_to_one_constant() -> None:
    T = wandering()
    tool, base = rot(2, 45), rot(2, 180)
    tool[:3, 3], base[:3, 3] = [0, 0, 0.1034], [0.2, 0.3, 0.7]
    for stored, where in (
        (T, "tool"),
        (T @ tool, "103.4 mm and 45.0 deg at the tool"),
        (base @ T, "at the base"),
    ):
        found = kinematics(stored, T)
        assert {c.verdict for c in found.values()} == {PASS}
        assert found["kinematics_position"].value == pytest.approx(0, abs=1e-9)
        assert found["kinematics_rotation"].value == pytest.approx(0, abs=1e-5)
        assert where in found["kinematics_position"].explanation


def test_stored_poses_that_are_not_kinematics() -> None:
    T = wandering()
    stuck = np.tile(T[:1], (len(T), 1, 1))
    late = np.concatenate([T[:1].repeat(3, axis=0), T[:-3]])
    transposed = T.copy()
    transposed[:, :3, :3] = np.swapaxes(T[:, :3, :3], 1, 2)
    half = T.copy()
    half[:, :3, 3] *= 0.5  # another robot's links
    jumps = T.copy()
    jumps[[20, 40], 2, 3] += 0.01  # two samples of fifty
    for stored, said in (
        (stuck, "stuck"),
        (late, "delayed"),
        (transposed, "frame"),
        (half, "frame"),
        (jumps, "frame"),
    ):
        found = kinematics(stored, T)
        assert {c.verdict for c in found.values()} == {FAIL}, said
        assert said in found["kinematics_position"].explanation
    (silent,) = kinematics_checks(stuck, stuck, "left")
    assert silent.verdict is SILENT


# --- real robots ----------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_real_agibot_g1(samples: Path) -> None:
    """Joints, poses and jaws of a real episode: every test holds, and with the identity for R it does not."""
    demo = samples / "agibot_gesim_v2/demo_000"
    q, recorded = (np.load(demo / f"state_{what}_0.npy") for what in ("joints", "eef_poses"))
    arms = tuple(f"{side}_arm_joint{k}" for side in ("left", "right") for k in range(1, 8))
    names = (*arms, "grip_l", "grip_r", "head_yaw", "head_pitch", "waist_pitch", "waist_lift")
    robot = Robot.open(samples / "agibot_defect_lists/urdf_solver/G1.urdf", "agibot_g1_omnipicker")
    T_fk = robot.T_base_tip(q, names)["right"]
    T = np.tile(np.eye(4), (len(q), 1, 1))
    T[:, :3, :3] = rotmat_from_euler(recorded[:, 10:13], "xyz")
    T[:, :3, 3] = recorded[:, 7:10]
    found = kinematics(T, T_fk)
    assert {c.verdict for c in found.values()} == {PASS}
    assert found["kinematics_position"].value < 0.004  # millimetres
    opening = 1 - np.clip(q[:, 15] / 118, 0, 1)
    X = embodiments()["agibot_g1_omnipicker"].arms["right"].T_src_hand
    sound = verdicts(columns(T @ X, opening, side="right"), "agibot_g1_omnipicker")
    assert (sound["handshake_roll"].verdict, sound["handshake_z"].verdict) == (PASS, PASS)
    assert sound["approach"].verdict is PASS
    assert abs(sound["handshake_roll"].value or 0) < 1
    wrong = verdicts(columns(T, opening, side="right"), "agibot_g1_omnipicker")
    assert wrong["approach"].verdict is not PASS


@pytest.mark.real
def test_the_real_galaxea_r1_lite(samples: Path) -> None:
    table = pq.read_table(samples / "lerobot_v21_galaxea_r1lite/episode_000000.parquet")

    def column(name: str) -> np.ndarray:
        return np.array(table.column(f"observation.state.left_{name}").to_pylist()).reshape(
            len(table), -1
        )

    rows = column("ee_pose")
    T = np.tile(np.eye(4), (len(rows), 1, 1))
    T[:, :3, :3], T[:, :3, 3] = rotmat_from_quat_xyzw(rows[:, 3:]), rows[:, :3]
    opening = column("gripper")[:, 0] / 100
    found = verdicts(columns(T, opening), "galaxea_r1_lite")
    assert all(found[n].verdict is PASS for n in ("handshake_roll", "handshake_z", "approach"))
    assert "3 grasps come along +x" in found["approach"].explanation
    assert (found["approach"].value or 0) > 0.95
    for wrong, name in ((rot(1, 90), "approach"), (rot(0, 90), "handshake_roll")):
        assert verdicts(columns(T @ wrong, opening), "galaxea_r1_lite")[name].verdict is FAIL
    wxyz = T.copy()
    wxyz[:, :3, :3] = rotmat_from_quat_xyzw(
        np.roll(rows[:, 3:], -1, axis=1)
    )  # quaternion order swapped
    assert any(c.has_failed for c in verdicts(columns(wxyz, opening), "galaxea_r1_lite").values())
