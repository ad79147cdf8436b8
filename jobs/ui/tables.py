"""Tables fitted to the width of the terminal. A note names the columns that do not fit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

LEAST_WIDTH = (
    12  # characters of a column that is shortened; narrower ones are read letter by letter
)
SEPARATOR_WIDTH = 3
SHOWN_DIGITS = 6
SHOWN_ITEMS = 4  # of a list inside a cell
SHOWN_NESTED = 200  # characters of a list or struct
MOST_SHOWN = 10_000  # characters of a cell: folding a text of megabytes takes minutes


def printable(text: str, *, keeps_lines: bool = False) -> str:
    """`text` without characters that command a terminal (C0, C1, escape sequences): `\\x1b` is shown as these four letters."""
    return "".join(
        c if c.isprintable() or category(c) == "Zs" or (keeps_lines and c == "\n") else escaped(c)
        for c in text
    )


def escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def rounded(value: float) -> str:
    """Six digits of a float, all digits before the point; never an exponent between 1e-4 and 1e15."""
    if not math.isfinite(value) or value == 0.0:
        return str(value)
    size = abs(value)
    if size < 1e-4 or size >= 1e15:
        return f"{value:.{SHOWN_DIGITS}g}"
    places = max(SHOWN_DIGITS - 1 - math.floor(math.log10(size)), 1)
    text = f"{value:.{places}f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def nested_text(value: Any) -> str:
    """A list or struct of JSON values as short text: `[0.333333, 2, 3, 4, … 12 more]`, at most SHOWN_NESTED characters."""
    text = _nested(value)
    return text if len(text) <= SHOWN_NESTED else f"{text[: SHOWN_NESTED - 1]}…"


def _nested(value: Any) -> str:
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_nested(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        more = len(value) - SHOWN_ITEMS
        items = [_nested(item) for item in value[:SHOWN_ITEMS]]
        return f"[{', '.join([*items, *([f'… {more} more'] if more > 0 else [])])}]"
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTable:
    """A table that leaves out its last columns, with a note, if the console is too narrow."""

    title: str
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]  # rows of text
    is_number: Sequence[bool]  # of each column: to the right
    cuts_cells: bool = False  # a long cell ends in `…`, else it is folded over lines
    hint: str = ""  # where everything is, after the sentence about what was left out

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        natural = self._natural_widths()
        widths = fitted_widths(natural, self._least_widths(natural), options.max_width)
        yield self._table(widths)
        left_out = list(self.columns[len(widths) :])
        was_cut = self.cuts_cells and widths != natural[: len(widths)]
        if left_out or was_cut:
            yield Text(self._note(left_out, was_cut), style="dim")

    def is_fitting(self, width: int) -> bool:
        """Nothing is cut, folded or left out at this width."""
        natural = self._natural_widths()
        return fitted_widths(natural, self._least_widths(natural), width) == natural

    def _natural_widths(self) -> list[int]:
        return [self._natural_width(index) for index in range(len(self.columns))]

    def _least_widths(self, natural: Sequence[int]) -> list[int]:
        """No name of a column is cut, and no cell is narrower than what can be read."""
        return [
            max(cell_len(name), min(width, LEAST_WIDTH))
            for name, width in zip(self.columns, natural, strict=True)
        ]

    def _natural_width(self, index: int) -> int:
        lines = [
            self.columns[index],
            *(line for row in self.cells for line in row[index].split("\n")),
        ]
        return max(cell_len(line) for line in lines)

    def _table(self, widths: Sequence[int]) -> Table:
        out = Table(title=self.title, title_justify="left", show_edge=False, pad_edge=False)
        for name, is_number, width in zip(self.columns, self.is_number, widths, strict=False):
            out.add_column(
                Text(name),
                justify="right" if is_number else "left",
                overflow="ellipsis" if self.cuts_cells else "fold",
                no_wrap=self.cuts_cells,
                width=width,
            )
        for row in self.cells:
            out.add_row(*(Text(cell) for cell in row[: len(widths)]))  # Text: data is never markup
        return out

    def _note(self, left_out: list[str], was_cut: bool) -> str:
        notes = []
        if left_out:
            shown, total = len(self.columns) - len(left_out), len(self.columns)
            notes.append(f"{shown} of {total} columns shown; not shown: {', '.join(left_out)}")
        if was_cut:
            notes.append("long cells are cut (…)")
        return "; ".join([*notes, *([self.hint] if self.hint else [])])


def fitted_widths(natural: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of the first columns, as many as are readable in `room` characters; at least one.

    Args:
        natural: width of each column's longest line.
        least: width below which a column is left out rather than shortened; no more than `natural`.
    """
    for count in range(len(natural), 0, -1):
        columns = list(zip(natural[:count], least[:count], strict=True))
        free = room - SEPARATOR_WIDTH * (count - 1)
        if sum(low for _, low in columns) <= free:
            return _shared(columns, free)
    return [min(natural[0], max(room, 1))] if natural else []


def _shared(columns: Sequence[tuple[int, int]], free: int) -> list[int]:
    """Widths under the largest common limit with which all columns fit."""
    low, high = 0, max(width for width, _ in columns)
    while low < high:
        middle = (low + high + 1) // 2
        is_fitting = sum(max(least, min(width, middle)) for width, least in columns) <= free
        low, high = (middle, high) if is_fitting else (low, middle - 1)
    return [max(least, min(width, low)) for width, least in columns]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> FittedTable:
    """A plain table; numbers to the right, floats with three places."""
    return FittedTable(
        title=title,
        columns=[printable(name) for name in columns],
        cells=[[_text(cell) for cell in row] for row in rows],
        is_number=[
            bool(rows) and all(isinstance(row[index], int | float) for row in rows)
            for index in range(len(columns))
        ],
    )


def vertical(columns: Sequence[str], row: Sequence[str]) -> FittedTable:
    """One row with many columns, a column a line."""
    pairs = [[name, cell] for name, cell in zip(columns, row, strict=True)]
    return FittedTable(title="", columns=["column", "value"], cells=pairs, is_number=[False, False])


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:,.3f}"
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    text = str(cell)
    if len(text) > MOST_SHOWN:
        text = f"{text[:MOST_SHOWN]}… ({len(text):,} characters)"
    return printable(text, keeps_lines=True)
