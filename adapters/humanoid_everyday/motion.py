"""The numbers of one episode as canonical streams.

No pose of the end-effector is stored: it comes by forward kinematics from the named joints. `left_pose` and `right_pose` are the
targets of the operator's wrists that went into inverse kinematics. Their frame is INFERRED to be the robot's waist, because the
public teleoperation code moves the operator's wrists there by constants that differ from copy to copy; so they are kept as raw
commands and are no pose of the corpus. `sol_q` is the joint solution that was sent to the arms: the command.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.humanoid_everyday.robots import G1, H1_2, HumanoidRobot
from adapters.humanoid_everyday.steps import HumanoidSteps, StepColumn
from schemas.episode import SIDES, Stream, Unit, vector_channel
from schemas.errors import Code, SourceError
from schemas.rate import instants_ns, ns_from_seconds

RATE_HZ = Fraction(30)
PERIOD_NS = int(instants_ns(2, RATE_HZ)[1])
LARGEST_RAD = 2 * np.pi  # no joint of either robot goes further; degrees do
STATE = (  # kept in the source's own units beside the joints
    "states.odometry.position",
    "states.odometry.velocity",
    "states.odometry.quat_wxyz",
    "states.imu.quat_wxyz",
    "states.imu.accelerometer",
    "states.imu.gyroscope",
)
COMMAND = ("sol_q", "left_angles", "right_angles", "left_pose", "right_pose", "head_rmat")
_Part = tuple[StepColumn, tuple[str, ...]]


def robot_of(steps: HumanoidSteps) -> HumanoidRobot:
    """The robot: robot_type is written for G1 only, none means H1 (README).

    Raises:
        SourceError: MISSING_CHANNEL (no arm_state), UNKNOWN_LAYOUT (another robot).
    """
    stated = steps.robot_type or "h1"
    robot = G1 if stated.startswith("g1") else H1_2 if stated.startswith("h1") else None
    if robot is None:
        problem = f"robot_type {stated!r}; expected G1, H1 or none"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=steps.where)
    if "states.arm_state" not in steps.columns:
        problem = "no step contains states.arm_state"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=steps.where)
    return robot


def clock_of(steps: HumanoidSteps) -> npt.NDArray[np.int64]:
    """[N] ns since the first step, by the recorded times; microseconds survive in a float of UNIX seconds.

    Raises:
        SourceError: NOT_FINITE, TOO_LONG (not seconds).
    """
    since_s = steps.time_s - steps.time_s[0]
    if not np.isfinite(since_s).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{steps.where}:time")
    if np.abs(since_s).max() > 1e6:
        problem = f"timestamps are {np.abs(since_s).max():g} s apart; expected UNIX seconds"
        raise SourceError(Code.TOO_LONG, problem, where=f"{steps.where}:time")
    return ns_from_seconds(since_s)


def streams_of(
    steps: HumanoidSteps, robot: HumanoidRobot, t_ns: npt.NDArray[np.int64]
) -> Iterator[Stream]:
    """Raises SourceError: CLOCK_NOT_INCREASING, NOT_FINITE, SHAPE_MISMATCH (the joints of another robot), UNKNOWN_LAYOUT (joints
    that are no radians)."""
    hand = _parts(steps, [("states.hand_state", robot.hand)])
    joints = _parts(steps, [("states.arm_state", robot.arm), ("states.leg_state", robot.leg)])
    if robot.has_hand_radians:
        yield _stream("joint_position_rad", [*joints, *hand], t_ns)
        for k, side in enumerate(SIDES if hand else ()):
            half = slice(7 * k, 7 * k + 7)
            part = StepColumn(values=hand[0][0].values[:, half], present=hand[0][0].present)
            yield _stream(f"{side}.hand_joints_rad", [(part, robot.hand[half])], t_ns)
    else:
        yield _stream("joint_position_rad", joints, t_ns)
    state = _parts(steps, [(name, ()) for name in STATE])
    if kept := [*state, *([] if robot.has_hand_radians else hand)]:
        yield _stream("source_state", kept, t_ns, unit=Unit.SOURCE)
    due_ns = t_ns + PERIOD_NS
    if commanded := _parts(steps, [("actions.sol_q", robot.arm)]):
        yield _stream("command.joint_position_rad", commanded, due_ns)
    if raw := _parts(steps, [(f"actions.{name}", ()) for name in COMMAND]):
        yield _stream("raw_command", raw, t_ns, unit=Unit.SOURCE, hold=True)


def _parts(steps: HumanoidSteps, columns: Sequence[tuple[str, tuple[str, ...]]]) -> list[_Part]:
    """The wanted columns that are there, with names of their elements, numbered where the source does not name them."""
    parts: list[_Part] = []
    for key, names in columns:
        if (column := steps.columns.get(key)) is not None:
            width = column.values.shape[1]
            short = key.partition(".")[2]
            if names and len(names) != width:
                what = f"{width} numbers; expected {len(names)}; check robot_type"
                raise SourceError(Code.SHAPE_MISMATCH, what, where=f"{steps.where}:{key}")
            parts.append((column, names or tuple(f"{short}.{k}" for k in range(width))))
    return parts


def _stream(
    name: str,
    parts: Sequence[_Part],
    t_ns: npt.NDArray[np.int64],
    *,
    unit: Unit = Unit.RADIAN,
    hold: bool = False,
) -> Stream:
    """One vector of all parts, valid at the steps that have them all."""
    values = np.concatenate([column.values for column, _ in parts], axis=1)
    valid = np.logical_and.reduce([column.present for column, _ in parts])
    if unit is Unit.RADIAN and np.abs(values).max(initial=0.0) > LARGEST_RAD:
        problem = f"up to {np.abs(values).max():g}; expected radians"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=name)
    names = tuple(n for _, part in parts for n in part)
    spec = vector_channel(name, len(names), unit, names=names, hold=hold)
    return Stream(spec=spec, t_ns=t_ns, values=values, valid=valid)
