"""The rows of catalog parts as Arrow tables of bounded size, in the schema that is declared today."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from ingest.corpus.snapshot import Part
from schemas.catalog import TABLES
from schemas.parquet_file import read_batches, read_schema, reading

BATCH_ROWS = 65_536
PIECE_BYTES = 128 * 2**20  # of Arrow memory; the Parquet file is some three to ten times smaller


def pieces(
    corpus: Path, table: str, parts: Iterable[Part], *, num_bytes: int = PIECE_BYTES
) -> Iterator[pa.Table]:
    """Rows in the order of the parts; a piece ends once it has `num_bytes`. Columns that a part does not have are NULL.

    Raises:
        ConfigError: a part is missing or damaged.
    """
    waiting: list[pa.Table] = []
    size = 0
    for part in parts:
        for rows in _rows(corpus, table, part):
            waiting.append(rows)
            size += rows.nbytes
            if size >= num_bytes:
                yield pa.concat_tables(waiting)
                waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _rows(corpus: Path, table: str, part: Part) -> Iterator[pa.Table]:
    schema = TABLES[table]
    path = part.file(corpus)
    have = read_schema(path).names
    columns = [name for name in schema.names if name in have]
    for batch in read_batches(path, BATCH_ROWS, columns):
        piece = pa.Table.from_batches([batch])
        with reading(path):
            merged = pa.concat_tables([piece, schema.empty_table()], promote_options="default")
            rows = merged.select(schema.names).cast(schema)
        yield rows
