"""Tables of Aria's machine perception services: tracked hands and the headset's trajectory.

`hand_tracking_results.csv`: `tracking_timestamp_us` (device clock), per side a confidence (-1: no hand), 21 landmarks and, but
for the first version, the wrist's pose, all in the DEVICE frame, metres, quaternion x y z w. `closed_loop_trajectory.csv`:
T_world_device at about 1 kHz, `graph_uid` (one world each), gravity. Verified on real Gen1 tables: landmark 5 is the wrist,
the wrist normal is -y of the wrist pose, the palm normal (pinky - wrist) x (index - wrist), negated for the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.csv_columns import FLOAT, INT, TEXT, csv_columns
from adapters.containers.pose_rows import poses_of_rows
from schemas.episode import SIDES, RawFile
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse
from schemas.hand_track import HandTrack

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
