"""How sure each convention of a RoboMIND episode is. Little is stated, so much stays inferred."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.robomind.bodies import QUAT, Body
from adapters.robomind.motion import RobomindMotion
from schemas.fact import Certainty, Fact, fact

SITE = "x-humanoid-robomind.github.io"
INFO = f"{SITE}:static/all_robot_h5_info.md"
CONVERTER = "Tavish9/any4lerobot:robomind2lerobot"
UTILS = "Open-X-Humanoid/RoboMIND-dataset-utils"
CALLER = "the caller's option"
DOCUMENTED, CODE, INFERRED = Certainty.DOCUMENTED, Certainty.CODE, Certainty.INFERRED


def general_facts(body: Body, rate: str, *, is_told: bool) -> Iterator[Fact]:
    """Of every episode of a body."""
    source = CALLER if is_told else f"{CONVERTER}: fps=30; no clock is stored"
    how = DOCUMENTED if is_told else INFERRED
    yield fact("rate", f"{rate} Hz", how, source, for_actions=True)
    order = "sound JPEG, raw rows BGR" if body.is_bgr else "JPEG with red and blue swapped"
    if body.is_colour_stated:
        yield fact("colour", order, CODE, f"{SITE}:static/robomind.yaml, {CONVERTER}")
    else:
        yield fact("colour", f"{order}, as for Franka", INFERRED, "not stated for simulations")
    if not body.state:
        why = "series of unlike length and no common clock: not read"
        yield fact("state_clock", why, Certainty.UNKNOWN, INFO, for_actions=True)


def motion_facts(
    body: Body, motion: RobomindMotion, scale: tuple[float, float] | None
) -> Iterator[Fact]:
    """Of what was read; `scale` is the caller's word."""
    yield fact("joint_unit", "rad", DOCUMENTED, INFO, for_actions=True)
    if motion.has_command:
        kind = "absolute joint targets of the leader, due one row later"
        yield fact("action_kind", kind, CODE, CONVERTER, for_actions=True)
    if body.rows_per_picture > 1:
        value = f"state {body.rows_per_picture} times as often as pictures, both from the start on"
        yield fact("row_timing", value, INFERRED, INFO, for_actions=True)
    if body.hands:
        fingers = "12 finger values of unknown unit, kept as source_state"
        yield fact("hand_unit", fingers, Certainty.UNKNOWN, INFO)
    elif scale:
        value = f"{scale[0]:g} closed .. {scale[1]:g} open"
        yield fact("gripper_scale", value, DOCUMENTED, CALLER, for_actions=True)
    else:
        value = "unit and direction not stated: kept as source_state"
        yield fact("gripper_scale", value, Certainty.UNKNOWN, INFO, for_actions=True)
    yield from _pose_facts(body, motion)


def _pose_facts(body: Body, motion: RobomindMotion) -> Iterator[Fact]:
    if motion.stuck:
        value = f"stands still while the arm moves, left out: {', '.join(motion.stuck)}"
        yield fact("recorded_pose", value, Certainty.VERIFIED, f"range, as in {UTILS}")
    if not any(s.name.endswith("T_base_eef") for s in motion.streams):
        return
    is_quat = body.rotation_form == QUAT
    value = body.rotation_form if is_quat else f"{body.rotation_form}: rpy, order not stated"
    how = DOCUMENTED if is_quat else INFERRED
    yield fact("eef_rotation_form", value, how, INFO, for_actions=True)
    source = f"not stated; {UTILS}:eepose recomputes it"
    yield fact("eef_frame", body.eef_frame, Certainty.UNVERIFIED, source, for_actions=True)
