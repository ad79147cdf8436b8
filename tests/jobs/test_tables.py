"""Tables that people read: they fit the width, say what they left out, and show no character that commands a terminal."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from rich.cells import cell_len
from rich.console import Console

from ingest.catalog.catalog import Catalog
from jobs.commands import query
from jobs.ui.output import PIPE_WIDTH, size_text, width_of
from jobs.ui.tables import (
    MOST_SHOWN,
    SHOWN_NESTED,
    fitted_widths,
    nested_text,
    printable,
    rounded,
    table,
)
from tests.generators.corpus import write_catalog


def printed(renderable: object, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, color_system=None).print(renderable)
    return file.getvalue().splitlines()


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    root = write_catalog(tmp_path_factory.mktemp("tables") / "corpus", num_episodes=4).root
    with Catalog.open(root) as catalog:
        return catalog.arrow("FROM episodes ORDER BY uid")


def shown(
    monkeypatch: pytest.MonkeyPatch, rows: pa.Table, width: int, limit: int = 200
) -> list[str]:
    """What `eicorpus query` prints in a terminal of this width."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, color_system=None, soft_wrap=True
    )  # as jobs.ui.output
    monkeypatch.setattr(query, "stdout", console)
    query.show(rows, limit)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_every_column_of_a_wide_table_is_shown_readably_or_named_as_left_out(
    monkeypatch: pytest.MonkeyPatch, episodes: pa.Table, width: int
) -> None:
    lines = shown(monkeypatch, episodes, width)
    assert len(lines[:6]) == 6  # header, rule, four rows: a row a line
    assert all(cell_len(line) <= width for line in lines)
    names = [name.strip() for name in lines[0].split("┃")]
    note = " ".join(lines[6:])
    left_out = note.partition("not shown: ")[2].partition(";")[0].split(",")
    assert [*names, *(name.strip() for name in left_out)] == episodes.column_names
    assert f"{len(names)} of {episodes.num_columns} columns shown" in note
    assert "--csv" in note


def test_one_row_that_does_not_fit_is_shown_a_column_a_line(
    monkeypatch: pytest.MonkeyPatch, episodes: pa.Table
) -> None:
    lines = shown(monkeypatch, episodes.slice(0, 1), 100)
    assert all(cell_len(line) <= 100 for line in lines)
    first = [line.split("│")[0].strip() for line in lines[2:]]
    assert [name for name in first if name] == episodes.column_names


def test_one_row_that_fits_stays_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, pa.table({"n": [3], "hours": [1 / 3]}), 80)
    assert [word.strip() for word in lines[2].split("│")] == ["3", "0.333333"]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.0, "6.0"),
        (13.6, "13.6"),
        (0.0013888888888888888, "0.00138889"),
        (1234567.25, "1234567.2"),
        (123.456789, "123.457"),
        (-0.5, "-0.5"),
        (0.0, "0.0"),
        (1e-9, "1e-09"),
        (3.5e20, "3.5e+20"),
        (99999.97, "100000.0"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_floats_are_rounded_to_what_people_read(value: float, text: str) -> None:
    assert rounded(value) == text


def test_widths_use_the_room_and_none_is_unreadable() -> None:
    assert fitted_widths([5, 5], [5, 5], 13) == [5, 5]
    assert fitted_widths([5, 100], [5, 12], 48) == [5, 40]
    assert fitted_widths([30, 30, 30], [12, 12, 12], 60) == [18, 18, 18]
    assert fitted_widths([30, 30, 30], [12, 20, 12], 50) == [12, 20, 12]
    assert fitted_widths([30, 30, 30], [12, 12, 12], 30) == [13, 13]
    assert fitted_widths([30, 30], [12, 12], 5) == [5]
    assert fitted_widths([], [], 5) == []


def test_a_table_of_a_command_folds_text_and_loses_none() -> None:
    words = " ".join(f"word{k}" for k in range(40))
    lines = printed(table("", ["name", "why"], [["a", words]]), 60)
    assert all(cell_len(line) <= 60 for line in lines)
    folded = "".join(line.partition("│")[2] for line in lines[2:])
    assert folded.replace(" ", "") == words.replace(" ", "")


def test_no_table_commands_a_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x9b31m\u202eabc"
    text = "\n".join(printed(table("", [hostile], [[hostile], ["two\nlines"]]), 80))
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "\\x1b]0;owned\\x07\\x9b31m\\u202eabc" in text
    assert printable("倒　水\u00a0é") == "倒　水\u00a0é"


def test_a_cell_of_megabytes_is_cut() -> None:
    """Rich looks at each character several times."""
    whole = table("", ["text"], [["x" * 1_000_000]])
    assert whole.cells == [["x" * MOST_SHOWN + "… (1,000,000 characters)"]]


@pytest.mark.parametrize(
    ("columns", "width"), [("120", 120), ("", PIPE_WIDTH), ("0", PIPE_WIDTH), ("wide", PIPE_WIDTH)]
)
def test_without_a_terminal_a_line_has_the_width_of_columns(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert width_of(io.StringIO()) == width


def test_a_list_in_a_cell_is_short_and_its_numbers_are_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert nested_text([1 / 3, 2, None, "折", 5, 6]) == '[0.333333, 2, null, "折", … 2 more]'
    assert nested_text({"K": [[1e9 / 7] * 3], "ok": True}) == (
        "{K: [[142857142.9, 142857142.9, 142857142.9]], ok: true}"
    )
    assert len(nested_text(["word " * 100])) == SHOWN_NESTED
    rows = pa.table({"n": [1, 2], "path": [[0.1234567891] * 9, [2.0]]})
    assert "0.123457, … 5 more]" in "\n".join(shown(monkeypatch, rows, 120))


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (41_500, "41.5 kB"),
        (2_345_678, "2.35 MB"),
        (2e9, "2.00 GB"),
        (1.5e15, "1,500 TB"),
    ],
)
def test_a_size_is_in_a_unit_of_its_own_size(num_bytes: float, text: str) -> None:
    assert size_text(num_bytes) == text
