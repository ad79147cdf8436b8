"""Outputs of Aria's machine perception services: tracked hands, the headset's trajectory, re-estimated cameras.

Tables of Aria's machine perception services: tracked hands and the headset's trajectory.

`hand_tracking_results.csv`: `tracking_timestamp_us` (device clock), per side a confidence (-1: no hand), 21 landmarks and, but
for the first version, the wrist's pose, all in the DEVICE frame, metres, quaternion x y z w. `closed_loop_trajectory.csv`:
T_world_device at about 1 kHz, `graph_uid` (one world each), gravity. Verified on real Gen1 tables: landmark 5 is the wrist,
the wrist normal is -y of the wrist pose, the palm normal (pinky - wrist) x (index - wrist), negated for the right.

`online_calibration.jsonl` of Aria's machine perception services: the cameras of the headset, re-estimated along the way.

One line per estimate: `tracking_timestamp_us` (device clock) and `CameraCalibrations[{Label, Projection{Name, Params[15]},
T_Device_Camera{Translation, UnitQuaternion [w, [x, y, z]]}}]`; newer files add `ImageSizes` in the same order (verified on real
Gen1 samples of both kinds). One line is used for a whole recording, the one nearest to its middle: the world poses of the hands
do not depend on the choice, because what takes them from the device to a camera takes them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from adapters.containers.array_files import FLOAT, INT, TEXT, csv_columns
from adapters.containers.json_rows import Broken, JsonRow, parse
from adapters.containers.poses import FisheyeCamera, fisheye_camera, poses_of_rows, rigid
from adapters.containers.raw_file import raw_file_of
from adapters.containers.sidecar import json_object
from schemas.episode import SIDES, RawFile
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse
from schemas.hand_track import HandTrack
from schemas.regular_file import open_regular

# -- mps -----------------------------------------------------------------------------------------------------------

LAYOUT, WRIST_AXES = "aria_mps21", "umetrack"
NUM_LANDMARKS = 21
TIME = "tracking_timestamp_us"
NS_PER_US = 1000
UPRIGHT = 0.99  # cosine: gravity within 8 degrees of an axis of the world
_NO_POSE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceHand:
    """One hand in the device frame. `T_device_wrist` is None where the table has no wrist pose."""

    side: str
    t_ns: npt.NDArray[np.int64]  # device clock
    confidence: Array  # [N], -1 where there is no hand
    landmarks_m: Array  # [N, 21, 3]
    T_device_wrist: Array | None  # [N, 4, 4]

    def in_camera(
        self, T_device_cam: Array, camera: str, zero_ns: int, view: str | None
    ) -> HandTrack:
        """The same in the optical frame of `camera`; the hand's confidence counts for each of its landmarks."""
        T_cam_device = inverse(T_device_cam)
        present = self.confidence >= 0
        joints = self.landmarks_m @ T_cam_device[:3, :3].T + T_cam_device[:3, 3]
        T_wrist = None if self.T_device_wrist is None else T_cam_device @ self.T_device_wrist
        confidence = np.where(present, self.confidence, 0.0)
        return HandTrack(
            side=self.side,
            t_ns=self.t_ns - zero_ns,
            present=present,
            frame=camera,
            joints_m=joints,
            layout=LAYOUT,
            confidence=np.repeat(confidence[:, None], NUM_LANDMARKS, axis=1),
            T_frame_wrist=T_wrist,
            wrist_axes=WRIST_AXES,
            view=view,
        )


def read_hands(path: Path, where: str) -> tuple[tuple[DeviceHand, ...], RawFile]:
    """Both hands of a `hand_tracking_results.csv`, of any version.

    Raises:
        SourceError: as `csv_columns` and `poses_of_rows`; BAD_ANNOTATION for a confidence that is neither -1 nor in 0..1.
    """
    columns: dict[str, Any] = {TIME: INT}
    optional: dict[str, Any] = {}
    for side in SIDES:
        columns |= dict.fromkeys([f"{side}_tracking_confidence", *_landmark_columns(side)], FLOAT)
        optional |= dict.fromkeys(_wrist_columns(side), FLOAT)
    table, raw = csv_columns(path, where, columns, optional=optional)
    return tuple(_hand(table, side, where) for side in SIDES), raw


def _hand(table: dict[str, npt.NDArray[Any]], side: str, where: str) -> DeviceHand:
    confidence = table[f"{side}_tracking_confidence"]
    if not ((confidence == -1) | ((confidence >= 0) & (confidence <= 1))).all():
        problem = (
            f"{side} confidence from {confidence.min()} to {confidence.max()}; expected -1 or 0..1"
        )
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    points = np.stack([table[name] for name in _landmark_columns(side)], axis=1)
    T_wrist = None
    if all(name in table for name in _wrist_columns(side)):
        rows = np.stack([table[name] for name in _wrist_columns(side)], axis=1)
        rows = np.where(confidence[:, None] >= 0, rows, np.array(_NO_POSE))
        T_wrist = poses_of_rows(rows, "quat_xyzw", f"{where}:{side} wrist")
    return DeviceHand(
        side=side,
        t_ns=table[TIME] * NS_PER_US,
        confidence=confidence,
        landmarks_m=points.reshape(-1, NUM_LANDMARKS, 3),
        T_device_wrist=T_wrist,
    )


def _landmark_columns(side: str) -> list[str]:
    return [f"t{a}_{side}_landmark_{k}_device" for k in range(NUM_LANDMARKS) for a in "xyz"]


def _wrist_columns(side: str) -> list[str]:
    names = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
    return [f"{name}_{side}_device_wrist" for name in names]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceTrajectory:
    """The headset in the world. `valid` is False where the row belongs to another world than most rows do."""

    t_ns: npt.NDArray[np.int64]  # device clock
    T_world_device: Array  # [N, 4, 4]
    valid: npt.NDArray[np.bool_]
    world_up: str | None

    def within(self, start_ns: int, end_ns: int) -> DeviceTrajectory | None:
        """The rows from just before `start_ns` to just after `end_ns`; None when they do not reach into that span."""
        first = max(int(np.searchsorted(self.t_ns, start_ns, "right")) - 1, 0)
        last = min(int(np.searchsorted(self.t_ns, end_ns, "left")) + 1, len(self.t_ns))
        if self.t_ns[first] > end_ns or self.t_ns[last - 1] < start_ns:
            return None
        return DeviceTrajectory(
            t_ns=self.t_ns[first:last],
            T_world_device=self.T_world_device[first:last],
            valid=self.valid[first:last],
            world_up=self.world_up,
        )


def read_trajectory(path: Path, where: str) -> tuple[DeviceTrajectory, RawFile]:
    """A `closed_loop_trajectory.csv`.

    Raises:
        SourceError: as `csv_columns` and `poses_of_rows`.
    """
    poses = [f"{name}_world_device" for name in ("tx", "ty", "tz", "qx", "qy", "qz", "qw")]
    gravity = [f"gravity_{axis}_world" for axis in "xyz"]
    columns = {TIME: INT} | dict.fromkeys(poses, FLOAT)
    optional = {"graph_uid": TEXT} | dict.fromkeys(gravity, FLOAT)
    table, raw = csv_columns(path, where, columns, optional=optional)
    rows = np.stack([table[name] for name in poses], axis=1)
    valid = np.ones(len(rows), dtype=bool)
    if "graph_uid" in table:
        names, index, counts = np.unique(
            table["graph_uid"].astype(str), return_inverse=True, return_counts=True
        )
        valid = index == int(np.argmax(counts)) if len(names) > 1 else valid
    up = None
    if all(name in table for name in gravity):
        up = _up(np.array([float(np.median(table[name])) for name in gravity]))
    return DeviceTrajectory(
        t_ns=table[TIME] * NS_PER_US,
        T_world_device=poses_of_rows(rows, "quat_xyzw", where),
        valid=valid,
        world_up=up,
    ), raw


def _up(gravity: Array) -> str | None:
    """The axis that gravity points away from; None where it lies along none."""
    size = float(np.linalg.norm(gravity))
    if size == 0:
        return None
    axis = int(np.argmax(np.abs(gravity)))
    if abs(gravity[axis]) < UPRIGHT * size:
        return None
    return f"{'-' if gravity[axis] > 0 else '+'}{'xyz'[axis]}"


# -- calibration ---------------------------------------------------------------------------------------------------

MAX_LINE_CHARS = 1 << 20  # a real line has 5,200
FISHEYE624 = "FisheyeRadTanThinPrism"
GEN1_CAMERA = "camera-slam-left"  # Gen2 calls its own slam-front-left
MIN_FIT = 0.4  # of width or height: where a principal point has to lie for a size to be believed


class _Projection(JsonRow):
    name: str = Field(alias="Name")
    params: tuple[float, ...] = Field(alias="Params", max_length=32)


class _AriaPose(JsonRow):
    translation: tuple[float, float, float] = Field(alias="Translation")
    unit_quat_wxyz: tuple[float, tuple[float, float, float]] = Field(alias="UnitQuaternion")


class _AriaCamera(JsonRow):
    label: str = Field(alias="Label", max_length=100)
    projection: _Projection = Field(alias="Projection")
    T_device_cam: _AriaPose = Field(alias="T_Device_Camera")


class _CalibrationLine(JsonRow):
    t_us: int = Field(alias="tracking_timestamp_us")
    cameras: tuple[_AriaCamera, ...] = Field(alias="CameraCalibrations", max_length=16)
    sizes: tuple[tuple[int, int], ...] = Field(alias="ImageSizes", default=())


def online_calibration(
    path: Path, root: Path, near_us: int | None = None
) -> tuple[dict[str, FisheyeCamera], RawFile]:
    """Label -> camera from the line nearest to `near_us` on the device clock, or the middle one.

    Raises:
        SourceError: MISSING_FILE, BAD_ANNOTATION (no such line), UNKNOWN_LAYOUT (another lens).
    """
    where = path.name
    raw = raw_file_of(path, root)
    times = [parsed.t_us for parsed in _lines(path, where)]
    if not times:
        raise SourceError(Code.BAD_ANNOTATION, "the file has no line", where=where)
    at = len(times) // 2
    if near_us is not None:
        at = min(range(len(times)), key=lambda k: abs(times[k] - near_us))
    line = next(parsed for k, parsed in enumerate(_lines(path, where)) if k == at)
    cameras = {}
    for k, stated in enumerate(line.cameras):
        if stated.projection.name != FISHEYE624:
            problem = f"{stated.label}: lens {stated.projection.name!r}; expected {FISHEYE624}"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        w, xyz = stated.T_device_cam.unit_quat_wxyz
        T_device_cam = rigid((w, *xyz), stated.T_device_cam.translation, where)
        size = line.sizes[k] if k < len(line.sizes) else None
        camera = fisheye_camera(stated.label, stated.projection.params, T_device_cam, size)
        cameras[stated.label] = camera
    return cameras, raw


def _lines(path: Path, where: str) -> Iterator[_CalibrationLine]:
    """One at a time: an hour of them is 500 MB."""
    try:
        with TextIOWrapper(open_regular(path, where=where), encoding="utf-8") as file:
            while text := file.readline(MAX_LINE_CHARS):
                if text.strip():
                    parsed = parse(_CalibrationLine, json_object(text, where))
                    if isinstance(parsed, Broken):
                        raise SourceError(Code.BAD_ANNOTATION, parsed.why, where=where)
                    yield parsed
    except UnicodeDecodeError as error:
        raise SourceError(Code.BAD_ANNOTATION, f"not UTF-8 text: {error}", where=where) from error


def is_gen1(cameras: Mapping[str, FisheyeCamera]) -> bool:
    """Gen1's RGB sensor is mounted on its side (projectaria_tools turns its pictures by 90 degrees clockwise to show them)."""
    return GEN1_CAMERA in cameras


def fits(camera: FisheyeCamera, size: tuple[int, int]) -> bool:
    """Whether the principal point lies near the middle of a picture of that size: a calibration may state no size itself."""
    return all(
        MIN_FIT * n < c < (1 - MIN_FIT) * n for c, n in zip(camera.K_cam[:2, 2], size, strict=True)
    )


def camera_name(label: str) -> str:
    """`camera-rgb` -> `rgb`, `slam-front-left` -> `slam_front_left`."""
    return label.removeprefix("camera-").replace("-", "_").lower()
