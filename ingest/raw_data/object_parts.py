"""Parts of large objects: archives of which an episode reads some members only.

An object that is read in parts has a sparse file beside the trees, followed in the same file by one byte for each block: 1 where it is here.
A block is marked after its content is written, so a reader never sees zeros for data, and two processes that fetch one block write the
same bytes. Because neither is synchronised, the files lie in a folder of this start of the machine; those of an earlier one are removed.

How much a read fetches: a request takes as long as `GAP_BYTES` more of one. So a read behind the one before, or within `GAP_BYTES` of
it, goes on from there with twice as much, up to `MOST_BYTES`: what is dense is fetched like a whole object. Any other read begins with one
block: headers of large members, and the index of a zip.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from ingest.raw_data.object_cache import PARTS, ObjectCache, listed_version, on_disk
from ingest.storage.object_store import PART_BYTES, ObjectStore
from schemas.regular_file import is_placeholder

WHOLE_BYTES = PART_BYTES  # an object of one request is fetched whole
BLOCK_BYTES = 256 << 10
GAP_BYTES = 4 << 20  # what comes in the time of one request: 40 ms at 100 MB/s
MOST_BYTES = 4 * PART_BYTES  # of one read, beyond what it asks for


def open_parts(
    cache: ObjectCache, store: ObjectStore, tree: str, path: Path, key: str, end: int | None
) -> PartialFile | None:
    """An object that is fetched as it is read; None for one that is here, or small, or none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    is_object = stat.S_ISREG(status.st_mode) and is_placeholder(status)
    if not is_object or status.st_size <= WHOLE_BYTES:
        return None
    return PartialFile(cache, store, tree, key, end)


class PartialFile(io.RawIOBase):
    """One object, read-only and seekable. It has no descriptor: its file has holes."""

    def __init__(
        self, cache: ObjectCache, store: ObjectStore, tree: str, key: str, end: int | None
    ) -> None:
        super().__init__()
        self._cache, self._store, self._tree = cache, store, tree
        self._object, _ = cache.listed_object(tree, key)
        size = self._object.size
        self._end = size if end is None else min(end, size)  # of what is read
        self._num_blocks = -(-size // BLOCK_BYTES)
        self._handle = self._opened()
        self._at = 0
        self._run_end = -GAP_BYTES - 1  # of what was fetched last
        self._ahead = BLOCK_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._object.size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self._object.key}: seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """
        Raises:
            ConfigError, TransientError: as `ObjectCache.use`.
        """
        view = memoryview(buffer).cast("B")[: max(0, self._object.size - self._at)]
        if not view:
            return 0
        first, last = self._at // BLOCK_BYTES, (self._at + len(view) - 1) // BLOCK_BYTES
        if self._absent(first, last + 1):
            self._fetch(first, last + 1)
        with on_disk(self._cache.folder):
            count = os.preadv(self._handle, [view], self._at)
        self._at += count
        return count

    def close(self, *, _close: Callable[[int], None] = os.close) -> None:
        # The default is bound because a zip may be closed when the interpreter has taken modules apart.
        if not self.closed:
            _close(self._handle)
        super().close()

    def _opened(self) -> int:
        size = self._object.size + self._num_blocks
        return self._cache.opened_parts(self._tree, self._object.key, size)

    def _absent(self, first: int, stop: int) -> list[int]:
        """Blocks of [first, stop) that are not here."""
        with on_disk(self._cache.folder):
            marks = os.pread(self._handle, stop - first, self._object.size + first)
        return [first + i for i, mark in enumerate(marks) if not mark]

    def _fetch(self, first: int, stop: int) -> None:
        fresh = (
            self._opened()
        )  # another file, if the one before was evicted; not evicted from here on
        os.close(self._handle)
        self._handle = fresh
        start = next(iter(self._absent(first, stop)), first)
        is_running_on = 0 <= start * BLOCK_BYTES - self._run_end <= GAP_BYTES
        if is_running_on:
            start = self._run_end // BLOCK_BYTES
        self._ahead = min(2 * self._ahead, MOST_BYTES) if is_running_on else BLOCK_BYTES
        last_block = -(-self._end // BLOCK_BYTES)
        window_end = (start // _window_blocks() + 1) * _window_blocks()
        stop = max(stop, min(start + self._ahead // BLOCK_BYTES, window_end, last_block))
        self._run_end = stop * BLOCK_BYTES
        for window, at, end in _windows(start, stop):
            self._fetch_window(window, at, end)

    def _fetch_window(self, window: int, first: int, stop: int) -> None:
        """One reader at a time fetches in a window, so a block is counted and downloaded once."""
        with self._cache.fetching_of(self._tree, f"{self._object.key}{PARTS}/{window}"):
            spans = list(_spans(self._absent(first, stop), self._object.size))
            num_bytes = sum(end - at for at, end in spans)
            if spans:
                self._cache.reserve_more(self._tree, self._object, num_bytes)
                self._download(spans)

    def _download(self, spans: list[tuple[int, int]]) -> None:
        each = self._object
        with listed_version(each.key):
            pieces = self._store.ranges(each.key, spans, size=each.size, e_tag=each.e_tag)
            for (at, end), data in zip(spans, pieces, strict=True):
                first, stop = at // BLOCK_BYTES, -(-end // BLOCK_BYTES)
                with on_disk(self._cache.folder):
                    _write(self._handle, data, at)
                    _write(self._handle, b"\1" * (stop - first), each.size + first)


def _window_blocks() -> int:
    return MOST_BYTES // BLOCK_BYTES


def _windows(first: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Blocks [first, stop) by the fixed windows of `MOST_BYTES` that they lie in: the window, and its blocks among them."""
    num_blocks = _window_blocks()
    for window in range(first // num_blocks, -(-stop // num_blocks)):
        yield window, max(first, window * num_blocks), min(stop, (window + 1) * num_blocks)


def _spans(blocks: list[int], size: int) -> Iterator[tuple[int, int]]:
    """Bytes of ascending blocks, in requests of at most `PART_BYTES`."""
    at = 0
    while at < len(blocks):
        stop = at + 1
        while (
            stop < len(blocks)
            and blocks[stop] == blocks[stop - 1] + 1
            and (stop - at) * BLOCK_BYTES < PART_BYTES
        ):
            stop += 1
        yield blocks[at] * BLOCK_BYTES, min((blocks[stop - 1] + 1) * BLOCK_BYTES, size)
        at = stop


def _write(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(handle, view, at)
        view, at = view[count:], at + count
