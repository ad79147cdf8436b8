"""Videos, frames and contact sheets of an episode. A path is made from the catalog's row alone; a request gives only names to compare with."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2

from ingest.corpus.layout import video_file
from ingest.curation.captions.sheet import SheetPlan, segment_sheet
from ingest.video import h264_profile
from ingest.video.timestep_pictures import pictures_at
from jobs.service.errors import ApiError, not_here
from jobs.service.ranges import FileStamp
from schemas.av_options import open_video
from schemas.errors import Code, SourceError
from schemas.paths import OutsideCorpus, within
from schemas.regular_file import open_regular

BLOCK = 256 << 10
JPEG_QUALITY = 85
MAX_WIDTH = 2048
THUMBNAIL = SheetPlan(max_frames=8, tile_px=160, columns=4, jpeg_quality=72)


def video_path(corpus: Path, row: Mapping[str, Any], camera: str) -> Path:
    """Where the video of a camera of a catalog row lies.

    Raises:
        ApiError: 404, the episode has no such camera, or its path leads out of the corpus.
    """
    cameras = [each["name"] for each in named_cameras(row)]
    if camera not in cameras:
        have = ", ".join(cameras) or "none"
        raise not_here(f"no camera {camera[:200]!r}; the episode has {have}")
    if row["episode_index"] is None or not row["dataset_path"]:
        raise not_here("the episode has no place in a dataset")
    name = video_file(row["episode_index"], f"observation.images.{camera}")
    try:
        return within(corpus, f"{row['dataset_path']}/{name}")
    except OutsideCorpus as error:
        raise ApiError(404, Code.UNSAFE_PATH, error.message) from error


def open_video_file(path: Path) -> tuple[BinaryIO, FileStamp]:
    """The file, and what it is: from one open file, so that a file that is replaced in between is not mixed.

    Raises:
        ApiError: 404, it has gone or is no regular file.
    """
    try:
        file = open_regular(path, missing=Code.MISSING_VIDEO, buffering=0)
    except SourceError as error:
        raise ApiError(404, error.code, error.message, where=error.where) from error
    return file, stamp_of(file)


def stamp_of(file: BinaryIO) -> FileStamp:
    status = os.fstat(file.fileno())
    own = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    tag = hashlib.sha256(own.encode()).hexdigest()[:32]
    return FileStamp(size=status.st_size, etag=f'"{tag}"', modified_s=int(status.st_mtime))


@lru_cache(maxsize=4096)
def media_type(path: Path, etag: str) -> str:
    """What the file says of its codec, as a browser is asked whether it plays that. `etag`: of the file, another of which has another.

    A file that cannot be opened has the type of any MP4: the request itself is what fails then.
    """
    try:
        with open_video(path, format_name="mp4") as container:
            context = container.streams.video[0].codec_context
            return h264_profile.media_type(context.extradata if context.name == "h264" else None)
    except (SourceError, av.FFmpegError, OSError, IndexError):
        return h264_profile.media_type(None)


def blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """Bytes [start, end) of a file, which is closed at the end. Fewer if it was cut meanwhile: the connection then ends early."""
    with file:
        file.seek(start)
        left = end - start
        while left > 0 and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            yield block


def frame_jpeg(path: Path, timestep: int, rate_hz: float, width: int | None) -> bytes:
    """One frame, made smaller to `width` pixels.

    Raises:
        ApiError: 404, the video has gone, is damaged or has no such frame.
    """
    try:
        (picture,) = pictures_at(path, [timestep], rate_hz)
    except SourceError as error:
        raise ApiError(404, error.code, error.message, where=error.where) from error
    if width is not None and width < picture.shape[1]:
        height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    is_written, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert is_written  # an array of this type and size can always be written
    return data.tobytes()


def sheet_jpeg(path: Path, length: int, rate_hz: float) -> bytes:
    """Frames of a whole episode on one picture.

    Raises:
        ApiError: 404, the video has gone or is damaged.
    """
    try:
        sheet, _ = segment_sheet(path, 0, length, rate_hz, THUMBNAIL)
    except SourceError as error:
        raise ApiError(404, error.code, error.message, where=error.where) from error
    return sheet.jpeg


def named_cameras(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The cameras of a catalog row. A catalog that someone sent may hold NULL anywhere."""
    return [camera for camera in row["cameras"] or () if camera and camera["name"]]


def known_rate(row: Mapping[str, Any]) -> float | None:
    """Timesteps per second; None for a row without a length or a duration."""
    length, duration_s = row["length"], row["duration_s"]
    if not length or not duration_s or not math.isfinite(duration_s):
        return None
    return float(length / duration_s)


def rate_of(row: Mapping[str, Any]) -> float:
    """Timesteps per second.

    Raises:
        ApiError: 404, the catalog's row has no duration.
    """
    rate_hz = known_rate(row)
    if rate_hz is None or rate_hz <= 0:
        raise not_here("the episode has no duration")
    return rate_hz
