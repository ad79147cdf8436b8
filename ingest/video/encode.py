"""Writing the canonical MP4: H.264 yuv420p, closed GOPs of fixed length, exact times, the same bytes on every run.

x264 always runs with ONE thread: with two it cuts pictures or delays its rate control and the bytes change, and a
corpus digest must not depend on how many cores a machine has. Parallelism is across episodes. `cpu-independent`
keeps x264 from choosing other algorithms on other CPUs (measured cost: none). The container holds no date and no
muxer version (`bitexact`); x264 leaves its own version and settings in the stream, which documents the file.
"""

from __future__ import annotations

import hashlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.video.scale import Colour
from schemas.errors import TransientError, system_error_text

MUXER_OPTIONS = {"fflags": "+bitexact"}
_BT601_OR_709_LIMITED = 1  # AVCOL_RANGE_MPEG


class Encoder:
    """Encodes pictures at k / rate into `out`; leaving it by an error removes the unfinished file.

    Raises:
        TransientError: libav could not write (disk full, lost mount).
    """

    def __init__(
        self,
        out: Path,
        size: tuple[int, int],
        colour: Colour,
        rate_hz: Fraction,
        options: dict[str, str],
    ) -> None:
        self._out = out
        self._tick_s = 1 / rate_hz
        self._container = open_output(out)
        self._stream = self._container.add_stream("libx264", rate=rate_hz, options=options)
        assert isinstance(self._stream, VideoStream)
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._tick_s
        context = self._stream.codec_context
        context.time_base = self._tick_s
        context.thread_count = 1
        context.colorspace = colour.target
        context.color_range = _BT601_OR_709_LIMITED
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._mux(None)
        close_output(self._container, self._out, is_done=kind is None)

    def write(self, frame: VideoFrame, step: int) -> None:
        """Encode `frame` as picture number `step`; x264 has copied it when this returns."""
        frame.pts = step
        frame.time_base = self._tick_s
        self._mux(frame)

    def _mux(self, frame: VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            raise TransientError(
                f"writing failed: {system_error_text(error, str(self._out))}",
                remedy="check the disk, then run the same command again",
                where=str(self._out),
            ) from error


def x264_options(*, crf: int, preset: str, gop: int) -> dict[str, str]:
    """Codec options: keyframes exactly every `gop` pictures, each an IDR, none open."""
    private = f"keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:threads=1:cpu-independent=1"
    return {
        "crf": str(crf),
        "preset": preset,
        "g": str(gop),
        "x264-params": private,
        "a53cc": "0",  # no closed captions carried over from the source
    }


def open_output(out: Path) -> av.container.OutputContainer:
    """An MP4 for writing, whatever the suffix of `out`."""
    return av.open(str(out), mode="w", format="mp4", options=dict(MUXER_OPTIONS))


def close_output(container: av.container.OutputContainer, out: Path, *, is_done: bool) -> None:
    """Write the trailer; remove the file instead when the work did not finish."""
    try:
        container.close()
    except av.error.FFmpegError as error:
        out.unlink(missing_ok=True)
        if is_done:
            raise TransientError(
                f"closing failed: {system_error_text(error, str(out))}",
                remedy="check the disk, then run the same command again",
                where=str(out),
            ) from error
    if not is_done:
        out.unlink(missing_ok=True)


def seal(out: Path) -> tuple[str, int]:
    """Flush `out` to the disk; (sha256 in hex, number of bytes)."""
    with out.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return digest, os.fstat(file.fileno()).st_size


def rebase(
    packet: Packet[VideoStream], stream: VideoStream, *, pts: int, dts: int, tick_s: Fraction
) -> Packet[VideoStream]:
    """`packet` on another stream and clock, its payload untouched."""
    packet.stream = stream
    packet.time_base = tick_s
    packet.pts, packet.dts, packet.duration = pts, dts, 1
    return packet
