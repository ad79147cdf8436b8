"""Pictures of a canonical video at given timesteps. Only the frames that are needed are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from ingest.video.packet_syntax import is_reference, nal_length_size
from ingest.video.source import Video, open_video, pts_of, span_packets
from schemas.errors import Code, SourceError, system_error_text
from schemas.rate import NS_PER_S

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB


def pictures_at(path: Path, timesteps: Sequence[int], rate_hz: float) -> Iterator[Picture]:
    """[H, W, 3] RGB of each timestep, in order.

    Args:
        timesteps: ascending; timestep k is shown at exactly k / rate_hz seconds.

    Raises:
        SourceError: the video is missing or damaged, or has no picture at one of these instants.
    """
    # one for all pictures: making its context costs as much as decoding
    to_rgb = VideoReformatter()
    with open_video(str(path), num_threads=1) as video:
        pts_due = [video.pts(round(k * NS_PER_S / rate_hz)) for k in timesteps]
        for frame in _frames(video, pts_due, first_ns=round(timesteps[0] * NS_PER_S / rate_hz)):
            rgb = to_rgb.reformat(frame, format="rgb24")
            yield np.asarray(rgb.to_ndarray(), dtype=np.uint8)


def _frames(video: Video, pts_due: list[int], *, first_ns: int) -> Iterator[VideoFrame]:
    """The pictures with these time stamps, which ascend; none may be missing."""
    num_done = 0
    context = video.stream.codec_context
    try:
        for packet in chain(_needed(video, pts_due, first_ns), (None,)):
            for frame in context.decode(packet):
                if frame.is_corrupt:
                    problem = f"the frame at PTS {frame.pts} is damaged; run `eicorpus verify`"
                    raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)
                if num_done < len(pts_due) and frame.pts == pts_due[num_done]:
                    num_done += 1
                    yield frame
    except av.FFmpegError as error:
        problem = f"{system_error_text(error, video.path)}; run `eicorpus verify`"
        raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path) from error
    if num_done < len(pts_due):
        at_s = float(pts_due[num_done] * video.time_base)
        problem = (
            f"{num_done} of {len(pts_due)} frames, none at {at_s:.3f} s; run `eicorpus verify`"
        )
        raise SourceError(Code.FRAME_COUNT, problem, where=video.path)


def _needed(video: Video, pts_due: list[int], first_ns: int) -> Iterator[Packet[VideoStream]]:
    """The packets that the wanted pictures depend on, in decode order."""
    left = set(pts_due)
    context = video.stream.codec_context
    is_h264 = context.codec.canonical_name == "h264"
    length_size = nal_length_size(context.extradata) if is_h264 else None
    for group in _groups(span_packets(video, first_ns)):
        if pts_of(group[0]) > pts_due[-1]:
            return
        if any(pts_of(packet) < pts_of(group[0]) for packet in group):
            # what was left out before it may be what its leading pictures refer to
            problem = "an open group of pictures (GOP); run `eicorpus verify`"
            raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)
        last = max((i for i, p in enumerate(group) if p.pts in left), default=-1)
        for packet in group[: last + 1]:
            if (
                packet.pts in left
                or not length_size
                or is_reference(memoryview(packet), length_size)
            ):
                yield packet


def _groups(packets: Iterable[Packet[VideoStream]]) -> Iterator[list[Packet[VideoStream]]]:
    """Runs of packets that start with a keyframe."""
    group: list[Packet[VideoStream]] = []
    for packet in packets:
        if packet.is_keyframe and group:
            yield group
            group = []
        group.append(packet)
    if group:
        yield group
