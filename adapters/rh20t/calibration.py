"""RH20T's npy files, and the calibrations of its cameras.

RH20T's npy files: most hold one pickled dict, a few a plain array. Rows of all cameras become one clock.

Calibrations of RH20T: where the cameras stood at some moment, for all scenes that name it.

    RH20T_cfgN/calib/{epoch ms}/intrinsics.npy   dict serial -> [3, 4], in pixels of 1280x720
                                extrinsics.npy   dict serial -> [[4, 4]], marker to camera
                                tcp.npy          pose of the tool in the base while calibrating, in the robot's own form
Source: `rh20t/rh20t_api:rh20t_api/{scene,configurations}.py` (code); whether L515 cameras (serials in f) have intrinsics of that
size is UNVERIFIED (a TODO in visualize.py). Scenes, human ones above all, name folders that were never released (issues 10
and 16): then the nearest EARLIER one is taken, and a fact says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.array_files import npy_array
from adapters.containers.restricted_pickle import load_npy_object
from adapters.containers.safe_path import inside
from adapters.rh20t.configurations import Configuration
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import (
    ROTATION_TOLERANCE,
    Array,
    inverse,
    rotation_error,
    rotmat_from_euler,
    rotmat_from_quat_wxyz,
    rotmat_from_rotvec,
    transform,
)
from schemas.regular_file import path_exists

# -- npy -----------------------------------------------------------------------------------------------------------

NS_PER_MS = 1_000_000
EARLIEST_MS, LATEST_MS = 10**12, 10**13  # 2001 to 2286: seconds and nanoseconds fall outside
MAX_ROWS = 1_000_000  # a day of ten cameras


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StampedSamples:
    """`ms` [N] int64 epoch milliseconds, strictly increasing; `values` [N, width] float64, NaN allowed."""

    ms: npt.NDArray[np.int64]
    values: Array

    def until(self, finish_ms: int | None, where: str) -> StampedSamples:
        """What was recorded up to and with `finish_ms`; all of it if none is stated.

        Raises:
            SourceError: EMPTY_EPISODE.
        """
        if finish_ms is None:
            return self
        kept = self.ms <= finish_ms
        if not kept.any():
            problem = f"its first row, at {self.ms[0]} ms, is after the end of the scene at {finish_ms} ms"
            raise SourceError(Code.EMPTY_EPISODE, problem, where=where)
        return StampedSamples(ms=self.ms[kept], values=self.values[kept])


def load_dict(path: Path, where: str) -> dict[Any, Any]:
    """The dict in an npy file; its pickle can build plain containers and arrays only.

    Raises:
        SourceError: MISSING_FILE, UNKNOWN_LAYOUT (something else than a dict), or as `load_npy_object`.
    """
    if not path_exists(path):
        raise SourceError(Code.MISSING_FILE, "it is missing; download it", where=where)
    value = load_npy_object(path)
    if not isinstance(value, dict):
        problem = f"the file contains a {type(value).__name__}; expected a dict"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return value


def stamps_ms(stamps: Any, where: str) -> npt.NDArray[np.int64]:
    """[N] int64 epoch milliseconds out of a list or array of them.

    Raises:
        SourceError: CORRUPT_RECORD (no whole numbers), UNKNOWN_LAYOUT (not in milliseconds), TOO_LARGE.
    """
    if not isinstance(stamps, (list, tuple, np.ndarray)) or len(stamps) > MAX_ROWS:
        problem = f"timestamps are a {type(stamps).__name__}; expected a list of at most {MAX_ROWS}"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    try:
        ms = np.asarray(stamps if len(stamps) else np.zeros(0, dtype=np.int64))
    except ValueError as error:
        raise SourceError(Code.CORRUPT_RECORD, f"stamps: {error}", where=where) from error
    if ms.ndim != 1 or ms.dtype.kind not in "iuf" or not np.array_equal(ms, np.round(ms)):
        problem = f"timestamps are {ms.dtype} {list(ms.shape)}; expected integer milliseconds"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    if ms.size and not EARLIEST_MS <= ms.min() <= ms.max() < LATEST_MS:
        problem = f"timestamps from {ms.min()} to {ms.max()}; expected milliseconds since 1970"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return ms.astype(np.int64)


def samples_of(rows: Iterable[tuple[Any, Any]], width: int, where: str) -> StampedSamples:
    """(stamp, values) of all cameras on one clock; of rows with one stamp the first is kept, as the robot has one state.

    `values` may have more than `width` elements: those beyond are not read.

    Raises:
        SourceError: EMPTY_EPISODE, CORRUPT_RECORD, SHAPE_MISMATCH, or as `stamps_ms`.
    """
    pairs = list(rows)
    if not pairs:
        raise SourceError(Code.EMPTY_EPISODE, "no rows", where=where)
    ms = stamps_ms([stamp for stamp, _ in pairs], where)
    try:
        values = np.array([np.asarray(v, dtype=np.float64)[:width] for _, v in pairs])
    except (ValueError, TypeError, IndexError) as error:
        raise SourceError(Code.CORRUPT_RECORD, f"rows: {error}", where=where) from error
    if values.shape != (len(ms), width):
        problem = f"rows have shape {list(values.shape)}; expected [{len(ms)}, at least {width}]"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    unique, first = np.unique(ms, return_index=True)
    return StampedSamples(ms=unique, values=values[first])


# -- calibration ---------------------------------------------------------------------------------------------------

API = "rh20t/rh20t_api:rh20t_api/scene.py"
FILES = ("intrinsics.npy", "extrinsics.npy", "tcp.npy")
MAX_TCP_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """One calibration folder, read when asked."""

    folder: Path
    where: str  # its name below the root
    is_named: bool  # by the scene itself; else it is the nearest earlier one
    intrinsics: Mapping[Any, Any]

    def K_cam(self, serial: str) -> Array | None:
        """[3, 3] in pixels of 1280x720, or None for a camera that was not calibrated."""
        if serial not in self.intrinsics:
            return None
        K = self._array(self.intrinsics[serial], f"intrinsics.npy:{serial}")
        if K.shape not in ((3, 4), (3, 3)) or not np.array_equal(K[2, :3], [0, 0, 1]):
            raise self._broken("not a camera matrix", f"intrinsics.npy:{serial}")
        if not np.isfinite(K).all() or K[0, 0] <= 0 or K[1, 1] <= 0:
            raise self._broken("the camera matrix has no focal length", f"intrinsics.npy:{serial}")
        return K[:, :3]

    def T_cam_marker(self) -> dict[str, Array]:
        """serial -> [4, 4]. Raises SourceError as `load_dict`, or CORRUPT_RECORD."""
        where = f"{self.where}/extrinsics.npy"
        poses = load_dict(self.folder / "extrinsics.npy", where)
        return {str(serial): self._pose(pose, str(serial)) for serial, pose in poses.items()}

    def T_base_tcp(self, robot: str) -> Array:
        """[4, 4] before alignment, metres; the raw form differs for each robot. Raises SourceError as `npy_array`."""
        raw = npy_array(
            self.folder / "tcp.npy", f"{self.where}/tcp.npy", max_bytes=MAX_TCP_BYTES
        ).reshape(-1)
        width = 6 if robot in ("Franka", "KUKA iiwa") else 7
        if raw.shape != (width,) or not np.isfinite(raw).all():
            raise self._broken(f"{raw.shape} for a {robot}; expected {width} numbers", "tcp.npy")
        if robot == "Franka":  # rotation vector of the flange, turned half round x
            R = rotmat_from_rotvec(raw[3:]) @ np.diag([1.0, -1.0, -1.0])
            return transform(R, raw[:3])
        if robot == "KUKA iiwa":  # millimetres, static x y z angles
            return transform(rotmat_from_euler(raw[3:], "xyz"), raw[:3] / 1000.0)
        if np.linalg.norm(raw[3:]) < ROTATION_TOLERANCE:
            raise self._broken("a quaternion of length 0", "tcp.npy")
        return transform(rotmat_from_quat_wxyz(raw[3:]), raw[:3])

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for name in FILES if path_exists(path := self.folder / name))

    @property
    def certainty(self) -> Certainty:
        return Certainty.CODE if self.is_named else Certainty.INFERRED

    def _pose(self, value: Any, serial: str) -> Array:
        T = self._array(value, f"extrinsics.npy:{serial}")
        T = T[0] if T.ndim == 3 and len(T) else T
        if T.shape != (4, 4) or not np.isfinite(T).all():
            raise self._broken(f"{T.shape}; expected [4, 4]", f"extrinsics.npy:{serial}")
        if rotation_error(T[:3, :3]) > ROTATION_TOLERANCE:
            raise self._broken("not a rotation", f"extrinsics.npy:{serial}")
        return T

    def _array(self, value: Any, name: str) -> Array:
        try:
            return np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._broken(f"not numbers: {error}", name) from error

    def _broken(self, problem: str, name: str) -> SourceError:
        return SourceError(Code.CORRUPT_RECORD, problem, where=f"{self.where}/{name}")


def find_calibration(root: Path, scene_folder: str, stated: int) -> tuple[Calibration | None, Fact]:
    """The calibration that the scene names (`stated`, -1 for none), or the nearest earlier one, and the fact about it.

    Raises:
        SourceError: as `load_dict`, or UNSAFE_PATH.
    """
    base = f"{scene_folder.rpartition('/')[0]}/calib".lstrip("/")
    folder = inside(root, base)
    numbers = [int(p.name) for p in folder.glob("*") if p.name.isascii() and p.name.isdigit()]
    earlier = [number for number in numbers if number <= stated]
    if not earlier:
        why = f"metadata.json names {stated}; none of calib/ is that or earlier"
        return None, fact("calibration", f"none: {why}", Certainty.VERIFIED, "files of this set")
    number = max(earlier)
    path = inside(root, base, str(number))
    for name in FILES:
        inside(root, base, str(number), name)  # a link may lead out
    calibration = Calibration(
        folder=path,
        where=f"{base}/{number}",
        is_named=number == stated,
        intrinsics=load_dict(path / "intrinsics.npy", f"{base}/{number}/intrinsics.npy"),
    )
    text = (
        f"{number}"
        if calibration.is_named
        else f"{number}, the nearest earlier one: {stated} is not there"
    )
    return calibration, fact("calibration", text, calibration.certainty, API)


def camera_frames(calibration: Calibration, setup: Configuration) -> dict[str, Array]:
    """serial -> T_base_cam [4, 4], base aligned, of the cameras that stand; those on the arm -> T_tcp_cam, tool aligned.

    The marker's frame cancels: T_base_cam = inv(E_k inv(E_inhand) T_cam_tcp inv(T_base_tcp) align_base), all at calibration.
    None where the first in-hand camera was not calibrated.
    """
    T_cam_marker = calibration.T_cam_marker()
    if setup.in_hand[0] not in T_cam_marker:
        return {}
    T_marker_tcp = inverse(T_cam_marker[setup.in_hand[0]]) @ setup.T_cam_tcp
    T_tcp_base = inverse(calibration.T_base_tcp(setup.robot))
    frames = {}
    for serial, T in T_cam_marker.items():
        T_cam_tcp = T @ T_marker_tcp
        is_in_hand = serial in setup.in_hand
        other = setup.T_tcp_aligned if is_in_hand else T_tcp_base @ setup.T_base_aligned
        frames[serial] = inverse(T_cam_tcp @ other)
    return frames
