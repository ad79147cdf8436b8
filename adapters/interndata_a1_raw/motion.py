"""State and commands of one InternData-A1 episode as canonical streams.

A step stores what was seen and the command that was then applied; `actions.*` repeats the next state and is not read. Franka:
`gripper.pose` is x y z m and scipy's extrinsic "xyz" rad of panda_link8 in panda_link0, computed by the engine from the joints
(`core/utils/transformation_utils.py`: get_fk_solution stops at the flange). Two arms: `T_base_ee_*` where the writer stored it, the
pose of the ee link in the arm's own base, moved here to the robot's base; otherwise only joints, for kinematics. The engine's
matrices are `get_relative_transform(link, base)`, which maps the link's coordinates to the base's.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.lmdb_store import LmdbReader
from adapters.interndata_a1_raw.record import column, required_column
from adapters.interndata_a1_raw.robots import InternDataRobot, T_robot_arm_of
from schemas.episode import Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_euler, transform
from schemas.rate import instants_ns

RATE_HZ = Fraction(30)
PERIOD_NS = int(instants_ns(2, RATE_HZ)[1])
LARGEST_RAD = 2 * np.pi  # the converter's own bound
_EE = {"left_": "T_base_ee_fl", "right_": "T_base_ee_fr"}
Times = npt.NDArray[np.int64]


def streams_of(
    reader: LmdbReader, robot: InternDataRobot, episode_name: str, t_ns: Times
) -> Iterator[Stream]:
    """Raises SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, NOT_FINITE, NOT_A_ROTATION, UNKNOWN_LAYOUT (no radians)."""
    due_ns = t_ns + PERIOD_NS
    for prefix in robot.joints:
        yield from _poses(reader, robot, prefix, episode_name, t_ns)
        yield from _grippers(reader, robot, prefix, t_ns)
    names = tuple(name for part in robot.joints.values() for name in part)
    for source, name, at_ns in (
        ("states", "joint_position_rad", t_ns),
        ("master_actions", "command.joint_position_rad", due_ns),
    ):
        spec = vector_channel(name, len(names), Unit.RADIAN, names=names)
        yield Stream(spec=spec, t_ns=at_ns, values=_joints(reader, robot, source, len(t_ns)))
    yield _raw(reader, robot, t_ns)


def has_poses(reader: LmdbReader, robot: InternDataRobot, episode_name: str) -> bool:
    """Whether every arm's pose is stored in the robot's base, or can be moved there."""
    return all(
        ("states.gripper.pose" if prefix == "" else _EE[prefix]) in reader
        and T_robot_arm_of(robot, prefix, episode_name) is not None
        for prefix in robot.joints
    )


def _poses(
    reader: LmdbReader, robot: InternDataRobot, prefix: str, episode_name: str, t_ns: Times
) -> Iterator[Stream]:
    side, T_robot_arm = robot.side(prefix), T_robot_arm_of(robot, prefix, episode_name)
    if prefix and T_robot_arm is not None and has_poses(reader, robot, episode_name):
        values = T_robot_arm @ required_column(reader, _EE[prefix], (4, 4), len(t_ns))
        yield Stream(spec=pose_channel(f"{side}.T_base_eef"), t_ns=t_ns, values=values)
    if prefix:
        return
    due_ns = t_ns + PERIOD_NS
    for source, name, at_ns in (("states", "", t_ns), ("master_actions", "command.", due_ns)):
        key = f"{source}.gripper.pose"
        rows = column(reader, key, (6,), len(t_ns))
        if rows is None:
            continue
        if not np.isfinite(rows).all():
            raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{reader.where}:{key}")
        values = transform(rotmat_from_euler(rows[:, 3:], "xyz"), rows[:, :3])
        yield Stream(spec=pose_channel(f"{name}{side}.T_base_eef"), t_ns=at_ns, values=values)


def _grippers(
    reader: LmdbReader, robot: InternDataRobot, prefix: str, t_ns: Times
) -> Iterator[Stream]:
    """The opening, and the command: openness is 1 open, 0 closed, of the target that the step applies."""
    side = robot.side(prefix)
    stored = required_column(reader, f"states.{prefix}gripper.position", (1,), len(t_ns))
    spec = gripper_channel(f"{side}.gripper_opening", binary=robot.has_binary_state)
    yield Stream(spec=spec, t_ns=t_ns, values=np.clip(stored / robot.open_at, 0.0, 1.0))
    commanded = required_column(reader, f"master_actions.{prefix}gripper.openness", (1,), len(t_ns))
    spec = gripper_channel(f"command.{side}.gripper_opening", binary=True)
    yield Stream(spec=spec, t_ns=t_ns + PERIOD_NS, values=np.clip(commanded, 0.0, 1.0))


def _joints(reader: LmdbReader, robot: InternDataRobot, source: str, num_rows: int) -> Array:
    parts = []
    for prefix, names in robot.joints.items():
        key = f"{source}.{prefix}joint.position"
        rows = required_column(reader, key, (len(names),), num_rows)
        if np.abs(rows).max() > LARGEST_RAD:
            problem = f"up to {np.abs(rows).max():g}; expected radians"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=f"{reader.where}:{key}")
        parts.append(rows)
    return np.concatenate(parts, axis=1)


def _raw(reader: LmdbReader, robot: InternDataRobot, t_ns: Times) -> Stream:
    """Everything that was commanded, as it is stored; gripper.position is the width one step later."""
    parts, names = [], []
    for prefix, joints in robot.joints.items():
        for field, width in (
            ("joint.position", len(joints)),
            ("gripper.position", 1),
            ("gripper.openness", 1),
        ):
            rows = column(reader, f"master_actions.{prefix}{field}", (width,), len(t_ns))
            if rows is not None:
                parts.append(rows)
                names += [f"{prefix}{field}" + (f".{k}" if width > 1 else "") for k in range(width)]
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=tuple(names), hold=True)
    return Stream(spec=spec, t_ns=t_ns, values=np.concatenate(parts, axis=1))
