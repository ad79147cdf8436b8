"""Pages of episodes in the order of a column, counts by facet, and histograms, over the masks of `selection.py`.

A cursor names the last row by its value and uid, not by its place: it goes on at the right row of a later snapshot too. Order: by the
column, then by uid, both in the direction asked for; unknown values are last in either direction.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.service.selection import EpisodeMasks, Filter, Mask, column_of, rows_of
from jobs.service.snapshot_cache import EpisodeColumn, Rows, SnapshotCache
from schemas.document import DocumentError
from schemas.errors import ConfigError
from schemas.json_text import parse_json

MAX_LIMIT = 1000
MAX_CURSOR = 4096  # characters
FIRST_STEP = 4096  # rows that are looked at before more are
SHOWN_VALUES = 200  # of one facet
MAX_BINS = 500
MAX_EDGE = 1e300  # beyond it the width of a bin overflows


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """By a column; `-COLUMN` is descending."""

    column: str
    is_descending: bool

    @classmethod
    def parse(cls, text: str) -> Sort:
        return cls(column=text.removeprefix("-"), is_descending=text.startswith("-"))

    def __str__(self) -> str:
        return f"-{self.column}" if self.is_descending else self.column


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Row numbers, and the cursor of what comes next; None at the end."""

    rows: Rows
    cursor: str | None


def page(
    cache: SnapshotCache, mask: Mask, sort: Sort, limit: int, cursor: str | None = None
) -> Page:
    """The first `limit` episodes of a mask after a cursor.

    Raises:
        ConfigError: no such column, or the cursor is of another sort or none of ours.
    """
    ordered = _Ordered(cache, column_of(cache, sort.column, "sort"), sort)
    at = 0
    if cursor is not None:
        value, uid = _read_cursor(cursor, sort)
        at = ordered.place_after(_value_of(ordered.column, value), uid)
    parts: list[Rows] = []
    missing, step = limit + 1, FIRST_STEP  # one more, to know whether anything comes next
    while missing > 0 and at < cache.num_episodes:
        rows = ordered.slice(at, at + step)
        chosen = rows[mask[rows]][:missing]
        parts.append(chosen)
        missing -= len(chosen)
        at, step = at + step, step * 4
    rows = np.concatenate(parts) if parts else np.zeros(0, np.int32)
    if len(rows) <= limit:
        return Page(rows=rows, cursor=None)
    rows = rows[:limit]
    return Page(rows=rows, cursor=_write_cursor(cache, ordered.column, sort, int(rows[-1])))


def neighbours(
    cache: SnapshotCache, mask: Mask, sort: Sort, row: int
) -> tuple[int | None, int | None]:
    """The rows of a mask before and after a row of the catalog, which need not be in it itself.

    Raises:
        ConfigError: no such column.
    """
    ordered = _Ordered(cache, column_of(cache, sort.column, "sort"), sort)
    after = ordered.place_after(ordered.column.value(row), cache.uids[row].as_py())

    def first(start: int, towards: int) -> int | None:
        step = FIRST_STEP
        while 0 <= start < cache.num_episodes:
            low, high = (
                (start, start + step) if towards > 0 else (max(start - step + 1, 0), start + 1)
            )
            rows = ordered.slice(low, high)[::towards]
            if len(chosen := rows[mask[rows]]):
                return int(chosen[0])
            start, step = start + towards * step, step * 4
        return None

    return first(after - 2, -1), first(after, 1)


class _Ordered:
    """All episodes in an order, addressed by place."""

    def __init__(self, cache: SnapshotCache, column: EpisodeColumn, sort: Sort) -> None:
        self.column, self._cache, self._is_descending = column, cache, sort.is_descending

    def slice(self, start: int, end: int) -> Rows:
        order, count, valid = self.column.order, len(self.column.order), self.column.num_valid
        if not self._is_descending:
            return np.asarray(order[start:end])
        end = min(end, count)
        known = order[max(valid - end, 0) : max(valid - start, 0)][::-1]
        # unknown ones, counted from the last place
        low, high = max(start, valid) - valid, max(end, valid) - valid
        unknown = order[count - high : count - low][::-1]
        return np.concatenate([known, unknown])

    def place_after(self, value: float | str | None, uid: str) -> int:
        """The first place whose row comes after (value, uid)."""
        count, valid = len(self.column.order), self.column.num_valid
        # an episode that has gone lies before the row that has its place now
        row: float = self._cache.place_of(uid)
        if self._cache.row_of(uid) is None:
            row -= 0.5
        low, high = (valid, count) if value is None else (0, valid)
        while low < high:
            middle = (low + high) // 2
            other = int(self.slice(middle, middle + 1)[0])
            if self._is_after(other, value, row):
                high = middle
            else:
                low = middle + 1
        return low

    def _is_after(self, other: int, value: float | str | None, row: float) -> bool:
        if value is not None:
            theirs: Any = self.column.value(other)
            if theirs != value:
                return bool(theirs < value) if self._is_descending else bool(theirs > value)
        return other < row if self._is_descending else other > row


def _write_cursor(cache: SnapshotCache, column: EpisodeColumn, sort: Sort, row: int) -> str:
    value = column.value(row)
    # a hexadecimal float is exact, and JSON has no infinity
    exact = value.hex() if isinstance(value, float) else value
    text = json.dumps([str(sort), exact, cache.uids[row].as_py()])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _wrong_cursor() -> ConfigError:
    return ConfigError(
        "not a cursor of this service for this sort",
        remedy="leave out the cursor to start from the first page",
        where="cursor",
    )


def _read_cursor(cursor: str, sort: Sort) -> tuple[str | None, str]:
    if len(cursor) > MAX_CURSOR:
        raise _wrong_cursor()
    try:
        decoded = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
        of, value, uid = parse_json(decoded.decode())
    except (ValueError, TypeError, DocumentError) as error:
        raise _wrong_cursor() from error
    if of != str(sort) or not isinstance(uid, str) or not isinstance(value, str | None):
        raise _wrong_cursor()
    return value, uid


def _value_of(column: EpisodeColumn, value: str | None) -> float | str | None:
    """The value of a cursor in the type of its column."""
    if value is None or column.kind != "number":
        return value
    try:
        number = float.fromhex(value)
    except (ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise _wrong_cursor()
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class FacetValue:
    value: str | None
    episodes: int
    hours: float


def facets(
    selection: EpisodeMasks,
    names: Sequence[str],
    filters: Sequence[Filter],
    words: Sequence[str],
) -> dict[str, list[FacetValue]]:
    """Episodes and hours of every value of coded columns, each under all filters but those on the column itself; most episodes first.

    Raises:
        ConfigError: no such column, or it is not coded.
    """
    cache = selection.cache
    columns = [column_of(cache, name, "facet") for name in names]
    for column in columns:
        if column.kind != "coded":
            raise ConfigError(
                f"{column.name} is no facet", remedy="use its histogram", where="facet"
            )
    answers: dict[str, list[FacetValue]] = {}
    filtered = {each.column for each in filters}
    for own in {name if name in filtered else None for name in names}:
        # columns without a filter of their own share the rows
        rows = rows_of(selection.mask([each for each in filters if each.column != own], words))
        hours = cache.hours.take(rows)
        for column in columns:
            if (column.name if column.name in filtered else None) == own:
                answers[column.name] = _counted(column, rows, hours)
    return {name: answers[name] for name in names}


def _counted(
    column: EpisodeColumn, rows: npt.NDArray[np.int64], hours: npt.NDArray[np.float64]
) -> list[FacetValue]:
    assert column.values is not None  # it is coded
    chosen = column.values.take(rows) + 1
    count = np.bincount(chosen, minlength=len(column.texts) + 1)
    sums = np.bincount(chosen, weights=hours, minlength=len(column.texts) + 1)
    values = [
        FacetValue(value=text, episodes=int(n), hours=float(h))
        for text, n, h in zip((None, *column.texts), count, sums, strict=True)
        if n
    ]
    return sorted(values, key=lambda each: (-each.episodes, each.value or ""))[:SHOWN_VALUES]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramSeries:
    """Counts of the episodes and hours of one group, by bin."""

    group: str | None
    episodes: list[int]
    hours: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramCounts:
    edges: list[float]
    unknown: int
    below: int  # the lowest edge
    above: int
    series: list[HistogramSeries]


def histogram(
    cache: SnapshotCache,
    mask: Mask,
    name: str,
    bins: int,
    by: str | None,
    low: float | None = None,
    high: float | None = None,
) -> HistogramCounts:
    """Episodes of a mask by the value of a number, in `bins` equal bins; by default between the inner 99 % of values.

    Raises:
        ConfigError: no such column, or it is no number; no such group.
    """
    column = column_of(cache, name, "column")
    if column.kind != "number" or column.values is None:
        raise ConfigError(f"{name} is no number", where="column")
    rows = rows_of(mask)
    values = column.values.take(rows)
    known = values[np.isfinite(values)]
    if len(known):
        spread = np.clip(np.quantile(known, [0.005, 0.995]), -MAX_EDGE, MAX_EDGE)
        low = float(spread[0]) if low is None else low
        high = float(spread[1]) if high is None else high
    low, high = low or 0.0, high or 0.0
    if high <= low:
        high = low + max(abs(low), 1.0) * 1e-6
    edges = np.linspace(low, high, bins + 1)
    place = np.searchsorted(edges, values, side="right") - 1
    place[values == edges[-1]] = bins - 1
    is_inside = (place >= 0) & (place < bins)
    group, texts = _groups(cache, rows, by)
    flat = group[is_inside] * bins + place[is_inside]
    shape = (len(texts), bins)
    count = np.bincount(flat, minlength=shape[0] * bins).reshape(shape)
    hours = np.bincount(
        flat, weights=cache.hours.take(rows)[is_inside], minlength=shape[0] * bins
    ).reshape(shape)
    return HistogramCounts(
        edges=edges.tolist(),
        unknown=int(np.isnan(values).sum()),
        below=int((values < edges[0]).sum()),
        above=int((values > edges[-1]).sum()),
        series=[
            HistogramSeries(group=text, episodes=n.tolist(), hours=h.tolist())
            for text, n, h in zip(texts, count, hours, strict=True)
            if n.any()
        ],
    )


def _groups(
    cache: SnapshotCache, rows: npt.NDArray[np.int64], by: str | None
) -> tuple[npt.NDArray[np.int64], tuple[str | None, ...]]:
    if by is None:
        return np.zeros(len(rows), np.int64), (None,)
    column = column_of(cache, by, "by")
    if column.kind != "coded" or column.values is None:
        raise ConfigError(f"{by} is no facet", where="by")
    return column.values.take(rows).astype(np.int64) + 1, (None, *column.texts)
