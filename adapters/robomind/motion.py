"""The numbers of one RoboMIND file as canonical streams. Rows have no clock: row k is at k / rate.

A recorded pose that stands still while its arm moves is a fault of the recording (ur_1rgb and the simulations; official check:
`Open-X-Humanoid/RoboMIND-dataset-utils:robomind_check/robomind_data_check.py`, range below 1e-3) and is not handed on.
What the leader did in row k is due in row k + 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.pose_rows import poses_of_rows
from adapters.robomind.bodies import FINGERS, Body, RobomindArm
from schemas.episode import SIDES, Stream, Unit, gripper_channel, pose_channel, vector_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array
from schemas.rate import instants_ns

STUCK_RANGE = 1e-3  # of every element of a pose: metres, radians or quaternion elements
MOVED_RAD = 1e-2  # of some joint: less is an arm at rest, whose pose may well stand still
Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RobomindMotion:
    """What was read: the streams, and the names of the poses that are stuck."""

    streams: tuple[Stream, ...]
    stuck: tuple[str, ...]
    has_command: bool


def num_rows_of(file: Hdf5File, body: Body) -> int:
    """Rows of the state; SourceError EMPTY_EPISODE or MISSING_CHANNEL."""
    key = f"{body.state}/{body.arms[0].joints}"
    if not (shape := file.shape(key)) or not shape[0]:
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=f"{file.where}:{key}")
    return shape[0]


def read_motion(
    file: Hdf5File, body: Body, rate_hz: Fraction, scale: tuple[float, float] | None
) -> RobomindMotion:
    """`rate_hz` is that of the rows; `scale` holds the stored values of a closed and an open gripper, where known.

    Raises:
        SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, EMPTY_EPISODE, NOT_FINITE, NOT_A_ROTATION.
    """
    ticks = instants_ns(num_rows_of(file, body) + 1, rate_hz)
    streams: list[Stream] = []
    stuck: list[str] = []
    has_command = bool(body.command and file.children(body.command))
    for prefix, group, t_ns in (
        ("", body.state, ticks[:-1]),
        ("command.", body.command if has_command else "", ticks[1:]),
    ):
        if not group:
            continue
        tables = _tables(file, body, group, len(t_ns))
        for arm in body.arms:
            if arm.eef_key not in tables:
                continue
            name, rows = f"{prefix}{arm.side}.T_base_eef", _pose_rows(tables, arm, body)
            if _is_stuck(rows, _joints(tables, arm)):
                stuck.append(name)
                continue
            T = poses_of_rows(rows, body.rotation_form, f"{file.where}:{group}/{arm.eef_key}")
            streams.append(Stream(spec=pose_channel(name), t_ns=t_ns, values=T))
        streams.append(_all_joints(tables, body, f"{prefix}joint_position_rad", t_ns))
        if scale:
            streams += _openings(tables, body, prefix, t_ns, scale)
        if not prefix:
            streams += _unknown(tables, body, t_ns, with_grippers=scale is None)
        else:
            streams.append(_raw(tables, body, ticks[:-1]))
    return RobomindMotion(streams=tuple(streams), stuck=tuple(stuck), has_command=has_command)


def _tables(file: Hdf5File, body: Body, group: str, num_rows: int) -> dict[str, Array]:
    """Every dataset that the body has, [N, width]. Leaders without poses are the rule: those are read where they are."""
    widths: dict[str, int] = {}
    for arm in body.arms:
        end = arm.first + arm.num_joints + (arm.gripper is not None)
        widths[arm.joints] = max(widths.get(arm.joints, 0), end)
        if arm.eef_key and (group == body.state or f"{group}/{arm.eef_key}" in file):
            width = arm.pose_first + body.pose_width
            widths[arm.eef_key] = max(widths.get(arm.eef_key, 0), width)
    if body.hands:
        widths[body.hands] = 2 * len(FINGERS)
    return {n: file.rows(f"{group}/{n}", width, num_rows=num_rows) for n, width in widths.items()}


def _pose_rows(tables: Mapping[str, Array], arm: RobomindArm, body: Body) -> Array:
    return tables[arm.eef_key][:, arm.pose_first : arm.pose_first + body.pose_width]


def _joints(tables: Mapping[str, Array], arm: RobomindArm) -> Array:
    return tables[arm.joints][:, arm.first : arm.first + arm.num_joints]


def _is_stuck(pose: Array, joints: Array) -> bool:
    if not (np.isfinite(pose).all() and np.isfinite(joints).all()):
        return False  # the stream says what is wrong
    moves = np.ptp(joints, axis=0).max() >= MOVED_RAD
    return bool(moves and np.ptp(pose, axis=0).max() < STUCK_RANGE)


def _all_joints(tables: Mapping[str, Array], body: Body, name: str, t_ns: Times) -> Stream:
    names = tuple(f"{arm.side}_joint{k}" for arm in body.arms for k in range(1, arm.num_joints + 1))
    values = np.concatenate([_joints(tables, arm) for arm in body.arms], axis=1)
    spec = vector_channel(name, len(names), Unit.RADIAN, names=names)
    return Stream(spec=spec, t_ns=t_ns, values=values)


def _openings(
    tables: Mapping[str, Array], body: Body, prefix: str, t_ns: Times, scale: tuple[float, float]
) -> Iterator[Stream]:
    closed, opened = scale
    for arm in body.arms:
        if arm.gripper is not None:
            stored = tables[arm.joints][:, arm.gripper, None]
            opening = np.clip((stored - closed) / (opened - closed), 0.0, 1.0)
            opening[~np.isfinite(stored)] = np.nan  # clipping must not hide an infinity
            spec = gripper_channel(f"{prefix}{arm.side}.gripper_opening", binary=False)
            yield Stream(spec=spec, t_ns=t_ns, values=opening)


def _columns(tables: Mapping[str, Array], body: Body) -> Iterator[tuple[str, Array]]:
    """Grippers and fingers by name, [N] each: their unit is not documented."""
    for arm in body.arms:
        if arm.gripper is not None:
            yield f"{arm.side}_gripper", tables[arm.joints][:, arm.gripper]
    if body.hands:
        for k, (side, finger) in enumerate((s, f) for s in SIDES for f in FINGERS):
            yield f"{side}_{finger}", tables[body.hands][:, k]


def _unknown(
    tables: Mapping[str, Array], body: Body, t_ns: Times, *, with_grippers: bool
) -> Iterator[Stream]:
    columns = [c for c in _columns(tables, body) if with_grippers or not c[0].endswith("_gripper")]
    if columns:
        spec = vector_channel(
            "source_state", len(columns), Unit.SOURCE, names=tuple(name for name, _ in columns)
        )
        yield Stream(spec=spec, t_ns=t_ns, values=np.column_stack([v for _, v in columns]))


def _raw(tables: Mapping[str, Array], body: Body, t_ns: Times) -> Stream:
    """Everything but poses that the leader did, stamped when it did it."""
    joints = _all_joints(tables, body, "joint_position_rad", t_ns)
    rest = list(_columns(tables, body))
    names = (*joints.spec.names, *(name for name, _ in rest))
    values = np.column_stack([joints.values, *(v for _, v in rest)])
    spec = vector_channel("raw_command", len(names), Unit.SOURCE, names=names, hold=True)
    return Stream(spec=spec, t_ns=t_ns, values=values)
