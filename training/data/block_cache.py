"""A bounded cache of blocks on a disk of this machine, shared by all its processes without locks.

One sparse file: an index, then slots of one size. A key belongs to one set of `WAYS` slots; in a full set the least recently used slot is
replaced. So the size is fixed when the file is made, and nothing is counted that could drift.

An entry holds the CRC-32C of its block, compared on every read. An entry is cleared before its slot is written and written after it, so
what a killed process or two writers at once leave behind has another checksum, and is a miss. A disk that is full or fails makes the cache
useless and never wrong.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError, system_error_text

Bytes = npt.NDArray[np.uint8]
WAYS = 16
FORMAT = 1
_ENTRY = struct.Struct("<16sQII")  # key, turn, bytes, CRC-32C of the block
_SET_BYTES = WAYS * _ENTRY.size
_TURNS = struct.Struct("<" + "16xQ8x" * WAYS)
_LAST_TURN = 2**64 - 1
_PAGE = 4096
_FREE = bytes(16)  # the key of a slot without a block
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def key_of_block(*parts: str) -> bytes:
    """Sixteen bytes that name a block: of texts, whose borders count."""
    text = "\0".join(parts).encode("utf-8", "surrogateescape")
    return blake2b(text, digest_size=16).digest()


def crc_of(parts: Sequence[npt.NDArray[Any]]) -> int:
    """The CRC-32C of arrays, one after the other."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part.reshape(-1).view(np.uint8))
    return int(crc)


@dataclass(slots=True, kw_only=True)
class CacheCounts:
    """Of this process. Threads may lose a count, never a block."""

    hits: int = 0
    misses: int = 0
    damaged: int = 0  # blocks with another checksum: left by a killed writer, or by a failing disk
    failed: int = 0  # reads and writes that the disk refused


class BlockCache:
    """One file in `folder`. Threads share it; a copy in another process opens the same file."""

    def __init__(self, folder: Path, *, max_bytes: int, block_bytes: int) -> None:
        """
        Args:
            max_bytes: of the file, index included. block_bytes: of the largest block.

        Raises:
            ConfigError: the folder cannot be written, holds fewer than `WAYS` blocks, is of another user, or another run uses it with other blocks or
                another size.
        """
        self.folder, self.max_bytes, self.block_bytes = folder, max_bytes, block_bytes
        self._slot = -(-block_bytes // _PAGE) * _PAGE
        self.num_sets = (max_bytes - _PAGE) // (_SET_BYTES + WAYS * self._slot)
        if self.num_sets < 1:
            needed = _PAGE + _SET_BYTES + WAYS * self._slot
            raise ConfigError(
                f"a cache of {max_bytes} bytes holds fewer than {WAYS} blocks of {block_bytes} bytes",
                remedy=f"set data.latent_cache.max_gb to {needed / 1e9:.3g} or more",
                where="recipe key data.latent_cache.max_gb",
            )
        self._first = -(-self.num_sets * _SET_BYTES // _PAGE) * _PAGE
        self.counts = CacheCounts()
        self._claims: dict[bytes, threading.Event] = {}
        self._claiming = threading.Lock()
        try:
            self._file = self._opened()
        except OSError as error:
            raise ConfigError(
                f"cannot be written ({system_error_text(error)})",
                remedy="set data.latent_cache.folder to a folder on a local disk",
                where=str(folder),
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.max_bytes, self.block_bytes)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def _opened(self) -> int:
        """The file, held with others. Files of other sizes go, unless a run holds one: then the bound would not hold."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"blocks-{FORMAT}-{self._slot}-{self.num_sets}"
        lock = os.open(self.folder / ".lock", _OPEN, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for other in self.folder.glob("blocks-*"):
                if other.name != name:
                    self._remove(other)
            file = os.open(self.folder / name, _OPEN, 0o600)
            if os.fstat(file).st_uid not in (os.geteuid(), 0):
                os.close(file)
                raise ConfigError(
                    f"{name} belongs to another user, who could change what is read",
                    remedy="set data.latent_cache.folder to a folder of your own",
                    where=str(self.folder),
                )
            fcntl.flock(file, fcntl.LOCK_SH)
            os.ftruncate(file, self._first + self.num_sets * WAYS * self._slot)
        finally:
            os.close(lock)
        return file

    def _remove(self, other: Path) -> None:
        # O_NONBLOCK: opening a FIFO would never end.
        handle = os.open(other, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            other.unlink()
        except BlockingIOError as error:
            raise ConfigError(
                "a run with latents or data.latent_cache.max_gb of another size uses this cache",
                remedy="set data.latent_cache.folder to another folder",
                where=str(self.folder),
            ) from error
        finally:
            os.close(handle)

    # --- blocks -------------------------------------------------------------------------------------------------------

    def read(self, key: bytes, parts: Sequence[npt.NDArray[Any]]) -> int | None:
        """Fill arrays with the block of a key, one after the other. Its checksum; None for a miss, which may leave anything in them."""
        entry = self._entry_of(key)
        num_bytes = sum(part.nbytes for part in parts)
        if entry is None or entry.num_bytes != num_bytes:
            self.counts.misses += 1
            return None
        into = [part.reshape(-1).view(np.uint8) for part in parts if part.nbytes]
        if self._is_filled(entry, into):
            self.counts.hits += 1
            self._touch(entry)
            return entry.crc
        self.counts.misses += 1
        return None

    def get(self, key: bytes) -> Bytes | None:
        """A block of any size."""
        entry = self._entry_of(key)
        out = None if entry is None else np.empty(entry.num_bytes, np.uint8)
        return out if out is not None and self.read(key, [out]) is not None else None

    def has(self, key: bytes) -> bool:
        """Whether the index has a block. Its bytes are not looked at."""
        return self._entry_of(key) is not None

    def write(self, key: bytes, block: Bytes) -> None:
        """Keep a block. Where the disk refuses that, it is not kept."""
        if block.nbytes > self.block_bytes:
            return
        place = self._set_of(key)
        try:
            raw = self._index_of(place)
            way = self._way_for(key, raw)
            turn = _next_turn(raw)
            entry = place * _SET_BYTES + way * _ENTRY.size
            os.pwrite(self._file, _FREE, entry)
            self._write_slot(block, self._offset_of(place, way))
            os.pwrite(self._file, _ENTRY.pack(key, turn, block.nbytes, crc_of([block])), entry)
        except OSError:
            self.counts.failed += 1

    def _write_slot(self, block: Bytes, offset: int) -> None:
        left = memoryview(block.data)
        while len(left):
            num = os.pwrite(self._file, left, offset)
            left, offset = left[num:], offset + num

    # --- the index ----------------------------------------------------------------------------------------------------

    def _set_of(self, key: bytes) -> int:
        return int.from_bytes(key[:8], "little") % self.num_sets

    def _offset_of(self, place: int, way: int) -> int:
        return self._first + (place * WAYS + way) * self._slot

    def _index_of(self, place: int) -> bytes:
        raw = os.pread(self._file, _SET_BYTES, place * _SET_BYTES)
        return raw.ljust(_SET_BYTES, b"\0")  # of a file that was cut

    def _entry_of(self, key: bytes) -> _BlockEntry | None:
        place = self._set_of(key)
        try:
            raw = self._index_of(place)
        except OSError:
            self.counts.failed += 1
            return None
        way = _way_of(key, raw)
        if way is None:
            return None
        _, turn, num_bytes, crc = _ENTRY.unpack_from(raw, way * _ENTRY.size)
        if num_bytes > self._slot:
            return None
        later = _next_turn(raw)
        is_newest = turn + 1 == later
        return _BlockEntry(place=place, way=way, num_bytes=num_bytes, crc=crc, turn=0 if is_newest else later)  # fmt: skip

    def _way_for(self, key: bytes, raw: bytes) -> int:
        """Its own, a free one, or the least recently used one."""
        own = _way_of(key, raw)
        free = _way_of(_FREE, raw) if own is None else own
        if free is not None:
            return free
        turns = _TURNS.unpack(raw)
        return turns.index(min(turns))

    def _is_filled(self, entry: _BlockEntry, into: Sequence[Bytes]) -> bool:
        offset, num = self._offset_of(entry.place, entry.way), 0
        try:
            num = os.preadv(self._file, [each.data for each in into], offset)
        except OSError:
            self.counts.failed += 1
            return False
        if num == entry.num_bytes and crc_of(into) == entry.crc:
            return True
        self.counts.damaged += 1
        return False

    def _touch(self, entry: _BlockEntry) -> None:
        """Make it the most recently used one of its set, unless it is."""
        if entry.turn:
            at = entry.place * _SET_BYTES + entry.way * _ENTRY.size
            try:
                os.pwrite(self._file, entry.turn.to_bytes(8, "little"), at + len(_FREE))
            except OSError:
                self.counts.failed += 1

    # --- threads of a process -----------------------------------------------------------------------------------------

    @contextmanager
    def claimed(self, keys: Sequence[bytes]) -> Iterator[frozenset[bytes]]:
        """Those of the keys that this thread is to fetch while the block runs. The others are being fetched: `wait` for them."""
        with self._claiming:
            own = frozenset(key for key in keys if key not in self._claims)
            event = threading.Event()
            self._claims |= dict.fromkeys(own, event)
        try:
            yield own
        finally:
            with self._claiming:
                for key in own:
                    del self._claims[key]
            event.set()

    def wait(self, key: bytes) -> None:
        """Until the thread that fetches it is done, well or not."""
        with self._claiming:
            event = self._claims.get(key)
        if event is not None:
            event.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockEntry:
    """An entry of the index. `turn`: that it gets when it is used, 0 where it was used last."""

    place: int
    way: int
    num_bytes: int
    crc: int
    turn: int


def _next_turn(raw: bytes) -> int:
    turns: tuple[int, ...] = _TURNS.unpack(raw)
    return min(max(turns) + 1, _LAST_TURN)  # of a damaged index, too


def _way_of(key: bytes, raw: bytes) -> int | None:
    at = raw.find(key)
    while at >= 0 and at % _ENTRY.size:
        at = raw.find(key, at + 1)
    return None if at < 0 else at // _ENTRY.size


def _reopened(folder: Path, max_bytes: int, block_bytes: int) -> BlockCache:
    return BlockCache(folder, max_bytes=max_bytes, block_bytes=block_bytes)
