"""A video that is a file or a byte range of one, and whether it is shorter than its container says (`truncated`) or damaged (`corrupt_video`)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adapters.containers.raw_file import RangeReader
from schemas.errors import Code
from schemas.regular_file import check_regular, open_regular


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFile:
    """The file at `path`, or only its bytes [start, end) where `byte_range` says so."""

    path: str
    byte_range: tuple[int, int] | None = None

    @property
    def num_bytes(self) -> int:
        if self.byte_range is None:
            return check_regular(Path(self.path), where=self.path, missing=Code.MISSING_VIDEO)
        return self.byte_range[1] - self.byte_range[0]

    @contextmanager
    def opened(self) -> Iterator[Path | RangeReader]:
        """What `schemas.av_options.open_video` takes: the path of a plain file, or a bounded reader of a part."""
        if self.byte_range is None:
            yield Path(self.path)
            return
        with RangeReader(Path(self.path), *self.byte_range) as reader:
            yield reader

    def is_truncated(self) -> bool:
        """True when the video promises more bytes than there are (`ingest.video.truncation`)."""
        if self.byte_range is None:
            return is_truncated(Path(self.path))
        with RangeReader(Path(self.path), *self.byte_range) as reader:
            return is_truncated(reader)


_EBML_HEADER, _EBML_SEGMENT = 0x1A45DFA3, 0x18538067
_MAX_BOXES = 100_000  # a fragmented MP4 has a few per second; a hostile one must not keep us here


def is_truncated(video: Path | io.RawIOBase) -> bool:
    """For a file, or for an open part of one.

    True when the outermost structure (MP4 boxes, EBML segment, RIFF) promises more bytes than there are.

    False also means "cannot tell": MPEG-TS, for one, states no length.
    """
    with open_regular(video) if isinstance(video, Path) else io.BufferedReader(video) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(12)
        file.seek(0)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _are_boxes_cut(file, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _is_segment_cut(file, size)
        if head[:4] == b"RIFF" and len(head) >= 8:
            return bool(struct.unpack("<I", head[4:8])[0] + 8 > size)
    return size == 0


def _are_boxes_cut(file: BinaryIO, size: int) -> bool:
    """Walk the top-level boxes (ISO/IEC 14496-12 §4.2); a file without `moov` lost its end too."""
    at, has_moov = 0, False
    for _ in range(_MAX_BOXES):
        if at >= size:
            break
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return True
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1:
            if len(header) < 16:
                return True
            length = struct.unpack(">Q", header[8:16])[0]
        has_moov |= kind == b"moov"
        if length == 0:  # to the end of the file
            break
        at += max(length, 8)
    return at > size or not has_moov


def _is_segment_cut(file: BinaryIO, size: int) -> bool:
    """Compare the size of the EBML segment (RFC 8794 §4, RFC 9559) with the file."""
    for expected in (_EBML_HEADER, _EBML_SEGMENT):
        if _vint(file, keep_marker=True) != expected:
            return False
        length = _vint(file, keep_marker=False)
        if length is None:  # unknown length: a live recording
            return False
        if expected == _EBML_SEGMENT:
            return file.tell() + length > size
        file.seek(length, 1)
    return False


def _vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """One EBML variable-length integer; None for the reserved "unknown" (all ones) or at the end."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(width - 1), "big")
    if keep_marker:
        return value
    value &= (1 << (7 * width)) - 1
    return None if value == (1 << (7 * width)) - 1 else value
