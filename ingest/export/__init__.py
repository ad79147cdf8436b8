"""A corpus for others: its catalog as Iceberg tables, and in `datasets` its segments as datasets of other trainers."""

__all__ = [
    "bucket",
    "format_names",
    "hub",
    "iceberg",
    "part",
    "warehouse",
]
