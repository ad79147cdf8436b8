"""The numbers and images of one RoboMIND file as canonical streams and cameras, and the facts about their conventions.

The numbers of one RoboMIND file as canonical streams. Rows have no clock: row k is at k / rate.

A recorded pose that stands still while its arm moves is a fault of the recording (ur_1rgb and the simulations; official check:
`Open-X-Humanoid/RoboMIND-dataset-utils:robomind_check/robomind_data_check.py`, range below 1e-3) and is not handed on.
What the leader did in row k is due in row k + 1.

How sure each convention of a RoboMIND episode is. Little is stated, so much stays inferred.

RoboMIND cameras: one buffer per picture inside the file, JPEG or, in a few files, raw.

    observations/rgb_images/<camera> [N] variable-length uint8; [N, H, W, 3] where attribute `compress` is False
A camera may be absent (675 Franka episodes have no top one) and sizes are mixed, so intrinsics go with a picture of their
own size only. Not read: observations/depth_images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.hdf5_camera import StorageOrder, hdf5_camera
from adapters.containers.images import image_header
from adapters.containers.poses import poses_of_rows
from adapters.robomind.bodies import FINGERS, QUAT, Body, Lens, RobomindArm
from schemas.episode import (
    SIDES,
    Camera,
    EncodedImages,
    Stream,
    Unit,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array
from schemas.rate import instants_ns

# -- motion --------------------------------------------------------------------------------------------------------

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


# -- facts ---------------------------------------------------------------------------------------------------------

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


# -- cameras -------------------------------------------------------------------------------------------------------

GROUP = "observations/rgb_images"


def read_cameras(
    file: Hdf5File, body: Body, rate_hz: Fraction, num_rows: int | None
) -> tuple[list[Camera], list[Fact], npt.NDArray[np.int64]]:
    """Every camera, and the clock of the first; `num_rows` is how many pictures each must have, None for any number.

    Raises:
        SourceError: MISSING_CHANNEL (none at all), EMPTY_EPISODE, FRAME_COUNT, CORRUPT_IMAGE, TOO_LARGE.
    """
    colour = StorageOrder(array_is_bgr=body.is_bgr, encoded_is_bgr=not body.is_bgr)
    cameras, facts, clocks = [], [], []
    for name in file.children(GROUP):
        key = f"{GROUP}/{name}"
        if not (shape := file.shape(key)) or not shape[0]:
            raise SourceError(Code.EMPTY_EPISODE, "no images", where=f"{file.where}:{key}")
        t_ns = instants_ns(num_rows or shape[0], rate_hz)
        clocks.append(t_ns)
        camera = hdf5_camera(file, key, name, t_ns, colour=colour)
        if name in body.lenses:
            camera, lens = _with_intrinsics(file, key, camera, body.lenses[name])
            facts.append(lens)
        cameras.append(camera)
    if not cameras:
        raise SourceError(Code.MISSING_CHANNEL, "no camera", where=f"{file.where}:{GROUP}")
    return cameras, facts, clocks[0]


def _with_intrinsics(file: Hdf5File, key: str, camera: Camera, lens: Lens) -> tuple[Camera, Fact]:
    size, fx, fy, cx, cy = lens
    topic, source = f"intrinsics.{camera.name}", f"{SITE}:static/RoboMIND_intrinsics.md"
    if (own := _size(file, key, camera)) != size:
        why = f"left out: known for {size[0]} x {size[1]}, pictures are {own[0]} x {own[1]}"
        return camera, fact(topic, why, Certainty.UNKNOWN, source)
    K_cam = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    value = f"one camera of this kind, for {size[0]} x {size[1]}; the size is inferred"
    known = replace(camera, K_cam=K_cam, K_size=size)
    return known, fact(topic, value, Certainty.INFERRED, source)


def _size(file: Hdf5File, key: str, camera: Camera) -> tuple[int, int]:
    """Width and height of its pictures."""
    if isinstance(camera.frames, EncodedImages):
        header = image_header(camera.frames.images[0], f"{file.where}:{key}[0]")
        return header.width_px, header.height_px
    shape = file.picture_shape(key)
    return shape[2], shape[1]
