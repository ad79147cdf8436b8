"""The topics of a LET bag as canonical streams, and the facts about their conventions.

The topics of a LET bag as canonical streams.

Order and units of the 28 joints: the set's README (doc: left leg 6, right leg 6, left arm 7, right arm 7, head 2; radians).
Names: those of the robot's URDF (`LejuRobotics/kuavo-ros-opensource:src/kuavo_assets/models/biped_s45`), by index, as the
converter has them; for the last two arm joints README and URDF disagree (hand_pitch, hand_roll; roll, then pitch).

What the streams of a LET bag rest on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.let_kuavo.labels import ZONE
from adapters.let_kuavo.recording import (
    ARM,
    ARM_SYNCED,
    CLAW_COMMAND,
    CLAW_STATE,
    HAND_COMMAND,
    HAND_STATE,
    JOINT_CMD,
    JOINTS,
    SIM_COMMAND,
    SIM_STATE,
    KuavoRecording,
    Series,
)
from schemas.episode import SIDES, ChannelSpec, Unit, gripper_channel, vector_channel
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.rate import NS_PER_S

# -- streams -------------------------------------------------------------------------------------------------------

RATE_HZ = Fraction(30)  # the head camera's
PERIOD_NS = 33_333_333
LEGS = tuple(f"leg_{side}{k}_joint" for side in "lr" for k in range(1, 7))
ARMS = tuple(f"zarm_{side}{k}_joint" for side in "lr" for k in range(1, 8))
HEAD = ("zhead_1_joint", "zhead_2_joint")
CLAWS = ("left_claw", "right_claw")
FINGERS = tuple(f"{side}_qiangnao_{k}" for side in SIDES for k in range(1, 7))
# (state topic, reading when closed), (command topic, the same): 0 is open in all of them
GRIPPERS = (((CLAW_STATE, 100.0), (CLAW_COMMAND, 100.0)), ((SIM_STATE, 0.8), (SIM_COMMAND, 255.0)))
SLACK = 0.1  # of the range; readings further outside belong to no known scale

Raw = tuple[ChannelSpec, npt.NDArray[np.int64], Array]  # times since 1970


def raw_streams(bag: KuavoRecording) -> Iterator[Raw]:
    """Spec, record times and values of every stream but the pictures."""
    if JOINTS in bag.numbers:
        spec = vector_channel("joint_position_rad", 28, Unit.RADIAN, names=LEGS + ARMS + HEAD)
        yield spec, bag.numbers[JOINTS].t_ns, bag.numbers[JOINTS].values
    if HAND_STATE in bag.numbers:
        spec = vector_channel("source_state", 12, Unit.SOURCE, names=FINGERS)
        yield spec, bag.numbers[HAND_STATE].t_ns, bag.numbers[HAND_STATE].values
    yield from _openings(bag)
    command = bag.first_of(ARM_SYNCED, ARM, JOINT_CMD)
    if command is not None:
        topic, series = command
        radians = series.values[:, 12:26] if topic == JOINT_CMD else np.deg2rad(series.values)
        spec = vector_channel("command.joint_position_rad", 14, Unit.RADIAN, names=ARMS)
        yield spec, series.t_ns + PERIOD_NS, radians
    yield from _raw_command(bag)


def _openings(bag: KuavoRecording) -> Iterator[Raw]:
    """Both grippers and their commands, 1 open and 0 closed, where the readings are of the documented scale."""
    for state, command in GRIPPERS:
        for prefix, (topic, closed), delay_ns in (
            ("", state, 0),
            ("command.", command, PERIOD_NS),
        ):
            series = bag.numbers.get(topic)
            if series is None or not is_on_scale(series, closed):
                continue
            opening = 1.0 - np.clip(series.values / closed, 0.0, 1.0)
            for k, side in enumerate(SIDES):
                spec = gripper_channel(f"{prefix}{side}.gripper_opening", binary=False)
                yield spec, series.t_ns + delay_ns, opening[:, k : k + 1]
        if state[0] in bag.numbers or command[0] in bag.numbers:
            return  # a bag has claws or simulated grippers, never both under one name


def is_on_scale(series: Series, closed: float) -> bool:
    """Whether the readings of a gripper fit 0 open .. `closed`, with a tenth to spare at either end."""
    values = series.values / closed
    return bool(((values >= -SLACK) & (values <= 1 + SLACK)).all())


def _raw_command(bag: KuavoRecording) -> Iterator[Raw]:
    """The latest command of each joint after every command message: exact, because commands are held until the next one.

    It begins when every joint has had a command. Arms in degrees (the trajectory) or all joints in radians (joint_cmd).
    """
    arms = bag.first_of(ARM_SYNCED, ARM, JOINT_CMD)
    tools = bag.first_of(CLAW_COMMAND, HAND_COMMAND, SIM_COMMAND)
    parts = [series for _, series in (arms or ("", None), tools or ("", None)) if series]
    if not parts:
        return
    names: tuple[str, ...] = ()
    if arms is not None:
        joints = LEGS + ARMS + HEAD
        names = (
            tuple(f"{n}_rad" for n in joints)
            if arms[0] == JOINT_CMD
            else tuple(f"{n}_deg" for n in ARMS)
        )
    if tools is not None:
        names += FINGERS if tools[0] == HAND_COMMAND else CLAWS
    t_ns = np.unique(np.concatenate([part.t_ns for part in parts]))
    t_ns = t_ns[t_ns >= max(part.t_ns[0] for part in parts)]
    last = [part.values[np.searchsorted(part.t_ns, t_ns, side="right") - 1] for part in parts]
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=names, hold=True)
    yield spec, t_ns, np.concatenate(last, axis=1)


# -- facts ---------------------------------------------------------------------------------------------------------

README = "the set's README, as in huangrc1110/huggingface_readme:README_EN.md"
CODE = "LejuRobotics/kuavo_data_challenge:kuavo_data/common/kuavo_dataset.py"
SWAPPED_DAY = (
    "2025-07-08"  # a comment in the converter: in those bags cam_r is the left wrist camera
)


def facts_of(bag: KuavoRecording, *, is_labelled: bool) -> Iterator[Fact]:
    """All facts of one bag."""
    yield fact("embodiment", "Kuavo 4 Pro, or its wheel edition", Certainty.DOCUMENTED, README)
    yield _camera_fact(bag.start_ns)
    marks = "local time taken as UTC+8" if is_labelled else "no file beside the bag"
    yield fact("labels", marks, Certainty.UNVERIFIED, "labels.py: one public converter")
    yield fact("rate", "30 Hz, the head camera's", Certainty.CODE, CODE, for_actions=True)
    yield fact("clock", "record time of the bag, as the converter takes it", Certainty.CODE, CODE)
    order = "legs 6 + 6, arms 7 + 7, head 2, left first; rad"
    yield fact("joint_order", order, Certainty.DOCUMENTED, README, for_actions=True)
    commanded = bag.first_of(ARM_SYNCED, ARM, JOINT_CMD)
    if commanded is not None:
        kind = "absolute joint targets, " + ("rad" if commanded[0] == JOINT_CMD else "degrees")
        yield fact(
            "action_kind", f"{kind} ({commanded[0]})", Certainty.CODE, CODE, for_actions=True
        )
    for state, command in GRIPPERS:
        for topic, closed in (state, command):
            if topic in bag.numbers:
                yield _gripper_fact(topic, bag.numbers[topic], closed)
    if HAND_STATE in bag.numbers or HAND_COMMAND in bag.numbers:
        scale = "0 open .. 100 fist, no radians: kept as source_state and raw_command"
        yield fact("hand_unit", scale, Certainty.DOCUMENTED, README)


def _gripper_fact(topic: str, series: Series, closed: float) -> Fact:
    name = f"gripper_polarity.{topic.strip('/')}"
    if not is_on_scale(series, closed):
        low, high = series.values.min(), series.values.max()
        off_scale = f"{low:g} .. {high:g}, expected 0 open .. {closed:g} closed: left out"
        return fact(name, off_scale, Certainty.UNKNOWN, README, for_actions=True)
    against = (
        "; the comment in kuavo_msgs/lejuClawCommand says the opposite, the SDK's close() sends 100"
    )
    source = README + (against if topic in (CLAW_STATE, CLAW_COMMAND) else "")
    value = f"0 open .. {closed:g} closed"
    return fact(name, value, Certainty.DOCUMENTED, source, for_actions=True)


def _camera_fact(start_ns: int) -> Fact:
    day = datetime.fromtimestamp(start_ns // NS_PER_S, tz=UTC).astimezone(ZONE).date().isoformat()
    if day == SWAPPED_DAY:
        value = f"recorded on {day}: cam_r is said to be the LEFT wrist's; look at a picture"
        return fact("camera_sides", value, Certainty.UNVERIFIED, CODE)
    sides = "cam_l is the left wrist's, cam_r the right one's"
    return fact("camera_sides", sides, Certainty.DOCUMENTED, README)
