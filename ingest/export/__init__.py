"""The catalog for other engines: an Iceberg table over the same Parquet files."""

__all__ = [
    "iceberg",
    "warehouse",
]
