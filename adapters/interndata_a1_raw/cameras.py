"""The cameras of one InternData-A1 episode: pictures, intrinsics and poses in the robot's base.

`camera2env_pose` is OpenGL (the camera looks along -z); turned by diag(1, -1, -1) it is OpenCV. T_base_cam = inverse(robot in the
scene) @ camera in the scene. Pictures are RGB arrays that were handed to an encoder that takes BGR (`lmdb_logger.py`), so red and
blue are swapped back. K is for the picture as stored, except that head parameters with cx >= 500 belong to 1280 pixels: the
converter halves them when it halves the picture. A picture of 640 pixels with such a K is therefore a halved one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adapters.containers.image_header import image_header
from adapters.containers.lazy_pictures import LazyPictures
from adapters.containers.lmdb_store import LmdbReader
from adapters.interndata_a1_raw.record import IMAGES, Meta, StoredPicture, column, picture
from schemas.episode import Camera, EncodedImages, Stream, pose_channel
from schemas.errors import Code, SourceError
from schemas.geometry import Array, inverse

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
        images = LazyPictures(keys, StoredPicture(folder=folder, where=reader.where))
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
