"""DROID trajectory.h5 as canonical streams: state, commands and clock of one Franka Panda with a Robotiq gripper.

    observation/robot_state/{cartesian_position [N, 6], joint_positions [N, 7], gripper_position [N]}
    action/{cartesian_position [N, 6], gripper_position [N], cartesian_velocity [N, 6], gripper_velocity [N], ...}
    observation/timestamp/robot_state/{read_start, read_end} [N] ms of the workstation; robot_timestamp_* is the robot's own clock
    observation/controller_info/movement_enabled [N]   False: the step was recorded, but no command was sent
Poses are xyz m and Euler angles rad, scipy's extrinsic "xyz", of panda_link8 in panda_link0 (config ee_link_name). Gripper: 0
open, 1 closed, = 1 - width / max. `action/cartesian_position` is the absolute target: the pose at issue plus a bounded delta.
Source: `droid-dataset/droid:droid/{robot_env.py,franka/robot.py,trajectory_utils/misc.py}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from schemas.episode import Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_euler, transform
from schemas.rate import instants_ns

RATE_HZ = Fraction(15)  # control_hz
PERIOD_NS = int(instants_ns(2, RATE_HZ)[1])
NS_PER_MS = 1_000_000
STATE = "observation/robot_state"
ROBOT = "droid-dataset/droid:droid/franka/robot.py"
_XYZRPY = ("x", "y", "z", "rx", "ry", "rz")
RAW = (  # every action that a file may hold, with the width of its rows
    ("cartesian_velocity", 6),
    ("gripper_velocity", 1),
    ("cartesian_position", 6),
    ("gripper_position", 1),
    ("joint_velocity", 7),
    ("joint_position", 7),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DroidClock:
    """Row times, and where they come from."""

    t_ns: npt.NDArray[np.int64]
    start_ms: (
        int | None
    )  # the zero of `t_ns` on the workstation's clock; None when rows are counted
    fact: Fact


def read_clock(file: Hdf5File) -> DroidClock:
    """Rows by the workstation's clock, which the cameras share; by number at 15 Hz where it is absent.

    Raises:
        SourceError: MISSING_CHANNEL, EMPTY_EPISODE, SHAPE_MISMATCH.
    """
    num_rows = len(file.rows(f"{STATE}/cartesian_position", 6))
    key = "observation/timestamp/robot_state/read_start"
    if key not in file:
        nominal = fact("clock", "nominal 15 Hz: no read_start", Certainty.CODE, "control_hz = 15")
        return DroidClock(t_ns=instants_ns(num_rows, RATE_HZ), start_ms=None, fact=nominal)
    stamps_ms = np.round(file.rows(key, num_rows=num_rows)).astype(np.int64)
    return DroidClock(
        t_ns=(stamps_ms - stamps_ms[0]) * NS_PER_MS,
        start_ms=int(stamps_ms[0]),
        fact=fact("clock", "read_start, ms of the workstation", Certainty.CODE, "robot_env.py"),
    )


def motion_streams(file: Hdf5File, clock: DroidClock) -> Iterator[Stream]:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, CLOCK_NOT_INCREASING."""
    t_ns, num_rows = clock.t_ns, len(clock.t_ns)
    T = read_T_base(file, f"{STATE}/cartesian_position", num_rows)
    yield Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=T)
    yield _opening(file, "", f"{STATE}/gripper_position", t_ns, np.ones(num_rows, dtype=bool))
    joints = vector_channel("joint_position_rad", 7, Unit.RADIAN)
    values = file.rows(f"{STATE}/joint_positions", 7, num_rows=num_rows)
    yield Stream(spec=joints, t_ns=t_ns, values=values)
    has_command = _is_commanded(file, num_rows)
    due_ns = t_ns + PERIOD_NS
    if "action/cartesian_position" in file:
        T = read_T_base(file, "action/cartesian_position", num_rows)
        yield Stream(
            spec=pose_channel("command.left.T_base_eef"), t_ns=due_ns, values=T, valid=has_command
        )
    if "action/gripper_position" in file:
        yield _opening(file, "command.", "action/gripper_position", due_ns, has_command)
    yield from _raw(file, t_ns)


def read_T_base(file: Hdf5File, key: str, num_rows: int) -> Array:
    """[N, 4, 4] from a [N, 6] dataset of xyz and Euler angles; SourceError as `Hdf5File.rows`, or NOT_FINITE."""
    rows = file.rows(key, 6, num_rows=num_rows)
    if not np.isfinite(rows).all():
        raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{file.where}:{key}")
    return transform(rotmat_from_euler(rows[:, 3:], "xyz"), rows[:, :3])


def motion_facts(file: Hdf5File) -> list[Fact]:
    """What is known of the conventions; the embodiment's own facts (axes) are added later."""
    has_target = "action/cartesian_position" in file
    kind = "absolute target: pose at issue plus a bounded delta" if has_target else "no target pose"
    lag = "cartesian_position lags the pictures in some episodes"
    return [
        fact("rate", "15 Hz", Certainty.CODE, "control_hz = 15", for_actions=True),
        fact(
            "eef_rotation_form", "euler extrinsic xyz, rad", Certainty.CODE, ROBOT, for_actions=True
        ),
        fact("eef_frame", "panda_link8 in panda_link0", Certainty.CODE, ROBOT, for_actions=True),
        fact("gripper_polarity", "0 open, 1 closed", Certainty.CODE, ROBOT, for_actions=True),
        fact("action_kind", kind, Certainty.CODE, ROBOT, for_actions=True),
        fact("state_lag", lag, Certainty.DOCUMENTED, "droid-dataset/droid issues 10, 61, 64"),
    ]


def _opening(
    file: Hdf5File, prefix: str, key: str, t_ns: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_]
) -> Stream:
    closed = _column(file, key, len(t_ns))
    spec = gripper_channel(f"{prefix}left.gripper_opening", binary=False)
    return Stream(spec=spec, t_ns=t_ns, values=1.0 - np.clip(closed, 0.0, 1.0), valid=valid)


def _column(file: Hdf5File, key: str, num_rows: int) -> Array:
    """[N, 1], whether it is stored as [N] or [N, 1]."""
    shape = file.shape(key)[1:]
    return file.rows(key, *([1] if shape == (1,) else []), num_rows=num_rows).reshape(-1, 1)


def _is_commanded(file: Hdf5File, num_rows: int) -> npt.NDArray[np.bool_]:
    """False where the operator held the robot still: the action of that row was never sent."""
    key = "observation/controller_info/movement_enabled"
    if key not in file:
        return np.ones(num_rows, dtype=bool)
    return np.asarray(file.rows(key, num_rows=num_rows) != 0)


def _raw(file: Hdf5File, t_ns: npt.NDArray[np.int64]) -> Iterator[Stream]:
    present = [(name, width) for name, width in RAW if f"action/{name}" in file]
    if not present:
        return
    parts = [
        _column(file, f"action/{name}", len(t_ns))
        if width == 1
        else file.rows(f"action/{name}", width, num_rows=len(t_ns))
        for name, width in present
    ]
    names = tuple(
        name if width == 1 else f"{name}.{_XYZRPY[k] if width == 6 else k + 1}"
        for name, width in present
        for k in range(width)
    )
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=names, hold=True)
    yield Stream(spec=spec, t_ns=t_ns, values=np.concatenate(parts, axis=1))
