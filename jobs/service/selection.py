"""Which episodes a request is about: filters `COLUMN:OP:VALUE` and words to search for, as one mask over the episodes of a snapshot."""

from __future__ import annotations

import math
import operator
import re
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from jobs.service.snapshot_cache import EpisodeColumn, SnapshotCache
from schemas.errors import ConfigError

Mask = npt.NDArray[np.bool_]
MAX_FILTERS, MAX_WORDS, MAX_WORD = 64, 8, 200
MAX_MASK_BYTES = 48 << 20  # of masks that are kept, one byte an episode
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
OPERATORS = ("eq", "ne", "null", *COMPARE)
_FILTER = re.compile(rf"(?s)(.*?):({'|'.join(OPERATORS)}):(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One condition. Several `eq` of one column mean any of them; all else must hold together."""

    column: str
    op: str
    value: str


def parse_filters(texts: Sequence[str], cache: SnapshotCache) -> tuple[Filter, ...]:
    """
    Raises:
        ConfigError: a filter is not of the form, or names no column.
    """
    if len(texts) > MAX_FILTERS:
        raise ConfigError(f"{len(texts)} filters; expected at most {MAX_FILTERS}", where="filter")
    return tuple(sorted({_parsed(text, cache) for text in texts}, key=repr))


def _parsed(text: str, cache: SnapshotCache) -> Filter:
    matched = _FILTER.fullmatch(text)
    if matched is None:
        ops = ", ".join(OPERATORS)
        raise ConfigError(
            f"{text[:200]!r} is not COLUMN:OP:VALUE with one of {ops} as OP", where="filter"
        )
    name, op, value = matched.groups()
    column = column_of(cache, name, "filter")
    if column.kind == "text" and op in COMPARE:
        raise ConfigError(f"{name} has texts; expected eq, ne or null", where="filter")
    if op == "null" and value not in ("true", "false"):
        raise ConfigError(f"{name}:null: expected true or false", where="filter")
    if column.kind == "number" and op != "null":
        _number(value, name)
    return Filter(column=name, op=op, value=value)


def column_of(cache: SnapshotCache, name: str, where: str) -> EpisodeColumn:
    """
    Raises:
        ConfigError: the snapshot has no such column.
    """
    if name not in cache.columns:
        raise ConfigError(
            f"no column {name[:200]!r}", remedy="GET /api/v1/columns lists them", where=where
        )
    return cache.columns[name]


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ConfigError(f"{text[:200]!r} is no number for {name}", where="filter")
    return value


def words_of(text: str) -> tuple[str, ...]:
    """The words of a search: each must occur somewhere in the episode's id, its tasks or its captions.

    Raises:
        ConfigError: there are too many, or one is too long.
    """
    words = tuple(dict.fromkeys(text.lower().split()))
    if len(words) > MAX_WORDS or any(len(word) > MAX_WORD for word in words):
        raise ConfigError(
            f"expected at most {MAX_WORDS} words of at most {MAX_WORD} characters", where="q"
        )
    return words


class EpisodeMasks:
    """Masks of one snapshot; the ones asked for last are kept. For any number of threads."""

    def __init__(self, cache: SnapshotCache) -> None:
        self.cache = cache
        self._masks: OrderedDict[Any, Mask] = OrderedDict()
        self._lock = threading.Lock()
        self._max_masks = max(MAX_MASK_BYTES // max(cache.num_episodes, 1 << 16), 4)

    def mask(self, filters: Sequence[Filter], words: Sequence[str]) -> Mask:
        """[E] episodes that all of it holds for. Not to be written to."""
        return self._kept(("all", tuple(filters), tuple(words)), lambda: self._all(filters, words))

    def _all(self, filters: Sequence[Filter], words: Sequence[str]) -> Mask:
        mask = np.ones(self.cache.num_episodes, dtype=bool)
        for part in self._parts(filters):
            mask &= self._part(part)
        for word in words:
            mask &= self._word(word)
        return mask

    def _parts(self, filters: Sequence[Filter]) -> list[tuple[Filter, ...]]:
        """Filters that are decided together: the `eq` of one column."""
        parts: dict[Any, list[Filter]] = {}
        for each in filters:
            key = each.column if each.op == "eq" else each
            parts.setdefault(key, []).append(each)
        return [tuple(part) for part in parts.values()]

    def _part(self, part: tuple[Filter, ...]) -> Mask:
        return self._kept(("part", part), lambda: _decided(self.cache.columns, part))

    def _word(self, word: str) -> Mask:
        def searched() -> Mask:
            hits = self.cache.search_texts.str.contains(word, literal=True)
            return hits.fill_null(False).to_numpy().copy()

        return self._kept(("word", word), searched)

    def _kept(self, key: Any, compute: Callable[[], Mask]) -> Mask:
        with self._lock:
            if key in self._masks:
                self._masks.move_to_end(key)
                return self._masks[key]
        mask = compute()
        mask.flags.writeable = False
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > self._max_masks:
                self._masks.popitem(last=False)
        return mask


def rows_of(mask: Mask) -> npt.NDArray[np.int64]:
    """The rows of a mask. `values.take(rows)` takes a quarter of the time of `values[mask]`."""
    return np.flatnonzero(mask)


def hours_of(cache: SnapshotCache, mask: Mask) -> float:
    """Hours of the episodes of a mask."""
    return float(
        np.einsum("i,i->", cache.hours, mask)
    )  # not `dot`: the threads of BLAS wait for each other under load


def _decided(columns: Any, part: tuple[Filter, ...]) -> Mask:
    first = part[0]
    column = columns[first.column]
    if first.op == "null":
        return ~_is_known(column) if first.value == "true" else _is_known(column)
    if column.kind == "number":
        numbers = [_number(each.value, first.column) for each in part]
        return _compared(column.values, first.op, numbers) & _is_known(column)
    if column.kind == "coded":
        # codes ascend as texts do: a text that no episode has lies between two of them
        places: list[float] = [bisect_left(column.texts, each.value) for each in part]
        if first.op in ("eq", "ne"):
            have = zip(places, part, strict=True)
            places = [p for p, each in have if each.value in column.texts]
            return _compared(column.values, first.op, places) & _is_known(column)
        is_known_text = first.value in column.texts
        edge = places[0] if is_known_text else places[0] - 0.5
        return _compared(column.values, first.op, [edge]) & _is_known(column)
    is_equal = pc.is_in(column.shown, value_set=pc.cast([each.value for each in part], "string"))
    mask = np.array(is_equal.to_numpy(zero_copy_only=False), dtype=bool)
    return (mask if first.op == "eq" else ~mask) & _is_known(column)


def _compared(values: npt.NDArray[Any], op: str, numbers: Sequence[float]) -> Mask:
    if op in COMPARE:
        return np.asarray(COMPARE[op](values, numbers[0]))
    mask = np.zeros(len(values), dtype=bool)
    for number in numbers:
        mask |= values == number
    return mask if op == "eq" else ~mask


def _is_known(column: EpisodeColumn) -> Mask:
    if column.values is None:
        assert column.shown is not None
        return np.asarray(column.shown.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    return column.values >= 0 if column.kind == "coded" else ~np.isnan(column.values)
