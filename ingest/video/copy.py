"""Copying packets instead of encoding again: when the source already is what would be written.

Conditions, all of them: the grid takes consecutive pictures one by one; H.264, yuv420p, limited range, square-on sizes
within the limit; the first packet is a keyframe and nothing in the span is shown before it; every keyframe is an IDR
(NAL type 5), so that nothing after it refers to anything before it; keyframes at most `gop` apart; and the last
picture kept needs none that is left out. Then pictures decode bit for bit as in the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av.error
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.video.encode import close_output, open_output, rebase
from ingest.video.packet_syntax import is_idr, nal_length_size
from ingest.video.source import Times, Video, open_video, pts_of, span_packets
from ingest.video.truncation import VideoFile
from schemas.errors import TransientError, system_error_text


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyPlan:
    """The span to copy: instants of its first and last picture, and how late decoding order may run."""

    ranks: tuple[int, ...]  # presentation rank of each packet, in decode order
    delay: int  # pictures by which decode times must lead display times


def copy_plan(file: VideoFile, times_ns: Times, *, rate_hz: Fraction, gop: int) -> CopyPlan | None:
    """Look at the packets of pictures `times_ns`; None when one condition does not hold.

    Size, pixel format and range are the caller's to check, on a decoded picture. Reads the packets once, decodes nothing.
    """
    with open_video(file.path, byte_range=file.byte_range) as video:
        if not _is_regular(video, times_ns, rate_hz):
            return None
        ranks = _ranks(video, times_ns, gop)
    if ranks is None or ranks[0] != 0 or sorted(ranks) != list(range(len(times_ns))):
        return None
    delay = max(decode - rank for decode, rank in enumerate(ranks))
    return CopyPlan(ranks=tuple(ranks), delay=delay)


def _ranks(video: Video, times_ns: Times, gop: int) -> list[int] | None:
    """Presentation rank of each packet in decode order; None when a packet breaks a condition."""
    context = video.stream.codec_context
    length_size = nal_length_size(context.extradata)
    if context.name != "h264" or length_size is None:
        return None
    rank_of = {int(t): k for k, t in enumerate(times_ns)}
    ranks: list[int] = []
    since_key = 0
    for packet in _from_first(video, times_ns):
        rank = rank_of.get(video.ns(pts_of(packet)))
        if rank is None or packet.is_discard or packet.has_sidedata("new_extradata"):
            return None
        since_key = 1 if packet.is_keyframe else since_key + 1
        if since_key > gop or (not ranks and not packet.is_keyframe):
            return None
        if packet.is_keyframe and not is_idr(bytes(packet), length_size):
            return None
        ranks.append(rank)
        if len(ranks) == len(times_ns):
            break
    return ranks


def copy_packets(
    file: VideoFile, times_ns: Times, plan: CopyPlan, out: Path, rate_hz: Fraction
) -> None:
    """Write the planned packets to `out` at exactly k / rate.

    Raises:
        TransientError: libav could not write, or the source changed since it was looked at.
    """
    container, num_done = open_output(out), 0
    try:
        with open_video(file.path, num_threads=1, byte_range=file.byte_range) as video:
            stream = container.add_stream_from_template(video.stream)
            stream.time_base = 1 / rate_hz
            for rank, packet in zip(plan.ranks, _from_first(video, times_ns), strict=False):
                dts = num_done - plan.delay
                container.mux(rebase(packet, stream, pts=rank, dts=dts, tick_s=1 / rate_hz))
                num_done += 1
    except av.error.FFmpegError as error:
        raise TransientError(
            f"writing failed: {system_error_text(error, str(out))}",
            remedy="check the disk, then run the same command again",
            where=str(out),
        ) from error
    finally:
        close_output(container, out, is_done=num_done == len(plan.ranks))
    if num_done != len(plan.ranks):
        problem = f"{num_done} of {len(plan.ranks)} packets; the file changed while it was read"
        raise TransientError(problem, where=file.path)


def _from_first(video: Video, times_ns: Times) -> Iterator[Packet[VideoStream]]:
    """Packets in decode order, starting with the one shown first of the span."""
    first, is_found = int(times_ns[0]), False
    for packet in span_packets(video, first):
        is_found |= video.ns(pts_of(packet)) == first
        if is_found:
            yield packet


def _is_regular(video: Video, times_ns: Times, rate_hz: Fraction) -> bool:
    """Each picture within one container tick of first + k / rate."""
    exact = np.arange(len(times_ns)) * float(1_000_000_000 / rate_hz)
    tick_ns = float(video.time_base * 1_000_000_000)
    return bool(np.all(np.abs(times_ns - times_ns[0] - exact) <= tick_ns + 1))
