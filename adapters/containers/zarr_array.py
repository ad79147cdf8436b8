"""Zarr v2 arrays, read by ourselves: metadata is checked, every size is bounded, and no codec is chosen by the data alone.

The `zarr` library would run any codec that the file names, `pickle` among them, and fills a chunk that is not there with
zeros, so that half a download reads as data. Specification: zarr.readthedocs.io, "Zarr storage specification version 2".
Codecs: imagecodecs (Blosc, Zstd, LZ4, JPEG XL), imported only when a chunk needs it; zlib and gzip are built in.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.containers.zarr_store import MAX_MEMBER_BYTES, MIB, ZarrStore
from schemas.errors import Code, ConfigError, SourceError
from schemas.invalid import reason
from schemas.json_text import parse_json

MAX_READ_BYTES = 512 * MIB
DTYPES = ("|u1", "|i1", "|b1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")
JPEGXL = "imagecodecs_jpegxl"  # UMI's own codec id


class _Compressor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    id: str


class _Meta(BaseModel):
    """`.zarray`, of which only what we can read is allowed."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    zarr_format: int
    shape: tuple[int, ...] = Field(min_length=1, max_length=8)
    chunks: tuple[int, ...] = Field(min_length=1, max_length=8)
    dtype: str
    order: str = "C"
    compressor: _Compressor | None = None
    filters: tuple[Any, ...] | None = None
    dimension_separator: str = "."

    @model_validator(mode="after")
    def _check(self) -> _Meta:
        if self.zarr_format != 2 or self.order != "C" or self.filters:
            raise ValueError("expected format 2, order C and no filters")
        if self.dtype not in DTYPES or self.dimension_separator not in "./":
            raise ValueError(f"dtype {self.dtype[:20]!r}; expected little-endian numbers")
        if len(self.shape) != len(self.chunks) or min(self.chunks) < 1 or min(self.shape) < 0:
            raise ValueError(f"chunks {self.chunks} of shape {self.shape}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrArray:
    """One array of a store. `read` and `pictures` hold at most one block of rows."""

    store: ZarrStore
    key: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: str  # "" for none
    separator: str

    @property
    def where(self) -> str:
        return f"{self.store.where}:{self.key}"

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows [start, stop) along the first axis.

        Raises:
            SourceError: SHAPE_MISMATCH (rows beyond the end), TOO_LARGE, MISSING_FILE (a chunk), CORRUPT_RECORD.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            problem = f"rows {start} to {stop} of {self.shape[0]}"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=self.where)
        self._bound((stop - start, *self.shape[1:]), MAX_READ_BYTES)
        out = np.zeros((stop - start, *self.shape[1:]), self.dtype)
        tall = self.chunks[0]
        others = [range(-(-n // c)) for n, c in zip(self.shape[1:], self.chunks[1:], strict=True)]
        for row in range(start // tall, -(-stop // tall)):
            first, last = max(start, row * tall), min(stop, (row + 1) * tall)
            for at in product(*others):
                block = self._chunk((row, *at))
                spans = [slice(i * c, i * c + c) for i, c in zip(at, self.chunks[1:], strict=True)]
                target = out[(slice(first - start, last - start), *spans)]
                inner = tuple(slice(0, n) for n in target.shape[1:])
                target[...] = block[(slice(first - row * tall, last - row * tall), *inner)]
        return out

    def pictures(self, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """Rows `indices` (ascending) of a [N, H, W, 3] uint8 array, one at a time; raises as `read`, or UNKNOWN_LAYOUT."""
        if self.dtype != np.uint8 or len(self.shape) != 4 or self.shape[3] != 3:
            problem = f"{self.dtype} {list(self.shape)}; expected uint8 [N, H, W, 3]"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=self.where)
        start, block = -1, np.zeros((0,), np.uint8)
        for index in indices:
            if start != index - index % self.chunks[0]:
                start = index - index % self.chunks[0]
                block = self.read(start, min(start + self.chunks[0], self.shape[0]))
            yield block[index - start]

    def _chunk(self, at: tuple[int, ...]) -> npt.NDArray[Any]:
        name = f"{self.key}/{self.separator.join(map(str, at))}"
        where = f"{self.store.where}/{name}"
        size = self._bound(self.chunks, MAX_MEMBER_BYTES)
        data = self.store.get(name)
        if data is None:
            raise SourceError(Code.MISSING_FILE, "the chunk is missing; download it", where=where)
        try:
            values = _DECODERS[self.codec](data, self.chunks, size)
            return np.frombuffer(values, self.dtype, count=size // self.dtype.itemsize).reshape(
                self.chunks
            )
        except (ValueError, RuntimeError, zlib.error) as error:
            problem = f"a {self.codec or 'raw'} chunk does not decode: {str(error)[:200]}"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=where) from error

    def _bound(self, shape: tuple[int, ...], limit: int) -> int:
        size = self.dtype.itemsize
        for n in shape:
            size *= n  # Python integers: a hostile shape must not overflow
        if size > limit:
            problem = f"{list(shape)} has {size} bytes; expected at most {limit}"
            raise SourceError(Code.TOO_LARGE, problem, where=self.where)
        return size


def zarr_array(store: ZarrStore, key: str) -> ZarrArray:
    """Open an array by its metadata.

    Raises:
        SourceError: MISSING_CHANNEL (no such array), UNKNOWN_LAYOUT (another format, order, dtype, filter or codec).
    """
    text = store.get(f"{key}/.zarray", max_bytes=MIB)
    where = f"{store.where}:{key}"
    if text is None:
        raise SourceError(Code.MISSING_CHANNEL, "no such array", where=where)
    try:
        meta = _Meta.model_validate(parse_json(text, allow_nan=True))
    except (ValueError, RecursionError) as error:
        problem = f"{reason(error)}; expected a plain Zarr v2 array"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where) from error
    codec = meta.compressor.id if meta.compressor else ""
    if codec not in _DECODERS:
        problem = f"codec {codec[:40]!r}; expected one of {sorted(filter(None, _DECODERS))}"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    return ZarrArray(
        store=store,
        key=key,
        shape=meta.shape,
        chunks=meta.chunks,
        dtype=np.dtype(meta.dtype),
        codec=codec,
        separator=meta.dimension_separator,
    )


def _imagecodecs() -> Any:
    try:
        return import_module("imagecodecs")
    except ImportError as error:
        raise ConfigError(
            "reading compressed Zarr needs imagecodecs", remedy="pip install 'eicorpus[zarr]'"
        ) from error


def _raw(data: bytes, chunks: tuple[int, ...], size: int) -> bytes:
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes, expected {size}")
    return data


def _inflate(data: bytes, chunks: tuple[int, ...], size: int) -> bytes:
    worker = zlib.decompressobj(wbits=47)  # zlib or gzip, told by the header
    out = worker.decompress(data, size + 1)
    if not worker.eof:
        raise ValueError("truncated, or larger than the header states")
    return _raw(out, chunks, size)


def _blosc(data: bytes, chunks: tuple[int, ...], size: int) -> bytes:
    """A Blosc 1 header says the size it will take (bytes 4 to 8) and its own (12 to 16); the decoder does not compare."""
    sizes = (int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little"))
    if sizes != (size, len(data)):
        raise ValueError(f"the header states {sizes}; found {(size, len(data))}")
    return _raw(_imagecodecs().blosc_decode(data), chunks, size)


def _sized(name: str) -> Callable[[bytes, tuple[int, ...], int], bytes]:
    """zstd, or LZ4 with its size in front (numcodecs): decoded into a buffer of the expected size, never beyond it."""

    def decode(data: bytes, chunks: tuple[int, ...], size: int) -> bytes:
        options = {"header": True} if name == "lz4" else {}
        return _raw(
            bytes(getattr(_imagecodecs(), f"{name}_decode")(data, out=size, **options)),
            chunks,
            size,
        )

    return decode


def _jpegxl(data: bytes, chunks: tuple[int, ...], size: int) -> bytes:
    """One picture a chunk; the decoder compares its size with `out` before it takes memory for pixels."""
    out = np.empty(chunks, np.uint8)
    return _raw(np.asarray(_imagecodecs().jpegxl_decode(data, out=out)).tobytes(), chunks, size)


_DECODERS: dict[str, Callable[[bytes, tuple[int, ...], int], bytes]] = {
    "": _raw,
    "zlib": _inflate,
    "gzip": _inflate,
    "blosc": _blosc,
    "zstd": _sized("zstd"),
    "lz4": _sized("lz4"),
    JPEGXL: _jpegxl,
}
