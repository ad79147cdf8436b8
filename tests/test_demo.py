"""The output that README shows is what the demo gives: its tables are made again here and compared row by row. The wheel holds what it runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from jobs.cli import app
from jobs.demo.command import QUERY, SOURCES, TIERS, raw_of
from tests.faults.runs import run

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CALLED_BY_NAME = {"write", "write_many"}  # of a module that `raw_of` imports


def shown_rows() -> list[list[str]]:
    """The rows of the tables on README's first screen."""
    block = re.search(r"<!-- demo output.*?-->\n```\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    rows = [[cell.strip() for cell in re.split("[┃│]", line)] for line in block[1].splitlines()]
    return [row for row in rows if row[0] in SOURCES]


def answer(corpus: Path, sql: str) -> list[list[str]]:
    with Catalog.open(corpus) as catalog:
        return [[str(cell) for cell in row] for row in catalog.sql(sql).rows()]


@pytest.mark.slow
def test_the_readme_shows_what_the_demo_gives(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for name in SOURCES:
        raw = tmp_path / name
        raw.mkdir()
        written = raw_of(name, raw)
        run(written.root, corpus, source=name, run_id=name)
    for words in (["measure", str(corpus), "--workers", "0"], ["tier", str(corpus)]):
        assert CliRunner().invoke(app, words).exit_code == 0
    found = answer(corpus, QUERY)
    assert len(found) == len(SOURCES)
    assert shown_rows() == found + answer(corpus, TIERS)


def test_the_raw_data_of_the_demo_have_no_helper_that_only_tests_use() -> None:
    """Those belong to tests/generators, which no wheel has."""
    modules = [ast.parse(path.read_text()) for path in (ROOT / "jobs/demo/raw").glob("*.py")]
    kinds = (ast.FunctionDef, ast.ClassDef)
    defined = {node.name for module in modules for node in module.body if isinstance(node, kinds)}
    nodes = [node for module in modules for node in ast.walk(module)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert defined - used - CALLED_BY_NAME == set()
