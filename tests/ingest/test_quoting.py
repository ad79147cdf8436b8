"""Whatever is in a text or a name, DuckDB reads it back as that text or that name."""

from __future__ import annotations

import duckdb
import pytest

from ingest.catalog.views import identifier, literal, literals

HOSTILE = (
    "",
    "a",
    "it's",
    "''",
    'say "a"',
    '""',
    "'; DROP TABLE t; --",
    '" AS b, 1 AS "',
    "倒\\n\n",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_that_text(text: str) -> None:
    assert duckdb.sql(f"SELECT {literal(text)}").fetchall() == [(text,)]


@pytest.mark.parametrize("name", [text for text in HOSTILE if text])  # no column has no name
def test_a_name_is_that_name(name: str) -> None:
    found = duckdb.sql(f"SELECT 1 AS {identifier(name)}")
    assert (found.columns, found.fetchall()) == ([name], [(1,)])


def test_a_list_is_those_texts() -> None:
    assert duckdb.sql(f"SELECT [{literals(HOSTILE)}]").fetchall() == [(list(HOSTILE),)]
