"""A part of a canonical video as a video of its own, whose picture k is at exactly k / rate: as cheaply as is exact.

The whole video is copied as a file, by reference where the file system can. A part that begins at a keyframe and needs no later picture is
copied as packets. Any other part is decoded and encoded again at the same size.
"""

from __future__ import annotations

import fcntl
import hashlib
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from ingest.video.copy import copy_packets, copy_plan
from ingest.video.source import open_video, span_times
from ingest.video.truncation import VideoFile
from schemas.episode import Camera, VideoSpan
from schemas.errors import Code, SourceError
from schemas.rate import instants_ns

# Finer than the recipe's, because it is the second time; no picture of a corpus is larger.
AGAIN = VideoSettings(short_side_px=4096, crf=18)
_FICLONE = 0x40049409  # linux/fs.h: a copy that shares its blocks until one of the files changes
_PIECE = 1 << 20


class CutBy(StrEnum):
    """How a part of a video was written."""

    FILE = "file_copied"
    PACKETS = "packets_copied"
    ENCODED = "encoded_again"


def cut_video(
    source: Path,
    first: int,
    num_pictures: int,
    total: int,
    out: Path,
    *,
    rate_hz: Fraction,
    sha256: str,
) -> CutBy:
    """Write pictures [first, first + num_pictures) of `source`, which has `total`, to `out`. The caller makes it durable.

    Args:
        sha256: of the source as it was committed; a whole copy is checked against it.

    Raises:
        SourceError: the source is missing, damaged, or of another content.
        TransientError: `out` could not be written.
    """
    if num_pictures == total:
        if _copied_file(source, out) != sha256:
            raise SourceError(
                Code.CORRUPT_VIDEO, "not the file that was committed", where=str(source)
            )
        return CutBy.FILE
    with open_video(str(source)) as video:
        times_ns = span_times(video, first, num_pictures)
    file = VideoFile(path=str(source))
    plan = copy_plan(file, times_ns, rate_hz=rate_hz, gop=total)
    if plan is not None:
        copy_packets(file, times_ns, plan, out, rate_hz)
        return CutBy.PACKETS
    grid_ns = instants_ns(num_pictures, rate_hz)
    span = VideoSpan(path=str(source), first_frame=first, num_frames=num_pictures)
    camera = Camera(name="export", frames=span, t_ns=grid_ns)
    write_video(camera, frame_clock(camera), np.asarray(grid_ns), out, AGAIN, rate_hz=rate_hz)
    return CutBy.ENCODED


def check_committed(source: Path, sha256: str) -> None:
    """Consecutive parts of one video read it once.

    Raises:
        SourceError: the source is missing, or of another content.
    """
    try:
        facts = source.stat()
        digest = _sha256(source, facts.st_size, facts.st_mtime_ns)
    except FileNotFoundError as error:
        raise SourceError(Code.MISSING_VIDEO, "the file is missing", where=str(source)) from error
    if digest != sha256:
        raise SourceError(Code.CORRUPT_VIDEO, "not the file that was committed", where=str(source))


@lru_cache(maxsize=16)  # the cameras of one episode
def _sha256(source: Path, _num_bytes: int, _changed_ns: int) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copied_file(source: Path, out: Path) -> str:
    """The sha256 of what was copied."""
    digest = hashlib.sha256()
    try:
        read = source.open("rb")
    except FileNotFoundError as error:
        raise SourceError(Code.MISSING_VIDEO, "the file is missing", where=str(source)) from error
    with read, out.open("wb") as written:
        try:
            fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
            is_shared = True
        except OSError:
            is_shared = False
        while piece := read.read(_PIECE):
            digest.update(piece)
            if not is_shared:
                written.write(piece)
    return digest.hexdigest()
