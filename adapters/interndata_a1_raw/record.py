"""One InternData-A1 episode's LMDB: columns, picture keys and cameras.

One episode's LMDB as columns and picture keys. Every value is a pickle of plain data.

    meta_info.pkl    {num_steps, keys: {"images.rgb.<camera>": [b"images.rgb.<camera>/0000", ...], ...}, language_instruction,
                      detailed_language_instruction, ...}
    lmdb/data.mdb    one key per column, its value a list with one item a step; one key per picture, its value a JPEG as an array
        states.[left_|right_]{joint.position, gripper.position}, states.gripper.pose [6] (Franka), actions.* = the next state
        master_actions.[left_|right_]{joint.position, gripper.position, gripper.openness}, master_actions.gripper.pose (Franka)
        T_base_ee_fl, T_base_ee_fr, T_world_base | robot2env_pose, camera2env_pose.<camera>    4x4 each
        json_data    {"<camera>_camera_params": K 3x3}
Source: `InternRobotics/InternDataEngine:workflows/simbox/core/loggers/lmdb_logger.py` (the writer) and `policy/lmdb2lerobotv21/*`
(the reader, which expects robot2env_pose where the present writer has T_world_base; both are the robot's pose in the scene).

The cameras of one InternData-A1 episode: pictures, intrinsics and poses in the robot's base.

`camera2env_pose` is OpenGL (the camera looks along -z); turned by diag(1, -1, -1) it is OpenCV. T_base_cam = inverse(robot in the
scene) @ camera in the scene. Pictures are RGB arrays that were handed to an encoder that takes BGR (`lmdb_logger.py`), so red and
blue are swapped back. K is for the picture as stored, except that head parameters with cx >= 500 belong to 1280 pixels: the
converter halves them when it halves the picture. A picture of 640 pixels with such a K is therefore a halved one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.images import LazyImages, image_header
from adapters.containers.lmdb_store import LmdbReader, open_lmdb
from adapters.containers.restricted_pickle import load_pickle_file, loads
from schemas.episode import Camera, EncodedImages, Instruction, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse

# -- record --------------------------------------------------------------------------------------------------------

MIB = 1 << 20
MAX_COLUMN_BYTES = 256 * MIB
MAX_PICTURE_BYTES = 64 * MIB
MAX_META_BYTES = 64 * MIB
MAX_STEPS = 100_000
IMAGES = "images.rgb."
_KEY = re.compile(r"images\.rgb\.[A-Za-z0-9_]{1,64}/([0-9]{4,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """meta_info.pkl: `pictures` by camera, each the steps at which it has one."""

    num_steps: int
    pictures: Mapping[str, tuple[int, ...]]
    instruction: str
    detailed_instruction: str  # names the arm

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        """The short sentence, and the detailed one where it says more."""
        texts = {self.detailed_instruction: "summary", self.instruction: "task"}
        return tuple(Instruction(text=t, kind=kind) for t, kind in reversed(texts.items()) if t)


def read_meta(path: Path, where: str) -> Meta:
    """Raises SourceError: MISSING_FILE, UNSAFE_CONTENT, TRUNCATED, CORRUPT_RECORD, BAD_ANNOTATION, EMPTY_EPISODE."""
    meta = load_pickle_file(path, max_bytes=MAX_META_BYTES)
    keys = meta.get("keys") if isinstance(meta, dict) else None
    if not isinstance(keys, dict):
        problem = "no dictionary with `keys`; expected a file of the engine's LmdbLogger"
        raise SourceError(Code.BAD_ANNOTATION, problem, where=where)
    num_steps = meta.get("num_steps")
    if not isinstance(num_steps, int) or not 0 < num_steps <= MAX_STEPS:
        code = Code.EMPTY_EPISODE if num_steps == 0 else Code.BAD_ANNOTATION
        raise SourceError(code, f"invalid num_steps {str(num_steps)[:40]}", where=where)
    return Meta(
        num_steps=num_steps,
        pictures={
            str(key).removeprefix(IMAGES): _steps(names, num_steps, f"{where}:{key}")
            for key, names in keys.items()
            if str(key).startswith(IMAGES)
        },
        instruction=str(meta.get("language_instruction") or "").strip(),
        detailed_instruction=str(meta.get("detailed_language_instruction") or "").strip(),
    )


def _steps(names: Any, num_steps: int, where: str) -> tuple[int, ...]:
    """The step numbers at the end of picture keys.

    Raises:
        SourceError: BAD_ANNOTATION (no such key), FRAME_COUNT (beyond the last step, or not increasing).
    """
    steps = []
    for name in names if isinstance(names, list) else [names]:
        text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
        match = _KEY.fullmatch(text)
        if match is None:
            raise SourceError(
                Code.BAD_ANNOTATION, f"unexpected image key {text[:60]!r}", where=where
            )
        steps.append(int(match[1]))
    if any(b <= a for a, b in pairwise(steps)) or max(steps, default=0) >= num_steps:
        what = f"images up to step {max(steps)} for {num_steps} steps; expected increasing step numbers"
        raise SourceError(Code.FRAME_COUNT, what, where=where)
    return tuple(steps)


def column(reader: LmdbReader, key: str, shape: tuple[int, ...], num_rows: int) -> Array | None:
    """[num_rows, *shape] float64; None when there is no such key.

    Raises:
        SourceError: SHAPE_MISMATCH, TOO_LARGE, UNSAFE_CONTENT, TRUNCATED, CORRUPT_RECORD.
    """
    if key not in reader:
        return None
    where = f"{reader.where}:{key}"
    value = loads(reader.get(key, limit=MAX_COLUMN_BYTES), where=where)
    try:
        rows = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SourceError(Code.SHAPE_MISMATCH, f"not a table: {error}", where=where) from error
    if rows.shape == (num_rows,) and shape == (1,):
        rows = rows[:, None]
    if rows.shape != (num_rows, *shape):
        problem = f"{list(rows.shape)}; expected {[num_rows, *shape]}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    return rows


def required_column(reader: LmdbReader, key: str, shape: tuple[int, ...], num_rows: int) -> Array:
    """As `column`; raises SourceError MISSING_CHANNEL when there is no such key."""
    rows = column(reader, key, shape, num_rows)
    if rows is None:
        problem = "no such key; expected a file of the engine's LmdbLogger"
        raise SourceError(Code.MISSING_CHANNEL, problem, where=f"{reader.where}:{key}")
    return rows


def json_data(reader: LmdbReader) -> dict[str, Any]:
    """The pickled dictionary of camera parameters; empty when there is none, or it is none."""
    if "json_data" not in reader:
        return {}
    data = reader.get("json_data", limit=MAX_COLUMN_BYTES)
    value = loads(data, where=f"{reader.where}:json_data")
    return value if isinstance(value, dict) else {}


def picture(reader: LmdbReader, key: str) -> bytes:
    """The JPEG of a picture key, which is pickled as an array of bytes.

    Raises:
        SourceError: MISSING_CHANNEL, TOO_LARGE, UNSAFE_CONTENT, CORRUPT_IMAGE (no bytes in the pickle).
    """
    where = f"{reader.where}:{key}"
    data = reader.get(key, limit=MAX_PICTURE_BYTES)
    value = loads(data, where=where, max_bytes=MAX_PICTURE_BYTES)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        return value.tobytes()
    if isinstance(value, bytes):
        return value
    problem = f"a pickled {type(value).__name__}; expected JPEG bytes"
    raise SourceError(Code.CORRUPT_IMAGE, problem, where=where)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """Reads one picture of an environment that was checked when the episode was loaded, and is closed again."""

    folder: Path
    where: str

    def __call__(self, key: str) -> bytes:
        with open_lmdb(self.folder, self.where) as reader:
            return picture(reader, key)


# -- cameras -------------------------------------------------------------------------------------------------------

GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])
FULL_WIDTH_CX = 500.0


def cameras_of(
    reader: LmdbReader,
    folder: Path,
    meta: Meta,
    params: dict[str, Any],
    t_ns: npt.NDArray[np.int64],
) -> Iterator[Camera]:
    """Raises SourceError: FRAME_COUNT (a camera without pictures), MISSING_CHANNEL (a picture that is not there), CORRUPT_IMAGE."""
    for name, steps in meta.pictures.items():
        keys = [f"{IMAGES}{name}/{step:04d}" for step in steps]
        for key in keys:
            if key not in reader:
                raise SourceError(
                    Code.MISSING_CHANNEL, "no such image", where=f"{reader.where}:{key}"
                )
        if not keys:
            raise SourceError(Code.FRAME_COUNT, "no images", where=f"{reader.where}:{IMAGES}{name}")
        head = image_header(picture(reader, keys[0]), f"{reader.where}:{keys[0]}")
        K, K_size = _intrinsics(params, name, (head.width_px, head.height_px))
        images = LazyImages(keys, StoredImage(folder=folder, where=reader.where))
        frames = EncodedImages(images=images, is_bgr=True)
        yield Camera(
            name=name.lower(), frames=frames, t_ns=t_ns[list(steps)], K_cam=K, K_size=K_size
        )


def camera_poses(reader: LmdbReader, meta: Meta, t_ns: npt.NDArray[np.int64]) -> Iterator[Stream]:
    """`T_base_cam.<camera>` of those that state it. Raises SourceError: SHAPE_MISMATCH, NOT_FINITE, NOT_A_ROTATION."""
    T_env_robot = column(reader, "robot2env_pose", (4, 4), meta.num_steps)
    if T_env_robot is None:
        T_env_robot = column(reader, "T_world_base", (4, 4), meta.num_steps)
    if T_env_robot is None:
        return
    for name, steps in meta.pictures.items():
        T_env_cam = column(reader, f"camera2env_pose.{name}", (4, 4), len(steps))
        if T_env_cam is not None:
            values = inverse(T_env_robot[list(steps)]) @ T_env_cam @ GL_TO_CV
            spec = pose_channel(f"T_base_cam.{name.lower()}")
            yield Stream(spec=spec, t_ns=t_ns[list(steps)], values=values)


def _intrinsics(
    params: dict[str, Any], name: str, size_px: tuple[int, int]
) -> tuple[Array | None, tuple[int, int] | None]:
    """K and the size it is for; none where it is not stated or its centre lies outside of the picture."""
    value = params.get(f"{name}_camera_params", params.get(f"{name}_camera_intrinsics"))
    try:
        K = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None, None
    if K.shape != (3, 3) or not np.isfinite(K).all() or K[0, 0] <= 0:
        return None, None
    is_halved = name == "head" and K[0, 2] >= FULL_WIDTH_CX and size_px[0] == 640
    size = (2 * size_px[0], 2 * size_px[1]) if is_halved else size_px
    is_inside = 0 < K[0, 2] < size[0] and 0 < K[1, 2] < size[1]
    return (K, size) if is_inside else (None, None)
