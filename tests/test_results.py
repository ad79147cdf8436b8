"""The figures of docs/results/: each is explained, each data file is shown, and a benchmark prints what the pages are made from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import result
from docs.site.markdown import PART
from docs.site.results import _figures, cases_of, filled, keys_of, number

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/results"
DATA = {path.stem: json.loads(path.read_text()) for path in (FOLDER / "data").glob("*.json")}
SHOWN = {
    part.partition(".")[0]: page.name
    for page in FOLDER.glob("*.md")
    for part in PART.findall(page.read_text())
}
WITH_FIGURES = sorted(name for name, runs in DATA.items() if "figures" in runs[0])


def test_every_data_file_is_shown_on_a_page() -> None:
    assert DATA.keys() == SHOWN.keys()


def test_every_benchmark_that_explains_its_figures_has_some() -> None:
    with_keys = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if re.search(r"^KEYS = ", path.read_text(), re.MULTILINE)
    }
    assert with_keys == set(WITH_FIGURES)


@pytest.mark.parametrize("name", sorted(DATA))
def test_a_run_states_where_its_figures_are_from(name: str) -> None:
    for run in DATA[name]:
        assert run["benchmark"] == name
        assert run["machine"]
        assert run["transcribed"] or (run["commit"] and run["date"])


@pytest.mark.parametrize("name", WITH_FIGURES)
def test_every_explained_figure_is_measured(name: str) -> None:
    """In one run at least: a run may measure a part."""
    for key in keys_of(name):
        runs = [run["figures"] for run in DATA[name]]
        assert any(cases_of(key, run) if key.endswith("*") else key in run for run in runs), key


def test_what_a_benchmark_prints_is_a_run() -> None:
    """Without the figures a run cannot be shown."""
    run: dict[str, Any] = json.loads(result.as_json("x", result.machine(), {"a": 1, "b_c": 2.5}))
    assert (run["transcribed"], run["date"][:2]) == (False, "20")
    parts = _figures({"a": "first", "b_*": "second"}, [run])
    assert parts[0].splitlines()[2:] == ["| `a` | first | 1 |", "| `b_*` | second | see below |"]
    assert parts[2].splitlines()[2:] == ["| `c` | 2.5 |"]
    assert f"date {run['date']}" in parts[1]


def test_a_run_has_a_column_for_what_it_measured() -> None:
    runs = [{"machine": "m", "commit": "c", "date": "d", "transcribed": False, "figures": f} for f in ({"a_x": 1}, {"b_y": 2}, {})]  # fmt: skip
    parts = _figures({"a_*": "first", "b_*": "second"}, runs)
    assert [part.splitlines()[0] for part in parts[2::2]] == ["| case | `a` |", "| case | `b` |"]
    assert parts[-1].startswith("Run 3")


def test_a_part_without_its_data_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("docs.site.results.FOLDER", tmp_path)
    (tmp_path / "page.md").write_text("<!-- nothing begins -->\n<!-- nothing ends -->\n")
    with pytest.raises(FileNotFoundError):
        filled("page.md")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/nothing.json").write_text('[{"tables": {"other": {}}}]')
    (tmp_path / "page.md").write_text("<!-- nothing.one begins -->\n<!-- nothing.one ends -->\n")
    with pytest.raises(KeyError, match="one"):
        filled("page.md")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ("2 to 3", "2 to 3"),
        (1_000_000, "1,000,000"),
        (2103.0, "2,103"),
        (0.9660, "0.966"),
        ({"cudnn": 16, "varlen (torch)": 32}, "16 cudnn, 32 varlen (torch)"),
    ],
)
def test_numbers_have_four_digits(value: Any, text: str) -> None:
    assert number(value) == text
