"""Opening the video files a camera refers to: frame clocks from packets, pictures from one sequential decode.

Times are int64 ns of the container's own presentation clock (PTS x time base, rounded to nearest). Packets are
listed without decoding; pictures are decoded once, from the keyframe before the first one wanted to the last.

What is hostile or broken is refused here: only plain files and known containers are opened (no playlist, no
network), pictures are bounded in pixels, and the decoder stops at damage (`schemas/av_options.py`). Codecs carry
no checksums, so damage that leaves the syntax intact stays unseen: VP9 accepts nearly anything, and of six HEVC files
damaged alike one decoded to wrong pictures without a word.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from adapters.containers.raw_file import RangeReader
from ingest.video.needed_packets import NeededPackets
from ingest.video.packet_syntax import nal_length_size
from ingest.video.truncation import VideoFile
from schemas import av_options
from schemas.av_options import DECODER_OPTIONS, MAX_PIXELS
from schemas.errors import Code, SourceError, TransientError, system_error_text
from schemas.rate import NS_PER_S
from schemas.regular_file import check_regular

# 5.5 h at 30 Hz: episodes are capped at 1000 s, this only bounds a hostile count
MAX_FRAMES = 600_000
# libavformat decodes the first pictures of every file it opens, to learn the reordering delay: 43 ms for 1080p. A
# decoder needs to know it; listing packets does not, and takes 0.2 ms when no codec is allowed to look.
_PACKETS_ONLY = {"codec_whitelist": "none"}
# libav also returns EPERM and the like for plain parsing trouble; only these mean the disk or the mount
_STORAGE_TROUBLE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENOTCONN)
_MAX_REORDER = 32  # H.264 and HEVC reorder at most 16 pictures
_MAX_SEEKS = 24  # each goes back twice as far as the one before

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """An open video file and the stream that holds its pictures."""

    file: VideoFile
    container: InputContainer
    stream: VideoStream
    time_base: Fraction
    max_frames: int = MAX_FRAMES
    is_probed: bool = True  # libavformat has decoded the first pictures, so the decoder knows how far they are reordered
    _ns_per_tick: tuple[int, int] = field(
        init=False
    )  # as a fraction: it is needed for every packet

    def __post_init__(self) -> None:
        base = self.time_base
        object.__setattr__(self, "_ns_per_tick", (base.numerator * NS_PER_S, base.denominator))

    @property
    def path(self) -> str:
        return self.file.path

    def ns(self, pts: int) -> int:
        """The instant of a presentation time stamp, ns, rounded half up."""
        whole, part = self._ns_per_tick
        return (2 * pts * whole + part) // (2 * part)

    def pts(self, ns: int) -> int:
        """The nearest presentation time stamp to an instant."""
        whole, part = self._ns_per_tick
        return (2 * ns * part + whole) // (2 * whole)

    @property
    def rate_hz(self) -> Fraction | None:
        """The average rate that the container states, or None."""
        rate = self.stream.average_rate
        return Fraction(rate) if rate else None


@contextmanager
def open_video(
    path: str,
    *,
    num_threads: int | None = None,
    max_frames: int = MAX_FRAMES,
    byte_range: tuple[int, int] | None = None,
    probes: bool = True,
) -> Iterator[Video]:
    """Open a video file: for decoding with `num_threads` decoder threads, or (None) only for listing packets.

    Args:
        byte_range: the video is those bytes [start, end) of the file.
        probes: False lets H.264 in MP4 be decoded without the pictures that libavformat decodes first. Should a picture come out in the
            wrong order for that, `decoded(needed_only=True)` notices.

    Raises:
        SourceError: missing, a Git LFS pointer, cut short, not a known container, no picture stream.
    """
    _check_file(path, in_parts=byte_range is not None)
    file = VideoFile(path=path, byte_range=byte_range)
    with file.opened() as opened:
        is_probed = probes and num_threads is not None
        container = _opened(opened, file, is_probed=is_probed)
        try:
            stream = _video_stream(container, file)
            if not (is_probed or num_threads is None or _states_its_format(container, stream)):
                container.close()
                is_probed, container = True, _opened(opened, file, is_probed=True)
                stream = _video_stream(container, file)
            context = stream.codec_context
            # AUTO is frame threading for H.264: the only kind that helps with one slice a picture.
            context.thread_type = "AUTO"
            context.thread_count = num_threads or 1
            context.options = dict(DECODER_OPTIONS)
            time_base = Fraction(stream.time_base or 0)
            if time_base <= 0:
                raise _broken(file, "the video has no time base")
            yield Video(
                file=file,
                container=container,
                stream=stream,
                time_base=time_base,
                max_frames=max_frames,
                is_probed=is_probed,
            )
        finally:
            container.close()


def _opened(opened: Path | RangeReader, file: VideoFile, *, is_probed: bool) -> InputContainer:
    if not isinstance(opened, Path):
        opened.seek(0)
    with _reading(file):
        options = {} if is_probed else _PACKETS_ONLY
        return av_options.open_video(opened, where=file.path, options=options)


def _states_its_format(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the header says all that a decoder of H.264 starts from."""
    context = stream.codec_context
    is_mp4 = container.format.name.startswith("mov,")
    is_avcc = (
        context.codec.canonical_name == "h264" and nal_length_size(context.extradata) is not None
    )
    return is_mp4 and is_avcc and stream.average_rate is not None


def window_times(video: Video, start_ns: int, end_ns: int) -> Times:
    """Instants [N] of all pictures whose PTS lies in [start_ns, end_ns), ascending, without decoding.

    Raises:
        SourceError: no picture there, no time stamps, duplicates, too many, or the file ends too early.
    """
    pts: list[int] = []
    is_at_end = True
    for packet in _decodable(_packets_from(video, start_ns)):
        at = video.ns(pts_of(packet))
        if start_ns <= at < end_ns and not packet.is_discard:
            pts.append(pts_of(packet))
            _check_count(video, len(pts))
        if _is_past(video, packet, end_ns):
            is_at_end = False
            break
    if is_at_end and video.file.is_truncated():
        raise _broken(
            video.file, f"the file ends after {len(pts)} frames of the window; download it again"
        )
    if not pts:
        problem = f"no frame between {start_ns / 1e9:.3f} and {end_ns / 1e9:.3f} s"
        raise SourceError(Code.EMPTY_EPISODE, problem, where=video.path)
    return _times(video, pts)


def span_times(video: Video, first: int, count: int) -> Times:
    """Instants [count] of pictures `first` .. `first + count - 1` in presentation order, without decoding.

    Raises:
        SourceError: the file holds fewer pictures, or see `window_times`.
    """
    _check_count(video, count)
    base, packets = _enter_by_count(video, first)
    stop = first + count - base
    _check_count(video, stop)
    pts: list[int] = []
    for packet in packets:
        if not packet.is_discard:
            pts.append(pts_of(packet))
        if len(pts) >= stop + _MAX_REORDER:
            break
    if len(pts) < stop:
        raise _too_few(video, base + len(pts), first + count)
    return _times(video, sorted(pts)[:stop])[first - base :]


def check_span(video: Video, first: int, count: int) -> None:
    """Check that the file holds pictures `first` .. `first + count - 1`; no payload is read where an index says so.

    Raises:
        SourceError: fewer pictures than that, or the file is cut before them.
    """
    _check_count(video, count)
    if not _has_full_index(video):
        span_times(video, first, count)
        return
    if video.stream.frames < first + count:
        raise _too_few(video, video.stream.frames, first + count)
    last = video.stream.index_entries[first + count - 1]
    if last.pos + last.size > video.file.num_bytes:
        raise _broken(video.file, f"frame {first + count - 1} is beyond the end of the file")


def decoded(video: Video, wanted_ns: Times, *, needed_only: bool = False) -> Iterator[VideoFrame]:
    """Yield the pictures at exactly the instants `wanted_ns` (ascending, no duplicates), each once, in order.

    Entering an open GOP leaves out its leading pictures, and a strict H.264 decoder may then trip over commands that
    name them. So damage met after a seek counts only when it is met again from the start of the file.

    Args:
        needed_only: leave out packets that none of these pictures depends on (`ingest.video.needed_packets`); damage inside
            them is then not seen. Any trouble without them counts only when it is met again with them.

    Raises:
        SourceError: the decoder reports damage, or one of the pictures does not come out.
    """
    due_ns = [int(t) for t in wanted_ns]
    if not needed_only:
        yield from _all_decoded(video, due_ns, 0)
        return
    due, num_done = frozenset(due_ns), 0
    needed = NeededPackets(video.stream, lambda pts: video.ns(pts) in due, len(due))
    try:
        packets = needed.among(_decodable(_packets_from(video, due_ns[0])))
        for frame in _exactly(video, packets, due_ns):
            num_done += 1
            yield frame
    except SourceError as error:
        if error.code not in (Code.CORRUPT_VIDEO, Code.TRUNCATED):
            raise
        if video.is_probed and not needed.num_left_out and _is_at_start(video, due_ns[0]):
            raise
    else:
        return
    with _opened_again(video) as again:
        yield from _all_decoded(again, due_ns, num_done)


def _all_decoded(video: Video, due_ns: Sequence[int], num_done: int) -> Iterator[VideoFrame]:
    """The pictures at `due_ns[num_done:]`, with every packet decoded from the keyframe before the first of `due_ns`."""
    try:
        for frame in _exactly(video, _packets_from(video, due_ns[0]), due_ns[num_done:]):
            num_done += 1
            yield frame
    except SourceError as error:
        if error.code is not Code.CORRUPT_VIDEO or _is_at_start(video, due_ns[0]):
            raise
    else:
        return
    with _opened_again(video) as again:
        yield from _exactly(again, _demuxed(again), due_ns[num_done:])


def _opened_again(video: Video) -> AbstractContextManager[Video]:
    return open_video(
        video.path,
        num_threads=video.stream.codec_context.thread_count,
        max_frames=video.max_frames,
        byte_range=video.file.byte_range,
    )


def _exactly(
    video: Video, packets: Iterable[Packet[VideoStream]], due_ns: Sequence[int]
) -> Iterator[VideoFrame]:
    """The pictures at the instants `due_ns` out of what `packets` decode to; none may be missing."""
    num_done, last = 0, None
    for frame in _frames(video, _decodable(packets)):
        if frame.pts is None:
            raise SourceError(Code.CORRUPT_VIDEO, "a frame has no timestamp", where=video.path)
        at = video.ns(frame.pts)
        if last is not None and at <= last:
            problem = f"frame timestamps decrease from {last} to {at} ns; remux the file"
            raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)
        last = at
        if at < due_ns[num_done]:
            continue
        if at > due_ns[num_done]:
            problem = f"the frame at {due_ns[num_done]} ns does not decode; the next is at {at} ns"
            raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)
        yield frame
        num_done += 1
        if num_done == len(due_ns):
            return
    raise _broken(video.file, f"decoding ended after {num_done} of {len(due_ns)} frames")


def _is_at_start(video: Video, ns: int) -> bool:
    return video.pts(ns) <= (video.stream.start_time or 0)


def span_packets(video: Video, first_ns: int) -> Iterator[Packet[VideoStream]]:
    """Packets in decode order from the keyframe at or before `first_ns`."""
    return _decodable(_packets_from(video, first_ns))


def pts_of(packet: Packet[VideoStream]) -> int:
    """The presentation stamp of a packet from this module; `_demuxed` refuses packets without."""
    assert packet.pts is not None
    return packet.pts


def _frames(video: Video, packets: Iterable[Packet[VideoStream]]) -> Iterator[VideoFrame]:
    """Decode packets and drain the decoder; a picture flagged as damaged raises."""
    context = video.stream.codec_context
    with _reading(video.file):
        for packet in chain(packets, (None,)):
            for frame in context.decode(packet):
                if frame.is_corrupt:
                    problem = f"the frame at PTS {frame.pts} is damaged"
                    raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)
                yield frame


def _demuxed(video: Video) -> Iterator[Packet[VideoStream]]:
    """Packets with a payload, in decode order, from where the container stands."""
    with _reading(video.file):
        for packet in video.container.demux(video.stream):
            if packet.size == 0:  # the marker at the end
                continue
            if packet.is_corrupt:
                raise _broken(video.file, f"the packet at PTS {packet.pts} is incomplete")
            if packet.pts is None:
                problem = "a packet has no presentation time; remux the file to MP4 or Matroska"
                raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)
            yield packet


def _decodable(packets: Iterable[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
    """From the first keyframe on, without the pictures shown before it (their references are not there)."""
    key_pts: int | None = None
    for packet in packets:
        if key_pts is None:
            if not packet.is_keyframe:
                continue
            key_pts = pts_of(packet)
        if pts_of(packet) >= key_pts:
            yield packet


def _packets_from(video: Video, ns: int) -> Iterator[Packet[VideoStream]]:
    """Packets from a keyframe shown at or before `ns`.

    `video` must be freshly opened. MP4 is searched by decode time, so the first hit can be a keyframe shown AFTER the
    instant: then go back.
    """
    pts, start = video.pts(ns), video.stream.start_time or 0
    if _is_at_start(video, ns):
        yield from _demuxed(video)
        return
    at, step = pts, max(1, int(1 / video.time_base))
    for _ in range(_MAX_SEEKS):
        with _reading(video.file):
            video.container.seek(at, stream=video.stream, backward=True)
        packets = _demuxed(video)
        key = next((p for p in packets if p.is_keyframe), None)
        if key is not None and pts_of(key) <= pts:
            yield from chain((key,), packets)
            return
        at, step = max(start, at - step), step * 2
    problem = f"no keyframe before {ns / 1e9:.3f} s"
    raise SourceError(Code.CORRUPT_VIDEO, problem, where=video.path)


def _enter_by_count(video: Video, first: int) -> tuple[int, Iterator[Packet[VideoStream]]]:
    """(rank of the first yielded keyframe in presentation order, packets from there).

    With a full sample index (MP4) the way to picture 50,000 of a long file is one seek. A keyframe's rank is its
    position in decode order plus the pictures decoded after it but shown before it.
    """
    index = video.stream.index_entries
    if _has_full_index(video) and first < len(index):
        at = first
        while True:
            at = next((i for i in range(at, 0, -1) if index[i].is_keyframe), 0)
            if at == 0:
                break
            with _reading(video.file):
                video.container.seek(index[at].timestamp, stream=video.stream, backward=True)
            packets = _demuxed(video)
            head = list(islice(packets, _MAX_REORDER))
            if not head or head[0].dts != index[at].timestamp or not head[0].is_keyframe:
                break
            base = at + sum(pts_of(packet) < pts_of(head[0]) for packet in head)
            if base <= first:
                return base, _decodable(chain(head, packets))
            at -= 1
        with _reading(video.file):
            video.container.seek(index[0].timestamp, stream=video.stream, backward=True)
    return 0, _decodable(_demuxed(video))


def _has_full_index(video: Video) -> bool:
    """True when the container lists every picture and none is trimmed away by an edit list."""
    index = video.stream.index_entries
    num_frames = int(video.stream.frames)
    return 0 < num_frames == len(index) and index[0].size > 0 and not index[0].is_discard


def _is_past(video: Video, packet: Packet[VideoStream], end_ns: int) -> bool:
    """No later packet can be shown before `end_ns`: decode times only grow and never exceed display times."""
    if packet.dts is not None:
        return video.ns(packet.dts) >= end_ns
    return video.ns(pts_of(packet)) >= end_ns + 2 * NS_PER_S  # Matroska may leave decode times out


def _times(video: Video, pts: Sequence[int]) -> Times:
    """Presentation stamps to ascending instants; two pictures at one instant raise."""
    times = np.array([video.ns(p) for p in sorted(pts)], dtype=np.int64)
    if np.any(np.diff(times) <= 0):
        at = int(times[:-1][np.diff(times) <= 0][0])
        raise SourceError(Code.CLOCK_NOT_INCREASING, f"two frames at {at} ns", where=video.path)
    return times


def _check_count(video: Video, count: int) -> None:
    if count > video.max_frames:
        problem = f"{count} frames or more; expected at most {video.max_frames}"
        raise SourceError(Code.TOO_LONG, problem, where=video.path)


def _too_few(video: Video, num_read: int, needed: int) -> SourceError:
    if video.file.is_truncated():
        return _broken(
            video.file, f"the file ends after {num_read} of {needed} frames; download it again"
        )
    message = f"the file has {num_read} frames; expected {needed}"
    return SourceError(Code.FRAME_COUNT, message, where=video.path)


def _broken(file: VideoFile, message: str) -> SourceError:
    """`truncated` when the container says so itself, else `corrupt_video`."""
    code = Code.TRUNCATED if file.is_truncated() else Code.CORRUPT_VIDEO
    return SourceError(code, message, where=file.path)


def _check_file(path: str, *, in_parts: bool) -> None:
    missing = Code.MISSING_VIDEO
    if check_regular(Path(path), where=path, missing=missing, in_parts=in_parts) == 0:
        raise SourceError(Code.TRUNCATED, "the file is empty; download it again", where=path)


def _video_stream(container: InputContainer, file: VideoFile) -> VideoStream:
    """The first video stream that is not a cover picture; all others are not even read."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise _broken(file, "no video stream in the file")
    if moving[0].codec_context is None:
        raise _broken(file, "no decoder for its codec")
    if moving[0].width * moving[0].height > MAX_PIXELS:
        problem = (
            f"{moving[0].width} x {moving[0].height} pixels; expected at most {MAX_PIXELS} pixels"
        )
        raise SourceError(Code.TOO_LARGE, problem, where=file.path)
    for stream in container.streams:
        if stream.index != moving[0].index:
            stream.discard = Discard.all
    return moving[0]


@contextmanager
def _reading(file: VideoFile) -> Iterator[None]:
    """Turn what libav says while reading `file` into our errors."""
    try:
        yield
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise SourceError(
                Code.OUT_OF_MEMORY, system_error_text(error, file.path), where=file.path
            ) from error
        if isinstance(error, OSError) and error.errno in _STORAGE_TROUBLE:
            raise TransientError(
                f"reading failed: {system_error_text(error, file.path)}",
                remedy="check the disk, then run the same command again",
                where=file.path,
            ) from error
        raise _broken(
            file, f"{system_error_text(error, file.path)}; download the file again"
        ) from error
