"""Cameras of one RLDS episode: real ones as compressed pictures, empty slots left out with a fact that says so.

Bridge fills unused camera slots with one black 691-byte JPEG for every step, and its `has_image_k` flags are 0 even for
real cameras (seen on 25 real episodes): so the pixels are tested, not the flag.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from adapters.containers.rlds_steps import Steps
from adapters.oxe.registry import CameraEntry, OxeSet
from schemas.episode import Camera, EncodedImages
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact

COLOUR_SPREAD = 8  # grey levels of 255: a picture within this of one colour shows nothing
LOOKED_AT = 4  # distinct pictures decoded before a camera may be called empty


def cameras_of(
    steps: Steps, entry: OxeSet, t_ns: npt.NDArray[np.int64]
) -> tuple[tuple[Camera, ...], tuple[Fact, ...]]:
    """The rgb cameras this set declares and this episode really has, and one fact for each left out.

    Raises:
        SourceError: FRAME_COUNT, CORRUPT_IMAGE or TOO_LARGE, as `Steps.images`.
    """
    cameras, facts = [], []
    for camera in entry.cameras:
        if f"steps/{camera.key}" not in steps.leaves:
            continue
        reason = None if steps.has(camera.key) else "the record has no such leaf"
        images: tuple[bytes, ...] = ()
        if reason is None:
            images = steps.images(camera.key)
            reason = emptiness(images, camera.key)
        if reason is not None:
            facts.append(_left_out(camera, reason))
            continue
        frames = EncodedImages(images=images, is_bgr=camera.is_bgr)
        cameras.append(Camera(name=camera.name, frames=frames, t_ns=t_ns))
    return tuple(cameras), tuple(facts)


def emptiness(images: tuple[bytes, ...], where: str) -> str | None:
    """Why a camera shows nothing, or None when it shows something.

    Raises:
        SourceError: CORRUPT_IMAGE when a picture that must be looked at does not decode.
    """
    distinct = sorted(set(images))
    colours = []
    for data in distinct[:LOOKED_AT]:
        picture = decoded(data, where)
        low, high = picture.min(axis=(0, 1)), picture.max(axis=(0, 1))
        if (high.astype(int) - low).max() > COLOUR_SPREAD:
            return None
        colours.append(tuple(int(c) for c in picture[0, 0][::-1]))
    if len(distinct) > LOOKED_AT:  # pictures that vary are worth keeping, dark or not
        return None
    sizes = sorted({len(data) for data in distinct})
    return f"one colour in every step (RGB {colours[0]}, {len(distinct)} distinct, {sizes} bytes)"


def decoded(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 in OpenCV's BGR; its size was bounded when the header was read. Raises SourceError CORRUPT_IMAGE."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(Code.CORRUPT_IMAGE, f"does not decode: {error}", where=where) from error
    if picture is None:
        raise SourceError(
            Code.CORRUPT_IMAGE, f"an image of {len(data)} bytes does not decode", where=where
        )
    return np.asarray(picture, dtype=np.uint8)


def _left_out(camera: CameraEntry, reason: str) -> Fact:
    return Fact(
        name=f"camera_left_out.{camera.name}",
        value=reason,
        certainty=Certainty.VERIFIED,
        source="measured on this episode's pictures",
        is_for_actions=False,
    )
