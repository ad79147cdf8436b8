"""Time span, rate and frame times of a video file; nothing is decoded.

`video_header` reads the header only: a long video is cut into hundreds of episodes, and going through its packets for each of them
would read it hundreds of times. `count_frames` and `frame_times_ns` go through the packets.

In MP4 and Matroska one packet of H.264, HEVC, AV1 or VP9 is one shown picture (AV1 packs hidden frames into the temporal
unit of the shown one). Packets that an edit list discards are not shown and not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import numpy.typing as npt

from adapters.containers.raw_file import RangeReader
from schemas.av_options import open_video
from schemas.errors import Code, SourceError, system_error_text
from schemas.regular_file import check_regular, is_in_parts

# -- video header --------------------------------------------------------------------------------------------------

MICROSECONDS_PER_S = 1_000_000
# libavformat decodes the first pictures of every file it opens (43 ms for 1080p) unless no codec may look.
NO_CODEC = {"codec_whitelist": "none"}


def unreadable_video(error: Exception, name: str) -> SourceError:
    """What libav or the operating system refused, as the quarantine reason of a video."""
    problem = f"not a readable video: {system_error_text(error, name)}; download the file again"
    return SourceError(Code.CORRUPT_VIDEO, problem, where=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHeader:
    """[start_s, end_s) of the first video stream in container PTS, and its average rate."""

    start_s: Fraction
    end_s: Fraction
    rate_hz: Fraction


def video_header(path: Path, byte_range: tuple[int, int] | None = None) -> VideoHeader:
    """Read the header of a video file, or of its bytes [start, end). Nothing is decoded and no packet is counted.

    Raises:
        SourceError: MISSING_VIDEO or UNREADABLE as `open_video`; TRUNCATED when the file ends within the range; CORRUPT_VIDEO when it is no video or states no duration or rate.
    """
    if byte_range is None and is_in_parts(path):  # planning looks at all headers of a bucket
        byte_range = (0, check_regular(path, missing=Code.MISSING_VIDEO, in_parts=True))
    try:
        part = RangeReader(path, *byte_range) if byte_range else nullcontext(path)
        with part as opened, open_video(opened, options=NO_CODEC) as container:
            if not container.streams.video:
                raise SourceError(
                    Code.CORRUPT_VIDEO, "the file has no video stream", where=path.name
                )
            stream = container.streams.video[0]
            base, rate = stream.time_base, stream.average_rate
            start, length, whole = stream.start_time, stream.duration, container.duration
    except (av.FFmpegError, OSError) as error:
        raise unreadable_video(error, path.name) from error
    if base is None or not rate or (length is None and whole is None):
        problem = f"the header states time base {base}, rate {rate} and duration {length}; expected all three"
        raise SourceError(Code.CORRUPT_VIDEO, problem, where=path.name)
    start_s = Fraction((start or 0) * base)
    seconds = Fraction(whole or 0, MICROSECONDS_PER_S) if length is None else length * base
    if seconds <= 0:
        raise SourceError(Code.CORRUPT_VIDEO, "the video has no duration", where=path.name)
    return VideoHeader(start_s=start_s, end_s=start_s + seconds, rate_hz=Fraction(rate))


# -- video probe ---------------------------------------------------------------------------------------------------

if TYPE_CHECKING:
    from av.container import InputContainer

NS_PER_S = 1_000_000_000
MAX_FRAMES = 4_000_000  # 24 h at 45 frames/s


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoProbe:
    """Size and shown pictures of the first video stream."""

    num_frames: int
    width_px: int
    height_px: int


def probe_video(path: Path, *, max_frames: int = MAX_FRAMES) -> VideoProbe:
    """Count the shown pictures and read the size.

    Raises:
        SourceError: MISSING_VIDEO (no file), UNREADABLE (no regular file), CORRUPT_VIDEO (no container, no video stream, no size, or fewer
            packets than its header promises), TOO_LONG (over `max_frames`).
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        count = len(_shown(path, container, max_frames))
        if not stream.width or not stream.height:
            raise SourceError(
                Code.CORRUPT_VIDEO, "the video stream has no frame size", where=path.name
            )
        return VideoProbe(num_frames=count, width_px=stream.width, height_px=stream.height)


def count_frames(path: Path, *, max_frames: int = MAX_FRAMES) -> int:
    """Number of shown pictures; raises as `probe_video` does."""
    return probe_video(path, max_frames=max_frames).num_frames


def frame_times_ns(path: Path, *, max_frames: int = MAX_FRAMES) -> npt.NDArray[np.int64]:
    """[N] int64 presentation times on the container's clock, in presentation order, rounded to the nanosecond.

    Raises:
        SourceError: as `probe_video`; CORRUPT_VIDEO also for a picture without a time or two at the same time.
    """
    with _opened(path) as container:
        pts = _shown(path, container, max_frames)
        base = container.streams.video[0].time_base
    if base is None or any(p is None for p in pts):
        raise SourceError(Code.CORRUPT_VIDEO, "a frame has no presentation time", where=path.name)
    num, den = base.numerator * NS_PER_S, base.denominator
    times = sorted((2 * p * num + den) // (2 * den) for p in pts if p is not None)
    out = np.array(times, dtype=np.int64)
    if np.any(np.diff(out) <= 0):
        raise SourceError(Code.CORRUPT_VIDEO, "two frames have the same timestamp", where=path.name)
    return out


def _shown(path: Path, container: InputContainer, max_frames: int) -> list[int | None]:
    """PTS of every shown packet, in file order."""
    stream = container.streams.video[0]
    shown: list[int | None] = []
    total = 0
    for packet in container.demux(stream):
        if packet.size == 0:  # the flush packet at the end
            continue
        total += 1
        if total > max_frames:
            problem = f"more than {max_frames} frames"
            raise SourceError(Code.TOO_LONG, problem, where=path.name)
        if not packet.is_discard:
            shown.append(packet.pts)
    if total < stream.frames:
        problem = (
            f"{total} packets; the header states {stream.frames}: truncated; download it again"
        )
        raise SourceError(Code.CORRUPT_VIDEO, problem, where=path.name)
    if not shown:
        raise SourceError(Code.CORRUPT_VIDEO, "the file has no frame", where=path.name)
    return shown


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    try:
        with open_video(path) as container:
            if not container.streams.video:
                raise SourceError(
                    Code.CORRUPT_VIDEO, "the file has no video stream", where=path.name
                )
            yield container
    except (av.FFmpegError, OSError) as error:
        raise unreadable_video(error, path.name) from error
