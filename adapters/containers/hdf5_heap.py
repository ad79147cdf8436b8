"""Global heaps of an HDF5 file, where values of variable length lie: damage in one makes libhdf5 2.0 loop endlessly.

Source of the form: The HDF Group, "HDF5 File Format Specification" §III.E (Global Heap). The library walks the objects of
a collection by their sizes; an object of free space with the size zero never ends. So the sizes are walked here before a
value of variable length is read.
"""

from __future__ import annotations

import mmap
import struct
from functools import lru_cache
from pathlib import Path

from schemas.errors import Code, SourceError
from schemas.regular_file import file_stamp, open_regular

# Of a larger file only the start is checked: the time limit of an episode ends what loops.
MOST_BYTES = 256 << 20
SIGNATURE = b"GCOL\x01\0\0\0"  # with the version and its reserved bytes
HEAD = struct.Struct("<8sQ")  # signature, size of the collection
OBJECT = struct.Struct("<HHIQ")  # index, references, reserved, size
SMALLEST_BYTES = 4096  # of a collection
FREE_SPACE = 0  # the index whose size counts its own head


def check_heaps(path: Path, where: str) -> None:
    """Every collection's objects lie in it, one behind the other.

    Raises:
        SourceError: CORRUPT_RECORD, and as `schemas.regular_file.open_regular`.
    """
    offset = _first_broken(path, file_stamp(path, where=where))
    if offset is not None:
        problem = f"the global heap at byte {offset} is damaged; download the file again"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)


@lru_cache(maxsize=256)
def _first_broken(path: Path, stamp: tuple[int, int, int]) -> int | None:
    """Where the first damaged collection starts. `stamp` only keys the cache."""
    with open_regular(path) as file:
        size = min(stamp[1], MOST_BYTES)
        if not size:
            return None
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            at = data.find(SIGNATURE)
            while at >= 0:
                if at + HEAD.size <= size and _is_broken(data, at, stamp[1]):
                    return at
                at = data.find(SIGNATURE, at + 1)
    return None


def _is_broken(data: mmap.mmap, start: int, num_bytes: int) -> bool:
    """Whether a walk over the objects stops or leaves the collection. What has no likely size is no collection: text, say."""
    _, size = HEAD.unpack_from(data, start)
    end = start + size
    if size < SMALLEST_BYTES or end > num_bytes:
        return False  # the library refuses it by itself
    at = start + HEAD.size
    while at + OBJECT.size <= min(end, len(data)):
        index, _, _, held = OBJECT.unpack_from(data, at)
        step = held if index == FREE_SPACE else OBJECT.size + -(-held // 8) * 8
        if step < OBJECT.size or at + step > end:
            return True
        at += step
    return False
