"""A camera stored inside an HDF5 file: raw pictures stay there, compressed ones (one buffer per frame) are taken out.

Four ways are in use: uint8 [N, H, W, 3] (ALOHA, robomimic, LIBERO); the same as N flat buffers (some RoboMIND files); uint8
rows padded with zeros to one length (ALOHA with compression, `agilexrobotics/cobot_magic:collect_data/visualize_episodes.py`);
variable-length or fixed-length byte strings (RoboMIND, RoboTwin). Both JPEG and PNG end in a non-zero byte, so the padding is
known without a table of lengths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.images import image_header
from schemas.episode import ArrayFrames, Camera, EncodedImages
from schemas.errors import Code, SourceError
from schemas.geometry import Array

_NO_NAME = re.compile(r"[^a-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOrder:
    """Which of the two storage forms has blue where red belongs, and whether rows are bottom first."""

    array_is_bgr: bool = False
    encoded_is_bgr: bool = False
    is_upside_down: bool = False


def camera_name(text: str) -> str:
    """`text` in lower case letters, digits and _; SourceError UNKNOWN_LAYOUT when nothing is left."""
    name = _NO_NAME.sub("_", text.lower()).strip("_")
    if not name:
        raise SourceError(Code.UNKNOWN_LAYOUT, f"{text[:60]!r} is not a valid camera name")
    return name


def hdf5_camera(
    file: Hdf5File,
    key: str,
    name: str,
    t_ns: npt.NDArray[np.int64],
    *,
    colour: StorageOrder,
    K_cam: Array | None = None,
) -> Camera:
    """The dataset `key` as a camera whose picture k belongs to `t_ns[k]`; `K_cam` is in pixels of its pictures.

    Raises:
        SourceError: FRAME_COUNT (pictures and instants differ), UNKNOWN_LAYOUT (no pictures), CORRUPT_IMAGE, TOO_LARGE.
    """
    shape = file.picture_shape(key)
    where = f"{file.where}:{key}"
    if len(shape) not in (1, 2, 4):
        problem = f"shape {list(shape)}; expected images [N, H, W, 3] or N compressed images"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    if shape[0] != len(t_ns):
        problem = f"{shape[0]} images for {len(t_ns)} rows; expected one per row"
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    if len(shape) == 4:
        size = (shape[2], shape[1])
        frames: ArrayFrames | EncodedImages = ArrayFrames(
            path=str(file.path),
            key=key,
            num_frames=shape[0],
            is_bgr=colour.array_is_bgr,
            is_upside_down=colour.is_upside_down,
        )
    else:
        images = tuple(data.rstrip(b"\0") for data in file.blobs(key))
        headers = [image_header(data, f"{where}[{k}]") for k, data in enumerate(images)]
        size = (headers[0].width_px, headers[0].height_px)
        frames = EncodedImages(images=images, is_bgr=colour.encoded_is_bgr)
    return Camera(
        name=camera_name(name),
        frames=frames,
        t_ns=t_ns,
        K_cam=K_cam,
        K_size=None if K_cam is None else size,
    )
