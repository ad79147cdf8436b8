"""RoboMIND cameras: one buffer per picture inside the file, JPEG or, in a few files, raw.

    observations/rgb_images/<camera> [N] variable-length uint8; [N, H, W, 3] where attribute `compress` is False
A camera may be absent (675 Franka episodes have no top one) and sizes are mixed, so intrinsics go with a picture of their
own size only. Not read: observations/depth_images.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5 import Hdf5File
from adapters.containers.hdf5_camera import StorageOrder, hdf5_camera
from adapters.containers.image_header import image_header
from adapters.robomind.bodies import Body, Lens
from adapters.robomind.facts import SITE
from schemas.episode import Camera, EncodedImages
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact, fact
from schemas.rate import instants_ns

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
