"""UMI replay buffers: which a folder holds, the rows of an episode, and the facts about their conventions.

Which replay buffers a folder holds, and what they are called.

The rows of one UMI replay buffer: which belong to an episode, and what they say about each hand-held gripper.

    meta/episode_ends [E] int64       cumulative: episode e is rows [ends[e - 1], ends[e])
    data/robot<i>_eef_pos [N, 3], _eef_rot_axis_angle [N, 3]     m, rotation vector; TCP in the table tag's frame, z up
    data/robot<i>_gripper_width [N, 1]                           m, wide = open
    data/camera<i>_rgb [N, H, W, 3] uint8, one JPEG XL chunk a picture
With two grippers robot0 is the RIGHT one and robot1 the left (`real-stanford/universal_manipulation_interface:
scripts_slam_pipeline/06_generate_dataset_plan.py`, "right=0; left=1"). Nothing is commanded: a person held the gripper.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adapters.containers.listing import natural_key
from adapters.containers.raw_file import raw_file_of, raw_record
from adapters.containers.safe_path import inside
from adapters.containers.zarr_array import zarr_array
from adapters.containers.zarr_store import MIB, SUFFIXES, ZarrStore, is_store, looks_like_store
from schemas.episode import ArrayFrames, Camera, RawFile, Stream, gripper_channel, pose_channel
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.geometry import Array, rotmat_from_rotvec, transform
from schemas.regular_file import file_stamp

# -- stores --------------------------------------------------------------------------------------------------------


def store_names(root: Path) -> list[str]:
    """Stores at or below `root`, relative, in natural order; a store's own folders are not walked."""
    if is_store(root):
        return ["."]
    store_paths = []
    for folder, names, files in os.walk(root):
        stores = [n for n in names if n.endswith(SUFFIXES) and looks_like_store(Path(folder, n))]
        names[:] = [n for n in names if n not in stores]
        stores += [n for n in files if n.endswith(".zarr.zip")]
        store_paths += [Path(folder, n).relative_to(root).as_posix() for n in stores]
    return sorted(store_paths, key=natural_key)


def store_at(root: Path, name: str) -> ZarrStore:
    return ZarrStore(path=inside(root, name), where=name if name != "." else root.name)


def is_umi(store: ZarrStore) -> bool:
    """A store that does not open counts as UMI: discovery lists it with what is wrong."""
    try:
        return store.get("data/robot0_eef_pos/.zarray") is not None
    except SourceError:
        return True


def store_id(root: Path, name: str) -> str:
    """The store's path without its suffix; a store given directly is known by its own name."""
    text = root.name if name == "." else name
    return text.removesuffix(".zip").removesuffix(".zarr")


def raw_file_of_store(store: ZarrStore, root: Path) -> RawFile:
    """The zip, or for a folder its table of episodes, which changes with every episode added or dropped."""
    if store.path.is_file():
        return raw_file_of(store.path, root, in_parts=True)
    data = store.get("meta/episode_ends/0") or b""
    return raw_record(f"{store.where}/meta/episode_ends/0", data)


# -- buffer --------------------------------------------------------------------------------------------------------

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
    return _max_width_m(
        store, robot, file_stamp(stored, missing=Code.MISSING_CHANNEL, in_parts=True)
    )


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


# -- facts ---------------------------------------------------------------------------------------------------------

PLAN = "real-stanford/universal_manipulation_interface:scripts_slam_pipeline/06_generate_dataset_plan.py"


def facts_of(store: ZarrStore, sides: Mapping[str, int], locator: Mapping[str, str]) -> list[Fact]:
    stated = "rate_hz" in locator
    how, source = (
        (Certainty.DOCUMENTED, "the caller's option") if stated else (Certainty.CODE, PLAN)
    )
    widths = ", ".join(f"{s} {max_width_m(store, r):.4f} m" for s, r in sides.items())
    scale = f"width / widest in the store: {widths}"
    facts = [
        fact("rate", str(locator.get("rate_hz", RATE_HZ)), how, source, for_actions=True),
        fact("eef_rotation_form", "rotation vector", Certainty.CODE, PLAN, for_actions=True),
        fact("eef_frame", "TCP in the table tag's frame", Certainty.CODE, PLAN, for_actions=True),
        fact("gripper_polarity", "wide is open", Certainty.CODE, PLAN, for_actions=True),
        # A wrong scale shifts the opening by a constant factor; which end is open stays right.
        fact("gripper_scale", scale, Certainty.INFERRED, "maximum of this store"),
        fact("action_kind", "achieved: nothing is commanded", Certainty.CODE, PLAN),
    ]
    if len(sides) == 2:
        facts.append(fact("sides", "robot0 is right, robot1 is left", Certainty.CODE, PLAN))
    return facts
