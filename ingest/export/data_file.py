"""Rows of catalog parts as Arrow tables of bounded size, written as Parquet files of an Iceberg table with its field ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ingest.corpus.snapshot import Part
from schemas.catalog import TABLES
from schemas.parquet_file import read_batches, read_schema, reading

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.types import IcebergType, NestedField

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


FIELD_ID = b"PARQUET:field_id"  # how pyarrow calls it


def written(table: Table, rows: pa.Table, name: str) -> DataFile:
    """Write `rows` as `name`.parquet below the table's data, complete when this returns; a commit makes it part of the table."""
    from pyiceberg.io.pyarrow import ParquetFormatWriter
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
    from pyiceberg.table.locations import load_location_provider
    from pyiceberg.typedef import Record

    schema, properties = table.schema(), table.properties
    places = load_location_provider(table.location(), properties)
    output = table.io.new_output(places.new_data_location(f"{name}.parquet"))
    writer = ParquetFormatWriter(output, schema, properties)
    columns = [numbered(field, schema.find_field(field.name)) for field in rows.schema]
    writer.write(rows.cast(pa.schema(columns)))
    statistics = writer.close()
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=output.location,
        file_format=FileFormat.PARQUET,
        partition=Record(),
        file_size_in_bytes=len(output),
        sort_order_id=None,
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def numbered(field: pa.Field, of: NestedField) -> pa.Field:
    """An Arrow field with the ids of its Iceberg field, all the way down; its type stays."""
    kind = _numbered_type(field.type, of.field_type)
    return pa.field(field.name, kind, metadata={FIELD_ID: str(of.field_id)})


def _numbered_type(kind: pa.DataType, of: IcebergType) -> pa.DataType:
    from pyiceberg.types import ListType, StructType

    if isinstance(of, StructType):
        fields = {field.name: field for field in of.fields}
        return pa.struct([numbered(field, fields[field.name]) for field in kind])
    if isinstance(of, ListType):
        return pa.list_(numbered(kind.value_field, of.element_field))
    return kind
