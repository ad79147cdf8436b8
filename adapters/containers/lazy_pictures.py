"""Compressed pictures read one at a time: a minute of PNG at 30 Hz is half a gigabyte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from schemas.regular_file import read_regular

LIMIT_BYTES = 64 << 20  # a picture of more than 64 Mi pixels is refused anyway


class LazyPictures(Sequence[bytes]):
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
    def __getitem__(self, index: slice) -> LazyPictures: ...
    def __getitem__(self, index: int | slice) -> bytes | LazyPictures:
        if isinstance(index, slice):
            return LazyPictures(self._names[index], self._read)
        name = self._names[index]
        if self._last is None or self._last[0] != name:  # a decoder asks three times for each
            self._last = name, self._read(name)
        return self._last[1]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LazyPictures):
            return NotImplemented
        return (self._names, self._read) == (other._names, other._read)

    def __hash__(self) -> int:
        return hash((self._names, self._read))


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFolder:
    """Reads an image file of `folder` by its name. The caller has checked the name against the root."""

    folder: Path
    where: str  # names the folder in errors

    def __call__(self, name: str) -> bytes:
        """Raises SourceError: MISSING_FILE, UNREADABLE, TOO_LARGE."""
        path, where = self.folder / name, f"{self.where}/{name}"
        return read_regular(path, max_bytes=LIMIT_BYTES, where=where)
