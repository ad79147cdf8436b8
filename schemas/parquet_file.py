"""Parquet files of a corpus, refused with a name and a reason when damaged, and the digest of a table's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import ConfigError
from schemas.regular_file import HICCUPS

if TYPE_CHECKING:
    import polars as pl


def columns_sha256(table: pa.Table) -> str:
    """sha256 over the sha256 of each column of a table of integers, floats, texts, and lists and structs of those.

    Of a column its name and type, then its values little-endian with NULL distinct from zero and empty; of texts and lists the lengths,
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


REMEDY = (
    "`eicorpus verify` lists what is damaged; restore it from a copy of the corpus, and remove no snapshot: the files of "
    "episodes that only a removed one names are removed by the next `ingest`"
)
Source = Path | bytes
# What a file may unpack to, by its size. A value is one of a column, or of a list in one. Values of repeated rows compress best: in an
# honest part of 5 * 10^6 episodes with 40 measurements each there is 0.7 of them a byte, and 16 where one column is absent.
FREE_VALUES = 1 << 22
MOST_VALUES_PER_BYTE = 32
FREE_BYTES = 1 << 26
MOST_BYTES_PER_BYTE = 256
_BATCH_ROWS = 1 << 14


class DamagedParquet(ConfigError):
    """A file that is missing, or is not the Parquet file that was written."""


def check_unpacked_size(footer: pq.FileMetaData, num_bytes: int, where: Path | str) -> None:
    """Refuse a file of which a few kilobytes would fill the memory. Every reader here asks; for a scan, `checked`.

    Raises:
        DamagedParquet: it has more values, or unpacks to more bytes, than any part of its size.
    """
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    values = sum(g.column(i).num_values for g in groups for i in range(footer.num_columns))
    unpacked = sum(group.total_byte_size for group in groups)
    for what, count, most in (
        ("values", max(values, footer.num_rows), FREE_VALUES + MOST_VALUES_PER_BYTE * num_bytes),
        ("bytes when unpacked", unpacked, FREE_BYTES + MOST_BYTES_PER_BYTE * num_bytes),
    ):
        if count > most:
            message = f"{count} {what} in {num_bytes} bytes; expected at most {most}"
            raise DamagedParquet(
                message, remedy="treat this corpus as damaged and do not use it", where=str(where)
            )


def checked(path: Path) -> Path:
    """The same path, for a scan by Polars or DuckDB; raises as `reading` and `check_unpacked_size`."""
    read_footer(path)
    return path


@contextmanager
def reading(where: Path | str, remedy: str = REMEDY) -> Iterator[None]:
    """What the libraries raise of a damaged file becomes `DamagedParquet`. The block only reads that file.

    Raises:
        DamagedParquet: see above.
        OSError: the machine cannot read now; the same call may succeed in a moment.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedParquet("the file is missing", remedy=remedy, where=str(where)) from error
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno in HICCUPS:
            raise
        raise damage(error, where, remedy) from error
    except MemoryError as error:
        error.add_note(f"reading {where}")
        raise


def damage(error: BaseException, where: Path | str, remedy: str = REMEDY) -> DamagedParquet:
    """The error for a file of which a library says `error`."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return DamagedParquet(f"damaged Parquet ({text})", remedy=remedy, where=str(where))


@contextmanager
def open_parquet(
    source: Source, where: Path | str = "", *, remedy: str = REMEDY, **options: Any
) -> Iterator[pq.ParquetFile]:
    """An open file for a block that only reads it; raises as `reading`, in the block too.

    Args:
        where: names the file in errors; needed for bytes in memory.
        options: of `pyarrow.parquet.ParquetFile`.
    """
    name = where or str(source)
    with reading(name, remedy):
        opened = pa.BufferReader(source) if isinstance(source, bytes) else pa.OSFile(str(source))
        with opened, pq.ParquetFile(opened, **options) as file:
            check_unpacked_size(file.metadata, opened.size(), name)
            yield file


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    filters: pc.Expression | None = None,
    schema: pa.Schema | None = None,
    most_rows: int | None = None,
    use_threads: bool = True,
    remedy: str = REMEDY,
) -> pa.Table:
    """The rows of a file; raises as `reading`, and where a column of `columns` is absent or does not fit `schema`.

    Args:
        most_rows: reading ends after so many rows for which `filters` holds, a few batches later at most.
    """
    names = None if columns is None else list(columns)
    with reading(path, remedy):
        if filters is None and most_rows is None:
            table = _whole(path, names, use_threads=use_threads)
        else:
            table = _scanned(path, names, filters, most_rows, use_threads=use_threads)
        table.validate()
        return table if schema is None else table.cast(schema)


def _whole(path: Path, names: list[str] | None, *, use_threads: bool) -> pa.Table:
    """Without pyarrow.dataset, which imports pandas: half a second of a command's start."""
    with pa.OSFile(str(path)) as opened, pq.ParquetFile(opened) as file:
        check_unpacked_size(file.metadata, opened.size(), path)
        if names is None:
            return file.read(use_threads=use_threads)
        absent = sorted(set(names) - set(file.schema_arrow.names))
        if absent:
            raise KeyError(f"no column {', '.join(absent)}")
        return file.read(columns=names, use_threads=use_threads).select(names)


def _scanned(
    path: Path,
    names: list[str] | None,
    filters: pc.Expression | None,
    most_rows: int | None,
    *,
    use_threads: bool,
) -> pa.Table:
    import pyarrow.dataset as ds

    with pa.OSFile(str(path)) as file:
        check_unpacked_size(pq.read_metadata(file), file.size(), path)
    if most_rows is None:
        return pq.read_table(
            path, columns=names, filters=filters, use_threads=use_threads, partitioning=None
        )
    return ds.dataset(path, format="parquet").head(
        most_rows,
        columns=names,
        filter=filters,
        batch_size=_BATCH_ROWS,
        batch_readahead=2,
        use_threads=use_threads,
    )


def read_schema(path: Path) -> pa.Schema:
    """The columns of a file; raises as `reading`."""
    return read_footer(path).schema.to_arrow_schema()


def read_footer(path: Path) -> pq.FileMetaData:
    """Rows, row groups and columns of a file; raises as `reading` and `check_unpacked_size`."""
    with reading(path), pa.OSFile(str(path)) as file:
        footer = pq.read_metadata(file)
        footer.schema.to_arrow_schema()  # a type that Arrow does not have is damage too
        check_unpacked_size(footer, file.size(), path)
        return footer


def read_batches(
    path: Path, num_rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """At most `num_rows` rows at a time; raises as `reading`, between batches too."""
    names = None if columns is None else list(columns)
    with open_parquet(path) as file:
        yield from file.iter_batches(batch_size=num_rows, columns=names)


def collect(frame: pl.LazyFrame, where: Path | str) -> pl.DataFrame:
    """The rows of a lazy scan of Parquet files, which are opened here and not before; raises as `reading`."""
    with _reading_polars(where):
        return frame.collect()


@contextmanager
def _reading_polars(where: Path | str) -> Iterator[None]:
    import polars as pl

    try:
        with reading(where):
            yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise damage(error, where) from error
