"""The Parquet files of a corpus: a damaged one is refused with its name, what is damaged, and what to do.

pyarrow and Polars report damage as an error of Arrow, a bare `OSError` (a damaged footer), a `KeyError` (a column is
absent) or a panic, depending on the byte. All product code that reads Parquet of a corpus reads it here.
`adapters.containers.lerobot_meta.open_parquet` is the counterpart for raw data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.errors import ConfigError
from schemas.regular_file import HICCUPS

if TYPE_CHECKING:
    import polars as pl

REMEDY = (
    "run `eicorpus verify` on the corpus; then restore the file from a copy, or remove the newest file of "
    "catalog/_snapshots to go back to the snapshot before and run the command that made it again"
)
Source = Path | bytes


class DamagedParquet(ConfigError):
    """A file that is missing, or is not the Parquet file that was written."""


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
        raise DamagedParquet(f"the file is not there; {remedy}", where=str(where)) from error
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno in HICCUPS:
            raise
        raise damage(error, where, remedy) from error
    except MemoryError as error:
        error.add_note(f"reading {where}")
        raise


def damage(error: BaseException, where: Path | str, remedy: str = REMEDY) -> DamagedParquet:
    """The error for a file of which a library says `error`."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return DamagedParquet(f"damaged Parquet ({said}); {remedy}", where=str(where))


@contextmanager
def open_parquet(
    source: Source, where: Path | str = "", *, remedy: str = REMEDY, **options: Any
) -> Iterator[pq.ParquetFile]:
    """An open file for a block that only reads it; raises as `reading`, in the block too.

    Args:
        where: names the file in errors; needed for bytes in memory.
        options: of `pyarrow.parquet.ParquetFile`.
    """
    given = pa.BufferReader(source) if isinstance(source, bytes) else source
    with reading(where or str(source), remedy), pq.ParquetFile(given, **options) as file:
        yield file


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    filters: pc.Expression | None = None,
    schema: pa.Schema | None = None,
    use_threads: bool = True,
    remedy: str = REMEDY,
) -> pa.Table:
    """The rows of a file; raises as `reading`, and where a column of `columns` is absent or does not fit `schema`."""
    names = None if columns is None else list(columns)
    with reading(path, remedy):
        table = pq.read_table(
            path, columns=names, filters=filters, use_threads=use_threads, partitioning=None
        )
        table.validate()
        return table if schema is None else table.cast(schema)


def read_schema(path: Path) -> pa.Schema:
    """The columns of a file; raises as `reading`."""
    with reading(path):
        return pq.read_schema(path)


def read_footer(path: Path) -> pq.FileMetaData:
    """Rows, row groups and columns of a file; raises as `reading`."""
    with reading(path):
        return pq.read_metadata(path)


def read_batches(
    path: Path, num_rows: int, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """At most `num_rows` rows at a time; raises as `reading`, between batches too."""
    names = None if columns is None else list(columns)
    with open_parquet(path) as file:
        yield from file.iter_batches(batch_size=num_rows, columns=names)


def read_frame(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Columns by the reader of Polars, which decodes long tables faster than Arrow's; raises as `reading`."""
    import polars as pl

    with _reading_polars(path):
        return pl.read_parquet(
            path, columns=list(columns), parallel="none", glob=False, hive_partitioning=False
        )


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
