"""Acceptance tests of an end-effector frame, on the staged columns of one episode. Pure functions.

`hand_xfz`: x out along the fingers, z toward the thumb or the wrist camera; at the handshake pose it equals a base that has
x forward, y left, z up. A parallel gripper is the same after half a turn about x, so its roll is judged up to that; which of
the two turns it is shows in the handshake's z. The tests are those of the registry (schemas/embodiments.yaml); limits that it
does not state are marked ours.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.check import Check, judged, unmeasured
from ingest.doctor.hand_checks import approach_check, approach_directions
from ingest.doctor.staged_columns import ACTION, STATE, Columns, PoseColumn
from ingest.transforms.resample import Mask
from schemas.embodiment import UNKNOWN_EEF, EefConvention, Embodiment
from schemas.geometry import Array, geodesic_rad, inverse, rotation_error

MAX_SPEED_M_S = 3.0  # no arm or hand of our sources moves faster; a wrong rate or unit does
REACH_M = (
    0.05,
    5.0,
)  # from a robot's base; millimetres read as metres, or the reverse, are far beyond
MAX_WALK_M = 100.0  # how far a person's hand gets from where it was first seen
MAX_ROLL_DEG = 45.0  # ours: beyond it another quarter turn of the axes would fit better
POLE_DEG = (
    75.0  # beyond this pitch roll and yaw are one (the registry's warning: whole sets sit at 81-83)
)
UNDECIDED = 0.1  # ours: a z score nearer to 0 than this has no sign
RIGID_M, RIGID_DEG = 0.01, 2.0  # a camera that stays so still in the hand is mounted on it
MIN_MOTION_M, MIN_MOTION_DEG = 0.05, 10.0  # before that everything looks rigid
MIN_OPTICAL = 0.5


def eef_checks(
    columns: Columns, body: Embodiment, rate_hz: float, *, is_upright: bool
) -> Iterator[Check]:
    """Every test of every side. `is_upright`: the world of a person's hands is known to have z up."""
    for side in columns.sides:
        arm = body.arms.get(side, UNKNOWN_EEF)
        is_human = body.name.startswith("human_")
        hand = columns.hand(side)
        yield rotation_check(arm, side)
        if hand is not None:
            yield from plausibility_checks(columns, side, rate_hz, is_human=is_human)
            has_jaws = columns.opening(side) is not None
            yield from handshake_checks(
                hand, arm, side, has_jaws=has_jaws, is_human=is_human, is_upright=is_upright
            )
        if not is_human:
            yield approach_check(
                approach_directions(columns, side), side, has_axes=hand is not None
            )
            if hand is not None:
                yield from wrist_camera_checks(hand, dict(columns.cameras()), side)


def rotation_check(arm: EefConvention, side: str) -> Check:
    """(1) The registry's axes are a proper rotation."""
    expected = "below 1e-6: R^T R = I, det R = +1"
    if arm.R_src_to_can is None:
        why = f"the orientation of the axes of {arm.source_frame} in the hand is not documented"
        return unmeasured("axes_are_a_rotation", side, unit="", expected=expected, explanation=why)
    error = float(rotation_error(arm.R_src_to_can))
    is_well = error < 1e-6
    explanation = "are a rotation" if is_well else "are not a rotation, or left-handed"
    return judged(
        "axes_are_a_rotation",
        side,
        error,
        unit="",
        expected=expected,
        is_well=is_well,
        explanation=f"the axes of {arm.source_frame} {explanation}",
    )


def plausibility_checks(
    columns: Columns, side: str, rate_hz: float, *, is_human: bool
) -> Iterator[Check]:
    """Metres and rate: how far from the base, and how fast, in the state and in the action."""
    for feature in (STATE, ACTION):
        hand = columns.hand(side, feature)
        if hand is None or not hand.valid.any():
            continue
        what = "hand" if feature == STATE else "command"
        p = hand.T[:, :3, 3]
        yield _reach_check(p[hand.valid], what, side, is_human=is_human)
        speed = worst_speed_m_s(p, hand.valid, rate_hz)
        is_well = speed < MAX_SPEED_M_S
        explanation = "plausible for an arm" if is_well else "wrong rate or unit, or a jump"
        yield judged(
            f"{what}_speed",
            side,
            speed,
            unit="m/s",
            expected=f"below {MAX_SPEED_M_S:g}",
            is_well=is_well,
            explanation=f"the maximum speed of the {side} {what} is {speed:.2f} m/s: {explanation}",
        )


def worst_speed_m_s(p: Array, valid: Mask, rate_hz: float) -> float:
    """Of [K, 3] positions, between neighbours that are both valid."""
    both = valid[1:] & valid[:-1]
    steps = np.linalg.norm(np.diff(p, axis=0), axis=1)[both]
    return float(steps.max(initial=0.0) * rate_hz)


def _reach_check(p: Array, what: str, side: str, *, is_human: bool) -> Check:
    low, high = (0.0, MAX_WALK_M) if is_human else REACH_M
    reach = float(np.linalg.norm(p - p[0] if is_human else p, axis=1).max())
    is_well = low <= reach <= high
    place = "from its start" if is_human else "from the base"
    unit = "millimetres" if reach > high else "kilometres"
    explanation = (
        "plausible in metres" if is_well else f"{unit} interpreted as metres, or a different frame"
    )
    return judged(
        f"{what}_reach",
        side,
        reach,
        unit="m",
        expected=f"{low:g} to {high:g}",
        is_well=is_well,
        explanation=f"the {side} {what} gets {reach:.3g} m {place}: {explanation}",
    )


def handshake_checks(
    hand: PoseColumn,
    arm: EefConvention,
    side: str,
    *,
    has_jaws: bool,
    is_human: bool,
    is_upright: bool,
) -> Iterator[Check]:
    """(2) At the ready pose, the first valid timestep, the roll is about 0; over the episode z_can points up or ahead."""
    axes = arm.base_axes or ({"up": 2} if is_human and is_upright else {})
    roll_expected = f"within {MAX_ROLL_DEG:g} of 0" + (" or 180" if has_jaws else "")
    up = axes.get("up")
    if not hand.valid.any() or up != 2:
        why = "no valid pose" if up == 2 else "the up axis of the base is not documented"
        yield unmeasured(
            "handshake_roll", side, unit="deg", expected=roll_expected, explanation=why
        )
        yield unmeasured("handshake_z", side, unit="", expected="above 0", explanation=why)
        return
    first = int(np.argmax(hand.valid))
    roll, pitch, yaw = roll_pitch_yaw_deg(hand.T[first, :3, :3])
    yaw -= 90.0 * axes.get("forward", 0)
    explanation = (
        f"at the first valid timestep roll {roll:.0f}, pitch {pitch:.0f}, yaw {yaw:.0f} deg"
    )
    off = min(abs(roll), 180.0 - abs(roll)) if has_jaws else abs(roll)
    is_well: bool | None = off <= MAX_ROLL_DEG
    if is_human:
        is_well, explanation = None, f"{explanation}; a human hand can start in any pose"
    elif abs(pitch) > POLE_DEG:
        is_well, explanation = (
            None,
            f"{explanation}; this close to the vertical, roll and yaw cannot be separated",
        )
    elif not is_well:
        explanation = (
            f"{explanation}: the axes are rotated by 90 degrees, or the arm starts upside down"
        )
    yield judged(
        "handshake_roll",
        side,
        roll,
        unit="deg",
        expected=roll_expected,
        is_well=is_well,
        explanation=explanation,
    )
    yield _z_check(hand, axes, side)


def _z_check(hand: PoseColumn, axes: dict[str, int], side: str) -> Check:
    z_can = hand.T[hand.valid, :3, 2].mean(axis=0)
    forward = axes.get("forward")
    score = float(z_can[2] + (0.0 if forward is None else z_can[forward]))
    parts = "up" if forward is None else "up + forward"
    is_well = None if abs(score) <= UNDECIDED else score > 0
    explanations = {
        True: "the thumb or camera side points up or forward",
        False: "the hand is upside down: rotated by 180 degrees about x, or left and right are swapped",
        None: "too close to 0 to decide",
    }[is_well]
    return judged(
        "handshake_z",
        side,
        score,
        unit="",
        expected="above 0",
        is_well=is_well,
        explanation=f"z_can . ({parts}) is {score:+.2f} over the episode: {explanations}",
    )


def roll_pitch_yaw_deg(rotmat: Array) -> tuple[float, float, float]:
    """Roll, pitch, yaw of R = Rz(yaw) Ry(pitch) Rx(roll) [3, 3], degrees."""
    R = np.asarray(rotmat)
    roll = np.arctan2(R[2, 1], R[2, 2])
    pitch = -np.arcsin(np.clip(R[2, 0], -1.0, 1.0))
    yaw = np.arctan2(R[1, 0], R[0, 0])
    return float(np.rad2deg(roll)), float(np.rad2deg(pitch)), float(np.rad2deg(yaw))


def wrist_camera_checks(
    hand: PoseColumn, cameras: dict[str, PoseColumn], side: str
) -> Iterator[Check]:
    """(4) A camera that rides on the hand looks along the fingers, from the z side."""
    expected = f"dot product of the optical axis and x_can above {MIN_OPTICAL:g}"
    mounted = {
        name: T_hand_cam
        for name, camera in cameras.items()
        if (T_hand_cam := _mounted(hand, camera)) is not None
    }
    if not mounted:
        why = "no camera with a pose is mounted on this hand"
        yield unmeasured("wrist_camera_looks", side, unit="", expected=expected, explanation=why)
    for name, T_hand_cam in mounted.items():
        along = float(T_hand_cam[0, 2])
        is_well = along > MIN_OPTICAL
        yield judged(
            "wrist_camera_looks",
            side,
            along,
            unit="cosine",
            expected=expected,
            is_well=is_well,
            explanation=f"{name} is mounted on the hand and looks {'along' if is_well else 'away from'} the fingers",
        )
        height = float(T_hand_cam[2, 3])
        yield judged(
            "wrist_camera_side",
            side,
            height * 1000,
            unit="mm",
            expected="above 0",
            is_well=height > 0,
            explanation=f"{name} sits on the {'+z' if height > 0 else '-z'} side of the hand",
        )


def _mounted(hand: PoseColumn, camera: PoseColumn) -> Array | None:
    """[4, 4] the camera in the hand where it stays there while the hand moves; None elsewhere."""
    both = hand.valid & camera.valid
    if both.sum() < 2:
        return None
    T_hand_cam = inverse(hand.T[both]) @ camera.T[both]
    middle = T_hand_cam[len(T_hand_cam) // 2]
    wander_m = np.linalg.norm(T_hand_cam[:, :3, 3] - middle[:3, 3], axis=1)
    turn_deg = np.rad2deg(geodesic_rad(T_hand_cam[:, :3, :3], middle[:3, :3]))
    is_rigid = np.quantile(wander_m, 0.95) < RIGID_M and np.quantile(turn_deg, 0.95) < RIGID_DEG
    return middle if is_rigid and is_moving(hand.T[both]) else None


def is_moving(T: Array, least_m: float = MIN_MOTION_M) -> bool:
    """Whether poses [N, 4, 4] move or turn enough to say anything."""
    extent_m = float(np.ptp(T[:, :3, 3], axis=0).max())
    turn_deg = float(np.rad2deg(geodesic_rad(T[:, :3, :3], T[0, :3, :3]).max()))
    return extent_m > least_m or turn_deg > MIN_MOTION_DEG
