"""The rows of one UMI replay buffer: which belong to an episode, and what they say about each hand-held gripper.

    meta/episode_ends [E] int64       cumulative: episode e is rows [ends[e - 1], ends[e])
    data/robot<i>_eef_pos [N, 3], _eef_rot_axis_angle [N, 3]     m, rotation vector; TCP in the table tag's frame, z up
    data/robot<i>_gripper_width [N, 1]                           m, wide = open
    data/camera<i>_rgb [N, H, W, 3] uint8, one JPEG XL chunk a picture
With two grippers robot0 is the RIGHT one and robot1 the left (`real-stanford/universal_manipulation_interface:
scripts_slam_pipeline/06_generate_dataset_plan.py`, "right=0; left=1"). Nothing is commanded: a person held the gripper.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from adapters.containers.zarr_array import zarr_array
from adapters.containers.zarr_store import MIB, ZarrStore
from schemas.episode import ArrayFrames, Camera, Stream, gripper_channel, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, rotmat_from_rotvec, transform
from schemas.regular_file import file_stamp

RATE_HZ = Fraction(60000, 1001)  # GoPro; every picture has a row
MAX_CAMERAS = 8
MAX_WIDTH_M = 1.0  # a gripper of the size of a person is millimetres or damage
WIDTH = "data/robot{}_gripper_width"


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferRows:
    """Rows [start, stop) of a store."""

    store: ZarrStore
    start: int
    stop: int
    t_ns: npt.NDArray[np.int64]


def episode_ends(store: ZarrStore) -> npt.NDArray[np.int64]:
    """[E] cumulative row counts.

    Raises:
        SourceError: MISSING_CHANNEL, CORRUPT_RECORD (not increasing, or beyond the rows that there are).
    """
    array = zarr_array(store, "meta/episode_ends")
    if array.dtype.kind not in "iu" or len(array.shape) != 1:
        problem = f"{array.dtype} {list(array.shape)}; expected [E] integers"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=array.where)
    ends = array.read(0, array.shape[0]).astype(np.int64)
    num_rows = zarr_array(store, "data/robot0_eef_pos").shape[0]
    if np.any(np.diff(ends, prepend=0) <= 0) or (len(ends) and ends[-1] > num_rows):
        problem = f"{len(ends)} episode ends up to {ends.max(initial=0)} for {num_rows} rows; expected increasing ends"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=array.where)
    return np.asarray(ends, dtype=np.int64)


def sides_of(store: ZarrStore) -> dict[str, int]:
    """Side -> robot number: a single gripper is `left`; of two, robot0 is the right one.

    Raises:
        SourceError: UNKNOWN_LAYOUT for none or more than two.
    """
    count = sum(
        store.get(f"data/robot{k}_eef_pos/.zarray", max_bytes=MIB) is not None for k in range(3)
    )
    if count not in (1, 2):
        problem = f"{count} of robot0 .. robot2 have eef_pos; expected one or two"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=store.where)
    return {"left": 0} if count == 1 else {"left": 1, "right": 0}


def motion_streams(rows: BufferRows, sides: dict[str, int]) -> Iterator[Stream]:
    """Pose and opening of each gripper; raises SourceError as `_read`, NOT_FINITE, UNKNOWN_LAYOUT (no width in metres)."""
    for side, robot in sides.items():
        xyz_m = _read(rows, f"data/robot{robot}_eef_pos", 3)
        key = f"data/robot{robot}_eef_rot_axis_angle"
        rotvec = _read(rows, key, 3)
        if not np.isfinite(rotvec).all():
            raise SourceError(Code.NOT_FINITE, "NaN or infinity", where=f"{rows.store.where}:{key}")
        T = transform(rotmat_from_rotvec(rotvec), xyz_m)
        yield Stream(spec=pose_channel(f"{side}.T_base_eef"), t_ns=rows.t_ns, values=T)
        width_m = _read(rows, f"data/robot{robot}_gripper_width", 1)
        opening = np.clip(width_m / max_width_m(rows.store, robot), 0.0, 1.0)
        spec = gripper_channel(f"{side}.gripper_opening", binary=False)
        yield Stream(spec=spec, t_ns=rows.t_ns, values=opening)


def max_width_m(store: ZarrStore, robot: int) -> float:
    """The widest that this gripper was in the whole store: what counts as open.

    Raises:
        SourceError: UNKNOWN_LAYOUT when no width is positive, or one is no width in metres.
    """
    stored = store.path
    if stored.is_dir():
        stored = stored / WIDTH.format(robot) / ".zarray"
    return _max_width_m(store, robot, file_stamp(stored, missing=Code.MISSING_CHANNEL))


@lru_cache(maxsize=16)
def _max_width_m(store: ZarrStore, robot: int, stamp: tuple[int, ...]) -> float:
    """`stamp` only keys the cache: a worker asks once per episode."""
    array = zarr_array(store, WIDTH.format(robot))
    width_m = float(np.nanmax(array.read(0, array.shape[0]), initial=0.0))
    if not 0.0 < width_m <= MAX_WIDTH_M:
        problem = f"the widest opening is {width_m:g}; expected metres"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=array.where)
    return width_m


def cameras_of(rows: BufferRows) -> Iterator[Camera]:
    """`camera<i>` by its number in the store; raises SourceError FRAME_COUNT, UNKNOWN_LAYOUT (another codec)."""
    for number in range(MAX_CAMERAS):
        key = f"data/camera{number}_rgb"
        if rows.store.get(f"{key}/.zarray", max_bytes=MIB) is None:
            continue
        array = zarr_array(rows.store, key)
        if array.shape[0] < rows.stop:
            problem = f"{array.shape[0]} images; the episode ends at row {rows.stop}"
            raise SourceError(Code.FRAME_COUNT, problem, where=array.where)
        frames = ArrayFrames(
            path=str(rows.store.path),
            key=key,
            first_frame=rows.start,
            num_frames=rows.stop - rows.start,
            container="zarr",
        )
        yield Camera(name=f"camera{number}", frames=frames, t_ns=rows.t_ns)


def _read(rows: BufferRows, key: str, width: int) -> Array:
    """[T, width] float64; SourceError as `zarr_array` and `ZarrArray.read`, or SHAPE_MISMATCH."""
    array = zarr_array(rows.store, key)
    if array.shape[1:] != (width,) or array.shape[0] < rows.stop or array.dtype.kind != "f":
        problem = (
            f"{array.dtype} {list(array.shape)}; expected floats [at least {rows.stop}, {width}]"
        )
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=array.where)
    return array.read(rows.start, rows.stop).astype(np.float64)
