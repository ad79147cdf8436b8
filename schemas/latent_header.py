"""The head of a safetensors file, read and written without the library: what tensors it holds, and where, and its metadata.

Format: eight bytes little-endian n, n bytes of JSON {name: {"dtype", "shape", "data_offsets"}, "__metadata__": {text: text}}, then the
bytes of the tensors without gaps (CODE: huggingface/safetensors, README "Format"). A file that is read is a stranger's: nothing of it is
believed. One that is written is known in size before its first picture is, and can be filled in any order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.json_text import parse_json
from schemas.latents import (
    CODE,
    FRAME_INDEX,
    LATENTS,
    PICTURE_CRC,
    SCALE,
    STORED_AS,
    LatentFacts,
    facts_of,
)

MAX_HEADER_BYTES = 1 << 20  # ours have a thousand
MAX_TEXT_HEADER_BYTES = 64 << 20  # of text features: it holds every text of the episode
ALIGNMENT = 8  # of the first tensor, by spaces after the JSON
NUM_BYTES = {"BF16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1, "F32": 4, "I64": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A tensor of a file; its bytes are [start, end) of the file, or of the pack that the file is a member of."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file holds."""

    tensors: Mapping[str, Held]
    facts: LatentFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The bytes [start, start + num_bytes) of a file. As rows say it: nothing of it is believed."""

    start: int
    num_bytes: int

    def fits(self, size: int) -> bool:
        """Whether a file of `size` bytes has them all."""
        return 0 <= self.start <= size and 0 <= self.num_bytes <= size - self.start


def span_of(pack_offset: int | None, num_bytes: int | None) -> Span | None:
    """The offset and size of a row's file in its pack; None for a single file."""
    return None if pack_offset is None else Span(start=pack_offset, num_bytes=num_bytes or 0)


def read_header(path: Path, span: Span | None = None) -> Header:
    """The head of a file of latents; raises as `read_tensors`."""
    tensors, metadata = read_tensors(path, span)
    return Header(tensors=tensors, facts=facts_of(metadata, where=str(path)))


def read_tensors(
    path: Path, span: Span | None = None, *, max_bytes: int = MAX_HEADER_BYTES
) -> tuple[dict[str, Held], dict[str, str] | None]:
    """The tensors of a safetensors file, which fit into it without gaps, and its metadata as it says it.

    Args:
        span: where it lies in the pack `path`; None where `path` is the file itself.
        max_bytes: of the header.

    Raises:
        ConfigError: it is none, or does not lie in its pack.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    at = Span(start=0, num_bytes=size) if span is None else span
    if not at.fits(size):
        problem = f"bytes {at.start} to {at.start + at.num_bytes} of a pack of {size} bytes"
        raise ConfigError(problem, remedy="run `eicorpus verify`", where=str(path))
    with path.open("rb") as file:

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        return tensors_within(read, at, where=str(path), max_bytes=max_bytes)


def tensors_within(
    read: Callable[[int, int], bytes], at: Span, *, where: str, max_bytes: int = MAX_HEADER_BYTES
) -> tuple[dict[str, Held], dict[str, str] | None]:
    """As `read_tensors`, of bytes that lie anywhere.

    Args:
        read: (start, length) to bytes, fewer where they end. at: where the file lies among them.

    Raises:
        ConfigError: it is none.
    """
    length = int.from_bytes(read(at.start, min(8, at.num_bytes)), "little")
    if not 2 <= length <= min(max_bytes, at.num_bytes - 8):
        raise ConfigError(f"not a safetensors file: its header claims {length} bytes", where=where)
    text = read(at.start + 8, length)
    first = at.start + 8 + length
    try:
        raw = parse_json(text)
        metadata = raw.pop("__metadata__", None)
        tensors = {name: _held(entry, first) for name, entry in raw.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a safetensors header: {error!r}", where=where) from error
    _check_fits(tensors, first, at.start + at.num_bytes, where)
    return tensors, metadata


def _held(entry: Mapping[str, Any], base: int) -> Held:
    start, end = (int(each) for each in entry["data_offsets"])
    shape = tuple(int(each) for each in entry["shape"])
    held = Held(dtype=str(entry["dtype"]), shape=shape, start=base + start, end=base + end)
    if min(shape, default=0) < 0 or prod(shape) * NUM_BYTES[held.dtype] != end - start:
        raise ValueError(f"{end - start} bytes for {held.dtype} {list(shape)}")
    return held


def _check_fits(tensors: Mapping[str, Held], start: int, end: int, where: str) -> None:
    at = start
    for held in sorted(tensors.values(), key=lambda each: each.start):
        if held.start != at:
            raise ConfigError(
                f"damaged: the tensors leave a gap or overlap at byte {at}", where=where
            )
        at = held.end
    if at != end:
        raise ConfigError(f"damaged: {end} bytes; the header states {at}", where=where)


def expected_tensors(facts: LatentFacts) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of each tensor that a file with these facts holds."""
    N, T = facts.num_frames, facts.num_tokens
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        LATENTS: (STORED_AS[facts.dtype], (N, T, facts.width)),
        FRAME_INDEX: ("I64", (N,)),
    }
    if facts.num_codes is not None:
        tensors[CODE] = ("I64", (N, T))
    if facts.dtype != "bf16":
        tensors[SCALE] = ("F32", (N, T))
    if facts.has_checksums:
        tensors[PICTURE_CRC] = ("U8", (N, 4))
    return tensors


def header_of(facts: LatentFacts) -> tuple[bytes, Header]:
    """The first bytes of a file with these facts, and where the tensors after them lie: as the library's `save` has it.

    Tensors go by the size of an element, the largest first, then by name (CODE: huggingface/safetensors, `prepare`).
    """
    declared = expected_tensors(facts)
    header: dict[str, Any] = {"__metadata__": facts.metadata()}
    at = 0
    for name in sorted(declared, key=lambda each: (-NUM_BYTES[declared[each][0]], each)):
        dtype, shape = declared[name]
        end = at + prod(shape) * NUM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    tensors = {name: _held(header[name], 8 + len(text)) for name in declared}
    return len(text).to_bytes(8, "little") + text, Header(tensors=tensors, facts=facts)


def size_of(facts: LatentFacts) -> int:
    """Bytes of a whole file with these facts."""
    _, header = header_of(facts)
    return max(held.end for held in header.tensors.values())


def sha256_within(file: BinaryIO, span: Span | None) -> str:
    """In hex: of a whole file, or of the bytes of a pack's member that are on disk."""
    at = Span(start=0, num_bytes=file.seek(0, 2)) if span is None else span
    file.seek(at.start)
    digest, left = hashlib.sha256(), at.num_bytes
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest()


def picture_crc(*parts: npt.NDArray[np.uint8]) -> int:
    """The CRC-32C of the bytes of a picture, one array after the other."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, np.ascontiguousarray(part))
    return crc
