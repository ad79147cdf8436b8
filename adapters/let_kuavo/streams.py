"""The topics of a LET bag as canonical streams.

Order and units of the 28 joints: the set's README (doc: left leg 6, right leg 6, left arm 7, right arm 7, head 2; radians).
Names: those of the robot's URDF (`LejuRobotics/kuavo-ros-opensource:src/kuavo_assets/models/biped_s45`), by index, as the
converter has them; for the last two arm joints README and URDF disagree (hand_pitch, hand_roll; roll, then pitch).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

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
from schemas.geometry import Array

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
