"""One Parquet file of an Iceberg table, with the table's field ids.

Written here and not by `Table.append`, for two reasons, both of pyiceberg 0.12.0 and both tried: `append` makes an empty list of a NULL list
of structs (`ArrowProjectionVisitor.list` in `pyiceberg/io/pyarrow.py`, whose reader does the same), and `append` of a reader reads all of it before
the first file is written (`write_file` there maps over a thread pool), so memory is not bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.types import IcebergType, NestedField

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
