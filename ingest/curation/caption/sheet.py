"""A contact sheet: some pictures of a segment in reading order, the time of each in its corner, as one JPEG in memory.

Frame plan after captioning.md §2: two a second, at least 4, first and last always; tiles of 224 px. One decode of the segment, and of
nothing beyond its last picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ingest.video_source import decoded, open_video
from schemas.rate import NS_PER_S

Picture = npt.NDArray[np.uint8]
MIN_FRAMES = 4
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetPlan:
    """How a contact sheet is laid out. Changing any of it changes the pictures, and so what is asked."""

    max_frames: int = 24
    rate_hz: float = 2.0
    tile_px: int = 224  # longer side of a tile
    columns: int = 5
    jpeg_quality: int = 85


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """`times_s` are seconds from the start of the segment, as printed."""

    jpeg: bytes
    sha256: str
    times_s: tuple[float, ...]


def timesteps_of(start: int, end: int, rate_hz: float, plan: SheetPlan) -> list[int]:
    """Timesteps of [start, end) to show: first and last always, the rest uniform between them, none twice."""
    wanted = math.ceil((end - start) / rate_hz * plan.rate_hz)
    count = min(max(wanted, MIN_FRAMES), plan.max_frames, end - start)
    spread = np.linspace(start, end - 1, count).round().astype(int)
    return [int(k) for k in np.unique(spread)]


def pictures_of(path: Path, timesteps: Sequence[int], rate_hz: float) -> list[Picture]:
    """The pictures [H, W, 3] BGR of ascending timesteps of a canonical video, decoded once.

    Raises:
        SourceError: the file is missing or damaged, or has no such picture.
    """
    wanted_ns = np.asarray([round(k * NS_PER_S / rate_hz) for k in timesteps], dtype=np.int64)
    with open_video(str(path), num_threads=1) as video:
        return [
            np.asarray(frame.to_ndarray(format="bgr24"), dtype=np.uint8)
            for frame in decoded(video, wanted_ns)
        ]


def sheet_of(pictures: Sequence[Picture], times_s: Sequence[float], plan: SheetPlan) -> Sheet:
    """Lay pictures out as a sheet. Same pictures, same times, same bytes."""
    tiles = [_tile(picture, time, plan) for picture, time in zip(pictures, times_s, strict=True)]
    columns = min(plan.columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    height, width = tiles[0].shape[:2]
    whole = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for k, tile in enumerate(tiles):
        top, left = k // columns * height, k % columns * width
        whole[top : top + height, left : left + width] = tile
    is_written, data = cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, plan.jpeg_quality])
    assert is_written  # an array of this type and size can always be written
    jpeg = data.tobytes()
    return Sheet(jpeg=jpeg, sha256=hashlib.sha256(jpeg).hexdigest(), times_s=tuple(times_s))


def _tile(picture: Picture, time_s: float, plan: SheetPlan) -> Picture:
    height, width = picture.shape[:2]
    scale = plan.tile_px / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    shrinks = scale < 1
    tile = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    text, at, font = f"{time_s:.1f}s", (4, 14), cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(tile, text, at, font, 0.45, _BLACK, 3, cv2.LINE_AA)
    cv2.putText(tile, text, at, font, 0.45, _WHITE, 1, cv2.LINE_AA)
    return np.asarray(tile, dtype=np.uint8)


def segment_sheet(
    path: Path, start: int, end: int, rate_hz: float, plan: SheetPlan
) -> tuple[Sheet, list[Picture]]:
    """The sheet of timesteps [start, end) of a canonical video, and the pictures on it.

    Raises:
        SourceError: see `pictures_of`.
    """
    timesteps = timesteps_of(start, end, rate_hz, plan)
    pictures = pictures_of(path, timesteps, rate_hz)
    return sheet_of(pictures, [(k - start) / rate_hz for k in timesteps], plan), pictures
