"""What a video file's header says about its time span and rate, without reading its packets.

Long videos are cut into hundreds of episodes: going through a file's packets for each of them would read it
hundreds of times.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from adapters.containers.byte_range import RangeReader
from schemas.av_options import open_video
from schemas.errors import Code, SourceError, system_error_text

MICROSECONDS_PER_S = 1_000_000
# libavformat decodes the first pictures of every file it opens (43 ms for 1080p) unless no codec may look.
NO_CODEC = {"codec_whitelist": "none"}


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
        raise SourceError(
            Code.CORRUPT_VIDEO,
            f"not a readable video: {system_error_text(error, path.name)}; download the file again",
            where=path.name,
        ) from error
    if base is None or not rate or (length is None and whole is None):
        problem = f"the header states time base {base}, rate {rate} and duration {length}; expected all three"
        raise SourceError(Code.CORRUPT_VIDEO, problem, where=path.name)
    start_s = Fraction((start or 0) * base)
    seconds = Fraction(whole or 0, MICROSECONDS_PER_S) if length is None else length * base
    if seconds <= 0:
        raise SourceError(Code.CORRUPT_VIDEO, "the video has no duration", where=path.name)
    return VideoHeader(start_s=start_s, end_s=start_s + seconds, rate_hz=Fraction(rate))
