"""Contact sheets: pictures of a segment in reading order, the time of each in its corner, as JPEGs in memory.

Frame plan after captioning.md §2: two a second, at least 4, first and last always; tiles of 224 px; what is too long for one sheet goes on
several. One decode of the segment, and of nothing beyond its last picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ingest.video.source import decoded, open_video
from schemas.rate import NS_PER_S

Picture = npt.NDArray[np.uint8]
MIN_FRAMES = 4
GAP_PX, TEXT_SCALE = 2, 0.55
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetPlan:
    """How a contact sheet is laid out. Changing any of it changes the pictures, and so what is asked."""

    max_frames: int = 24  # of one sheet
    max_sheets: int = 5  # what is longer still is shown less densely
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
    num_due = math.ceil((end - start) / rate_hz * plan.rate_hz)
    count = min(max(num_due, MIN_FRAMES), plan.max_frames * plan.max_sheets, end - start)
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
        # the last pixels stay black: where pictures are alike, one would run into the next
        whole[top : top + height - GAP_PX, left : left + width - GAP_PX] = tile[:-GAP_PX, :-GAP_PX]
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
    text, font, scale = f"{time_s:.1f}s", cv2.FONT_HERSHEY_SIMPLEX, TEXT_SCALE
    (wide, high), low = cv2.getTextSize(text, font, scale, 1)
    cv2.rectangle(tile, (0, 0), (wide + 5, high + low + 3), _BLACK, cv2.FILLED)
    cv2.putText(tile, text, (3, high + 3), font, scale, _WHITE, 1, cv2.LINE_AA)
    return np.asarray(tile, dtype=np.uint8)


def sheets_of(
    pictures: Sequence[Picture], times_s: Sequence[float], plan: SheetPlan
) -> tuple[Sheet, ...]:
    """As few sheets as hold all pictures, about as many on each."""
    count = math.ceil(len(pictures) / plan.max_frames)
    edges = np.linspace(0, len(pictures), count + 1).round().astype(int).tolist()
    return tuple(sheet_of(pictures[a:b], times_s[a:b], plan) for a, b in pairwise(edges))


def digest_of(sheets: Sequence[Sheet]) -> str:
    """sha256 of one sheet, or of the digests of several; "" of none."""
    if len(sheets) == 1:
        return sheets[0].sha256
    return hashlib.sha256("".join(s.sha256 for s in sheets).encode()).hexdigest() if sheets else ""


def segment_sheets(
    path: Path, start: int, end: int, rate_hz: float, plan: SheetPlan
) -> tuple[tuple[Sheet, ...], list[Picture]]:
    """The sheets of timesteps [start, end) of a canonical video, and the pictures on them.

    Raises:
        SourceError: see `pictures_of`.
    """
    timesteps = timesteps_of(start, end, rate_hz, plan)
    pictures = pictures_of(path, timesteps, rate_hz)
    return sheets_of(pictures, [(k - start) / rate_hz for k in timesteps], plan), pictures


def segment_sheet(
    path: Path, start: int, end: int, rate_hz: float, plan: SheetPlan
) -> tuple[Sheet, list[Picture]]:
    """All of a segment on one sheet, however long it is; raises SourceError."""
    one = replace(plan, max_sheets=1)
    sheets, pictures = segment_sheets(path, start, end, rate_hz, one)
    return sheets[0], pictures
