"""Several clips of canonical videos as one video, by copying packets: nothing is decoded.

A clip begins and ends at keyframes: what is copied starts at the keyframe at or before its first picture, and ends before the keyframe at
or after its end, so a few pictures more may lie on either side of it. Every keyframe must be an IDR picture (`ingest.video.copy`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.error
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.video.encode import close_output, open_output, rebase
from ingest.video.packet_syntax import is_idr, nal_length_size
from ingest.video.source import Video, open_video, pts_of, span_packets
from schemas.errors import Code, SourceError, TransientError, system_error_text
from schemas.rate import ns_from_seconds

USUAL_DELAY = 2  # of x264 with its usual three B pictures; a group of few pictures needs less


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPart:
    """Pictures [first, first + num_pictures) of a canonical video, whose picture k is at k / rate."""

    file: Path
    first: int
    num_pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedPart:
    """Where a clip is: output video `part`, from picture `first` on. `num_extra`: pictures copied beside its own."""

    part: int
    first: int
    num_extra: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """Packets to copy in decode order, with the place of each in display order."""

    packets: list[Packet[VideoStream]]
    ranks: list[int]
    lead: int  # pictures before the clip's first
    delay: int  # pictures by which decode times lead, the same for nearly every group


def join_videos(
    clips: Sequence[VideoPart], folder: Path, name: str, *, rate_hz: Fraction
) -> list[JoinedPart]:
    """Write `folder/NAME-0.mp4`, and another part where the codec's parameters change. The caller makes them durable.

    Raises:
        SourceError: a video is missing or damaged, or not as this project writes it.
        TransientError: a part could not be written.
    """
    joined: list[JoinedPart] = []
    with ExitStack() as parts:
        writer: _JoinedVideo | None = None
        number = -1
        for clip in clips:
            with open_video(str(clip.file)) as video:
                group = _group_of(video, clip, rate_hz)
                if writer is None or not writer.takes(video, group):
                    parts.close()
                    number += 1
                    writer = parts.enter_context(
                        _JoinedVideo(folder / f"{name}-{number}.mp4", rate_hz)
                    )
                first = writer.write(video, group)
            num_extra = len(group.packets) - clip.num_pictures
            joined.append(JoinedPart(part=number, first=first + group.lead, num_extra=num_extra))
    return joined


def _group_of(video: Video, clip: VideoPart, rate_hz: Fraction) -> _Group:
    """
    Raises:
        SourceError: fewer pictures than the clip has, or a packet that cannot be copied.
    """
    length_size = nal_length_size(video.stream.codec_context.extradata)
    if video.stream.codec_context.name != "h264" or length_size is None:
        raise _odd(video, "not H.264 in MP4")
    packets: list[Packet[VideoStream]] = []
    places: list[int] = []
    end = clip.first + clip.num_pictures
    for packet, place in _placed(video, clip.first, rate_hz):
        if packet.is_keyframe:
            if place >= end:
                break
            if not is_idr(bytes(packet), length_size):
                raise _odd(video, f"frame {place} is a keyframe and no IDR picture")
            if place <= clip.first:  # what was before it is not needed
                packets, places = [], []
        packets.append(packet)
        places.append(place)
    start = min(places, default=end)
    ranks = [place - start for place in places]
    if start > clip.first or sorted(ranks) != list(range(len(ranks))) or len(ranks) < end - start:
        raise _odd(video, f"frames {clip.first} to {end - 1} are not all there, once each")
    delay = max(USUAL_DELAY, *(decode - rank for decode, rank in enumerate(ranks)))
    return _Group(packets=packets, ranks=ranks, lead=clip.first - start, delay=delay)


def _placed(
    video: Video, first: int, rate_hz: Fraction
) -> Iterator[tuple[Packet[VideoStream], int]]:
    """Packets in decode order from the keyframe before picture `first` on, with the number of their picture."""
    # Time stamp n is at n * base seconds, so it is picture n * per_stamp / whole; integers, because there are many packets.
    base = video.time_base
    per_stamp, whole = base.numerator * rate_hz.numerator, base.denominator * rate_hz.denominator
    for packet in span_packets(video, int(ns_from_seconds(float(first / rate_hz)))):
        pts = pts_of(packet)
        place = (2 * pts * per_stamp + whole) // (2 * whole)
        if abs(pts * per_stamp - place * whole) > per_stamp:
            problem = f"a frame at {video.ns(pts)} ns; expected one every {float(1 / rate_hz):g} s"
            raise _odd(video, problem)
        yield packet, place


def _odd(video: Video, problem: str) -> SourceError:
    return SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)


class _JoinedVideo:
    """One output video."""

    def __init__(self, out: Path, rate_hz: Fraction) -> None:
        self.out, self.rate_hz = out, rate_hz
        self.container: OutputContainer = open_output(out)
        self.stream: VideoStream | None = None
        self.parameters: tuple[object, ...] = ()
        self.num_done = 0

    def __enter__(self) -> _JoinedVideo:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        close_output(self.container, self.out, is_done=kind is None)

    def takes(self, video: Video, group: _Group) -> bool:
        return self.parameters == _parameters(video, group)

    def write(self, video: Video, group: _Group) -> int:
        """Append the group. Returns the number of its first picture."""
        try:
            if self.stream is None:
                self.stream = self.container.add_stream_from_template(video.stream)
                self.stream.time_base = 1 / self.rate_hz
                self.parameters = _parameters(video, group)
            first, tick_s = self.num_done, 1 / self.rate_hz
            for number, (packet, rank) in enumerate(zip(group.packets, group.ranks, strict=True)):
                dts = first + number - group.delay
                self.container.mux(
                    rebase(packet, self.stream, pts=first + rank, dts=dts, tick_s=tick_s)
                )
        except av.error.FFmpegError as error:
            raise TransientError(
                f"writing failed: {system_error_text(error, str(self.out))}",
                remedy="check the disk, then run the same command again",
                where=str(self.out),
            ) from error
        self.num_done += len(group.packets)
        return first


def _parameters(video: Video, group: _Group) -> tuple[object, ...]:
    """What all clips of one video must have in common: a decoder reads it once, and decode times must grow."""
    context = video.stream.codec_context
    return context.extradata, context.width, context.height, group.delay
