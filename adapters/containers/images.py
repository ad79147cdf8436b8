"""Compressed images: size from the header, and sequences that are read one at a time.

Format and size of a compressed picture from its first bytes, so that nothing is decoded before it is bounded.

Sources (doc): PNG, W3C Recommendation section 11.2.2 (IHDR); JPEG, ITU-T T.81 annex B (SOFn segments).

Compressed pictures read one at a time: a minute of PNG at 30 Hz is half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from schemas.errors import Code, SourceError
from schemas.regular_file import read_regular

# -- image header --------------------------------------------------------------------------------------------------

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
MAX_PIXELS = 64 << 20
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_WITHOUT_LENGTH = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What the header claims: `format` is "png" or "jpeg", sizes in pixels."""

    format: str
    width_px: int
    height_px: int


def image_header(data: bytes | memoryview, where: str = "picture") -> ImageHeader:
    """Read the header of a PNG or JPEG.

    Raises:
        SourceError: CORRUPT_IMAGE for another format, a broken header or a picture without area; TOO_LARGE beyond
            64 Mi pixels.
    """
    head = bytes(data[:8])
    if head == PNG_MAGIC:
        kind, size = "png", _png_size(data)
    elif head[:3] == JPEG_MAGIC:
        kind, size = "jpeg", _jpeg_size(data)
    else:
        problem = f"{len(data)} bytes starting with {head.hex() or 'nothing'}: neither PNG nor JPEG"
        raise SourceError(Code.CORRUPT_IMAGE, problem, where=where)
    if size is None or size[0] == 0 or size[1] == 0:
        raise SourceError(Code.CORRUPT_IMAGE, f"a {kind} without a size", where=where)
    if size[0] * size[1] > MAX_PIXELS:
        problem = f"{size[0]} x {size[1]} pixels; expected at most {MAX_PIXELS} pixels"
        raise SourceError(Code.TOO_LARGE, problem, where=where)
    return ImageHeader(format=kind, width_px=size[0], height_px=size[1])


def _png_size(data: bytes | memoryview) -> tuple[int, int] | None:
    if len(data) < 24 or bytes(data[12:16]) != b"IHDR":
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _SOF:
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


# -- lazy pictures -------------------------------------------------------------------------------------------------

LIMIT_BYTES = 64 << 20  # a picture of more than 64 Mi pixels is refused anyway


class LazyImages(Sequence[bytes]):
    """For `EncodedImages.images`: members are read when asked for; only the last one is kept.

    Two are equal when they read the same names in the same way, so `read` should be a frozen dataclass.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], bytes]) -> None:
        self._names, self._read = tuple(names), read
        self._last: tuple[str, bytes] | None = None

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> LazyImages: ...
    def __getitem__(self, index: int | slice) -> bytes | LazyImages:
        if isinstance(index, slice):
            return LazyImages(self._names[index], self._read)
        name = self._names[index]
        if self._last is None or self._last[0] != name:  # a decoder asks three times for each
            self._last = name, self._read(name)
        return self._last[1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazyImages):
            return NotImplemented
        return (self._names, self._read) == (other._names, other._read)

    def __hash__(self) -> int:
        return hash((self._names, self._read))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolder:
    """Reads an image file of `folder` by its name. The caller has checked the name against the root."""

    folder: Path
    where: str  # names the folder in errors

    def __call__(self, name: str) -> bytes:
        """Raises SourceError: MISSING_FILE, UNREADABLE, TOO_LARGE."""
        path, where = self.folder / name, f"{self.where}/{name}"
        return read_regular(path, max_bytes=LIMIT_BYTES, where=where)
