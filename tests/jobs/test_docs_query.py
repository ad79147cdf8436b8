"""Every query of docs/how-to/query.md runs and answers something."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from ingest.catalog.catalog import Catalog
from schemas.catalog import TABLES
from tests.generators.corpus import WrittenCatalog, write_catalog

PAGE = Path(__file__).parents[2] / "docs/how-to/query.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> WrittenCatalog:
    return write_catalog(tmp_path_factory.mktemp("docs") / "corpus")


@pytest.mark.parametrize("sql", blocks("sql"))
def test_worked_query_answers(written: WrittenCatalog, sql: str) -> None:
    with Catalog.open(written.root) as catalog:
        assert catalog.sql(sql).height > 0


def test_commands_of_the_page_answer(written: WrittenCatalog) -> None:
    commands = re.findall(r'^eicorpus query CORPUS "(.*)"$', PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 3
    with Catalog.open(written.root) as catalog:
        assert all(catalog.arrow(sql).num_rows > 0 for sql in commands)


def test_python_of_the_page_runs(written: WrittenCatalog) -> None:
    (code,) = blocks("python")
    names: dict[str, object] = {"corpus": written.root}
    exec(code, names)
    assert isinstance(names["long"], pl.DataFrame)
    assert isinstance(names["table"], pa.Table)
    assert isinstance(names["frame"], pl.DataFrame)


def test_every_table_is_on_the_page(written: WrittenCatalog) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    with Catalog.open(written.root) as catalog:
        assert listed == set(catalog.tables)
    assert set(TABLES) <= listed


def test_known_answers(written: WrittenCatalog) -> None:
    """By hand: 12 episodes, 3 sources in turn; agibot_world has 0, 3, 6, 9 and lengths 40 + 7k."""
    with Catalog.open(written.root) as catalog:
        first = catalog.sql(blocks("sql")[0])
        equation = catalog.sql(blocks("sql")[2])
    hours = dict(first.select("source", "hours").rows())
    assert hours["agibot_world"] == pytest.approx(round((4 * 40 + 7 * 18) / 36000, 3))
    assert equation.rows() == [("agibot_world", 5, 4, 1), ("egodex", 5, 4, 1), ("oxe", 5, 4, 1)]
