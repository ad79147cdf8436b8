"""The tables of the catalog as they were published."""

from __future__ import annotations

from schemas.catalog import TABLES


def test_columns_are_only_ever_added() -> None:
    """The first and the last column of each table as published; a corpus on disk relies on them."""
    ends = {name: (schema.names[0], schema.names[-1]) for name, schema in TABLES.items()}
    assert ends["episodes"] == ("uid", "run_id")
    assert ends["segments"] == ("uid", "text")
    assert ends["verdicts"] == ("uid", "snapshot")
    assert all(len(set(schema.names)) == len(schema.names) for schema in TABLES.values())
