"""HDF5 files from outside: opened read-only, every link checked, every size bounded before memory is taken.

An HDF5 file can name other files (external links, external raw storage, virtual datasets), name itself (soft links), and
declare a dataset of any size in a few bytes. None of that is needed by the sources we read, so it is refused.
HDF5 rules: The HDF Group, "HDF5 File Format Specification" §III, and h5py docs ("Group.get(getlink=True)").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from adapters.containers.hdf5_heap import check_heaps
from schemas.errors import Code, SourceError
from schemas.regular_file import check_regular

MIB = 1 << 20
MAX_DATASET_BYTES = 512 * MIB  # 1000 s of 14 float64 joints at 1 kHz are 107 MiB
MAX_BLOCK_BYTES = 256 * MIB  # raw pictures held at a time
MAX_OBJECTS = 100_000  # groups and datasets listed by `keys`
# Raw pictures stored as flat rows say their size by their length only (RoboMIND: `Tavish9/any4lerobot:robomind2lerobot`).
FLAT_PICTURES = {480 * 640 * 3: (480, 640), 720 * 1280 * 3: (720, 1280)}
COMPRESSED = (b"\xff\xd8\xff", b"\x89PN")  # JPEG, PNG


class Hdf5File:
    """One open file. Use as a context manager; keys are absolute paths without the leading slash.

    Every method raises SourceError: MISSING_FILE, TRUNCATED or UNREADABLE on opening; UNSAFE_CONTENT for a link or
    storage that leads elsewhere; MISSING_CHANNEL for a key that is not there, naming what is; TOO_LARGE for a
    dataset over its bound; CORRUPT_RECORD when the bytes cannot be read back.
    """

    def __init__(self, path: Path, *, where: str = "") -> None:
        self.path = path
        self.where = where or path.name
        self._file: h5py.File | None = None

    def __enter__(self) -> Self:
        size = check_regular(self.path, where=self.where)
        try:
            # No lock: raw data is only read, and many network file systems have no locks.
            self._file = h5py.File(self.path, "r", locking=False)
        except (OSError, RuntimeError, ValueError) as error:
            is_cut = "truncated" in str(error) or size == 0
            code = Code.TRUNCATED if is_cut else Code.UNREADABLE
            problem = f"not a complete HDF5 file: {str(error)[:300]}; download it again"
            raise SourceError(code, problem, where=self.where) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def keys(self) -> tuple[str, ...]:
        """Every dataset in the file, sorted; links are not followed."""
        keys_found: list[str] = []
        seen = 0

        def note(name: str, node: Any) -> bool | None:
            nonlocal seen
            seen += 1
            if isinstance(node, h5py.Dataset):
                keys_found.append(name)
            return True if seen > MAX_OBJECTS else None

        with self._reading("/"):
            self._open().visititems(note)
        if seen > MAX_OBJECTS:
            message = f"more than {MAX_OBJECTS} objects in one file"
            raise SourceError(Code.TOO_LARGE, message, where=self.where)
        with self._reading("/"):
            return tuple(sorted(keys_found))

    def children(self, key: str) -> tuple[str, ...]:
        """Names directly in the group `key` ("" is the file), sorted; empty when it is not there or no group."""
        node = self._find(key) if key else self._open()
        if not isinstance(node, h5py.Group):
            return ()
        with self._reading(key):
            names = tuple(islice(node, MAX_OBJECTS + 1))
        if len(names) > MAX_OBJECTS:
            message = f"more than {MAX_OBJECTS} objects in one group"
            raise SourceError(Code.TOO_LARGE, message, where=f"{self.where}:{key}")
        with self._reading(key):  # a name that is no UTF-8 comes as bytes
            return tuple(sorted(names))

    def has_attribute(self, key: str, name: str) -> bool:
        """Whether the object `key` ("" is the file) is there and carries the attribute."""
        node = self._find(key) if key else self._open()
        with self._reading(key):
            return node is not None and name in node.attrs

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of the dataset; nothing of it is read."""
        return tuple(int(n) for n in self._dataset(key).shape)

    def picture_shape(self, key: str) -> tuple[int, ...]:
        """As `shape`, but [N, H, W, 3] where each row is one raw picture in a flat buffer; only row 0 is read."""
        node = self._dataset(key)
        shape = self.shape(key)
        if len(shape) == 1 and shape[0] and h5py.check_vlen_dtype(node.dtype) == np.uint8:
            with self._reading(key):
                first = bytes(node[0])
            if len(first) in FLAT_PICTURES and first[:3] not in COMPRESSED:
                return (*shape, *FLAT_PICTURES[len(first)], 3)
        return shape

    def rows(self, key: str, *shape: int, num_rows: int | None = None) -> npt.NDArray[np.float64]:
        """A [N, *shape] dataset as float64; N is `num_rows` where given, else any number above zero.

        Raises:
            SourceError: also EMPTY_EPISODE (no rows) and SHAPE_MISMATCH.
        """
        stored = self.shape(key)
        where = f"{self.where}:{key}"
        if stored[:1] == (0,):
            raise SourceError(Code.EMPTY_EPISODE, "no rows", where=where)
        if stored != ((num_rows or stored[0]) if stored else 0, *shape):
            expected = f"[{num_rows or 'N'}{''.join(f', {n}' for n in shape)}]"
            raise SourceError(
                Code.SHAPE_MISMATCH, f"shape {list(stored)}; expected {expected}", where=where
            )
        return self.array(key).astype(np.float64)

    def pictures(
        self, key: str, indices: Sequence[int], *, max_bytes: int = MAX_BLOCK_BYTES
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Rows `indices` (ascending) of a [N, H, W, 3] uint8 dataset, or of flat ones, one at a time.

        Memory is bounded by one block: as many rows as a storage chunk spans, at most `max_bytes`.

        Raises:
            SourceError: also UNKNOWN_LAYOUT (no colour pictures) and FRAME_COUNT (a row beyond the end).
        """
        node = self._dataset(key)
        where = f"{self.where}:{key}"
        shape = self.picture_shape(key)
        if node.ndim == 1 and len(shape) == 4:
            yield from self._flat_images(key, indices, shape)
            return
        if node.dtype != np.uint8 or node.ndim != 4 or node.shape[3] != 3:
            problem = f"{node.dtype} {list(node.shape)}; expected uint8 [N, H, W, 3]"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        if indices and indices[-1] >= node.shape[0]:
            problem = f"{node.shape[0]} images, expected at least {indices[-1] + 1}"
            raise SourceError(Code.FRAME_COUNT, problem, where=where)
        one = int(np.prod([int(n) for n in node.shape[1:]], dtype=object))
        per_chunk = int(node.chunks[0]) if node.chunks else 1
        if one * per_chunk > max_bytes:
            problem = f"{per_chunk} images of {one} bytes in one chunk; expected at most {max_bytes} bytes"
            raise SourceError(Code.TOO_LARGE, problem, where=where)
        start, block = -1, np.zeros((0,), np.uint8)
        for index in indices:
            if start != index - index % per_chunk:
                start = index - index % per_chunk
                with self._reading(key):
                    block = np.asarray(node[start : start + per_chunk])
            yield block[index - start]

    def _flat_images(
        self, key: str, indices: Sequence[int], shape: tuple[int, ...]
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Rows of a dataset of flat buffers, each as a picture of the size of row 0."""
        node = self._dataset(key)
        for index in indices:
            if index >= shape[0]:
                problem = f"{shape[0]} images, expected at least {index + 1}"
                raise SourceError(Code.FRAME_COUNT, problem, where=f"{self.where}:{key}")
            with self._reading(key):
                row = np.asarray(node[index], np.uint8)
            if row.size != shape[1] * shape[2] * 3:
                problem = f"row {index} has {row.size} bytes; expected {shape[1] * shape[2] * 3}"
                raise SourceError(Code.CORRUPT_IMAGE, problem, where=f"{self.where}:{key}")
            yield row.reshape(shape[1:])

    def array(self, key: str, *, max_bytes: int = MAX_DATASET_BYTES) -> npt.NDArray[Any]:
        """The whole numeric or boolean dataset, in its own dtype."""
        node = self._dataset(key)
        where = f"{self.where}:{key}"
        if node.dtype.kind not in "biuf":
            problem = f"dtype {node.dtype}; expected numbers"
            raise SourceError(Code.UNSAFE_CONTENT, problem, where=where)
        self._check_bytes(node, max_bytes, where)
        with self._reading(key):
            return np.asarray(node[()])

    def texts(self, key: str, *, max_bytes: int = MIB) -> tuple[str, ...]:
        """The strings of a dataset (one for a scalar), UTF-8, wrong bytes replaced."""
        return tuple(b.decode("utf-8", "replace") for b in self.blobs(key, max_bytes=max_bytes))

    def blobs(self, key: str, *, max_bytes: int = MAX_DATASET_BYTES) -> tuple[bytes, ...]:
        """The rows of a dataset as bytes: strings, or uint8 of any length (compressed pictures, say).

        Variable-length rows may share storage, so the file size does not bound them; they are counted as read.
        """
        node = self._dataset(key)
        where = f"{self.where}:{key}"
        is_text = node.dtype.kind == "S" or h5py.check_string_dtype(node.dtype) is not None
        inner = h5py.check_vlen_dtype(node.dtype)
        if not (is_text or node.dtype == np.uint8 or inner == np.uint8):
            problem = f"dtype {node.dtype}; expected strings or bytes"
            raise SourceError(Code.UNSAFE_CONTENT, problem, where=where)
        self._check_bytes(node, max_bytes, where)
        out: list[bytes] = []
        total = 0
        with self._reading(key):
            rows = [node[()]] if node.ndim == 0 else (node[i] for i in range(node.shape[0]))
            for row in rows:
                data = bytes(row) if isinstance(row, bytes) else np.asarray(row, np.uint8).tobytes()
                total += len(data)
                if total > max_bytes:
                    problem = f"more than {max_bytes} bytes in {len(out) + 1} rows"
                    raise SourceError(Code.TOO_LARGE, problem, where=where)
                out.append(data)
        return tuple(out)

    def attribute(self, key: str, name: str, *, max_bytes: int = MIB) -> Any:
        """One attribute of an object ("" is the file): a number, str, or array of them.

        Raises:
            SourceError: MISSING_CHANNEL when absent; UNSAFE_CONTENT when it is a reference; TOO_LARGE.
        """
        where = f"{self.where}:{key}@{name}"
        node = self._open() if key == "" else self._find(key)
        with self._reading(key):
            is_absent = node is None or name not in node.attrs
            have = [] if node is None or not is_absent else sorted(islice(node.attrs, 50))
        if node is None or is_absent:
            raise SourceError(
                Code.MISSING_CHANNEL, f"no such attribute; available: {have}", where=where
            )
        with self._reading(key):
            stored = node.attrs.get_id(name)
            is_text = h5py.check_string_dtype(stored.dtype) is not None
            if not is_text and stored.dtype.kind not in "biufS":
                raise SourceError(
                    Code.UNSAFE_CONTENT,
                    f"dtype {stored.dtype} is not supported; expected a boolean, integer or float type",
                    where=where,
                )
            num_bytes = int(np.prod(stored.shape)) * stored.dtype.itemsize
            if num_bytes > max_bytes:
                raise SourceError(Code.TOO_LARGE, f"{num_bytes} bytes > {max_bytes}", where=where)
            self._check_heaps(stored.dtype)
            value = node.attrs[name]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def _open(self) -> h5py.File:
        if self._file is None:
            raise ValueError(f"{self.where}: the file is not open; use `with`")
        return self._file

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Damage inside the file surfaces as any of these, depending on what the library was parsing."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            problem = f"cannot be read back: {str(error)[:300]}"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=f"{self.where}:{key}") from error

    def _find(self, key: str) -> h5py.Dataset | h5py.Group | None:
        """The object at `key`, checking the link of each step; None when a step is not there."""
        node: Any = self._open()
        for part in key.strip("/").split("/"):
            if not isinstance(node, h5py.Group):
                return None
            with self._reading(key):
                link = node.get(part, getlink=True)
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                leads = f"{type(link).__name__} to {getattr(link, 'filename', '')}{link.path}"
                message = f"{leads}; links are refused; store the data itself"
                raise SourceError(Code.UNSAFE_CONTENT, message, where=f"{self.where}:{key}")
            with self._reading(key):
                node = node[part]
        member: h5py.Dataset | h5py.Group | None = node
        return member

    def _dataset(self, key: str) -> h5py.Dataset:
        node = self._find(key)
        where = f"{self.where}:{key}"
        if not isinstance(node, h5py.Dataset):
            raise SourceError(Code.MISSING_CHANNEL, self._listing(key), where=where)
        with self._reading(key):
            has_shape, is_elsewhere = node.shape is not None, node.is_virtual or node.external
            self._check_heaps(node.dtype)
        if not has_shape:
            raise SourceError(Code.MISSING_CHANNEL, "the dataset is empty", where=where)
        if is_elsewhere:
            message = (
                "the dataset reads other files (virtual or external storage), which is refused"
            )
            raise SourceError(Code.UNSAFE_CONTENT, message, where=where)
        return node

    def _check_heaps(self, dtype: np.dtype[Any]) -> None:
        text = h5py.check_string_dtype(dtype)
        if h5py.check_vlen_dtype(dtype) is not None or (text is not None and text.length is None):
            check_heaps(self.path, self.where)

    def _listing(self, key: str) -> str:
        """`no such dataset; state/end holds [...]` for the deepest part of the path that exists."""
        parts = key.strip("/").split("/")
        for depth in range(len(parts) - 1, -1, -1):
            node = self._find("/".join(parts[:depth])) if depth else self._open()
            if isinstance(node, h5py.Group):
                place = "/".join(parts[:depth]) or "the file"
                with self._reading(key):
                    return f"no such dataset; {place} contains {sorted(islice(node, 50))}"
        return "no such dataset"

    def _check_bytes(self, node: h5py.Dataset, max_bytes: int, where: str) -> None:
        """Declared size and size of one chunk, both of which the library would allocate."""
        item = node.dtype.itemsize
        for what, shape in (("dataset", node.shape), ("chunk", node.chunks or ())):
            num_bytes = item
            for n in shape:
                num_bytes *= int(n)  # Python integers: a hostile shape must not overflow
            if num_bytes > max_bytes:
                problem = (
                    f"{what} {tuple(shape)} has {num_bytes} bytes; expected at most {max_bytes}"
                )
                raise SourceError(Code.TOO_LARGE, problem, where=where)
