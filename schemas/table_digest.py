"""The digest of a table: of its content, whatever chunks, offsets or machine hold it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def columns_sha256(table: pa.Table) -> str:
    """sha256 over the sha256 of each column of a table of integers, floats, texts, and lists and structs of those.

    Of a column its name and type, then its values little-endian with NULL told from zero and empty; of texts and lists the lengths,
    then the content.
    """

    def of(field: pa.Field) -> bytes:
        sha = hashlib.sha256(f"{field.name}|{field.type}|{table.num_rows}|".encode())
        _feed(sha, table[field.name].chunks, field.type)
        return sha.digest()

    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter
        return hashlib.sha256(b"".join(pool.map(of, table.schema))).hexdigest()


def _feed(sha: Any, chunks: Sequence[pa.Array], kind: pa.DataType) -> None:
    """One column in phases over all its chunks, so that where it is cut does not show."""
    has_null = any(chunk.null_count for chunk in chunks)
    sha.update(b"some" if has_null else b"all")
    for chunk in chunks if has_null else ():
        sha.update(chunk.is_valid().to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_struct(kind):
        for index, field in enumerate(kind):
            _feed(sha, [pc.struct_field(chunk, [index]) for chunk in chunks], field.type)
    elif pa.types.is_list(kind):
        _feed_lengths(sha, [pc.list_value_length(chunk) for chunk in chunks])
        _feed(sha, [chunk.flatten() for chunk in chunks], kind.value_type)
    elif pa.types.is_string(kind):
        _feed_lengths(sha, [pc.binary_length(chunk) for chunk in chunks])
        for chunk in chunks:
            sha.update(_text_bytes(chunk.drop_null().cast(pa.large_string())))
    else:
        for chunk in chunks:
            values = chunk.fill_null(pa.scalar(0, kind)).to_numpy(zero_copy_only=False)
            sha.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")))


def _feed_lengths(sha: Any, chunks: Sequence[pa.Array]) -> None:
    """int64 lengths, -1 for NULL."""
    for chunk in chunks:
        filled = chunk.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        sha.update(np.ascontiguousarray(filled, dtype="<i8"))


def _text_bytes(texts: pa.Array) -> memoryview | bytes:
    """The UTF-8 of all texts, one after the other; not what lies between them in memory. `texts` has no NULL."""
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return b""
    first, last = np.frombuffer(offsets, dtype=np.int64)[[texts.offset, texts.offset + len(texts)]]
    return memoryview(data)[int(first) : int(last)]
