"""From the partials of segments to the normalisation of each embodiment: the same bits whatever order they were made in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ingest.curation.manifests.running_stats import (
    NUM_BINS,
    Ints,
    RunningStats,
    merge_stats,
    quantile,
    stack_stats,
)
from schemas.manifest import Normalisation

DENSE_PARTS = 16  # a histogram of a hundred elements is 4 MB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """E named elements of some segments."""

    names: tuple[str, ...]
    moments: RunningStats  # [E]
    counts: Ints  # [E, NUM_BINS]
    segments: int


def by_embodiment(parts: Iterable[tuple[str, Whole]]) -> dict[str, Normalisation]:
    """The normalisation of each embodiment; `parts` in an order that is always the same."""
    of_body: dict[str, list[Whole]] = defaultdict(list)
    for embodiment, part in parts:
        of_body[embodiment].append(part)
        if len(of_body[embodiment]) > DENSE_PARTS:
            of_body[embodiment] = [joined(of_body[embodiment])]
    return {body: _normalisation(joined(wholes)) for body, wholes in sorted(of_body.items())}


def whole_of(names: tuple[str, ...], rows: pl.DataFrame) -> Whole:
    """Of one block: the partials of its segments merged."""

    def matrix(name: str) -> np.ndarray[Any, np.dtype[Any]]:
        return rows[name].explode().to_numpy().reshape(len(rows), len(names))

    parts = RunningStats(**{name: matrix(name) for name in ("count", "mean", "m2", "low", "high")})
    bins = rows["bins"].list.explode(empty_as_null=False).to_numpy()
    weights = rows["bin_counts"].list.explode(empty_as_null=False).to_numpy()
    counts = np.bincount(bins, weights=weights, minlength=len(names) * NUM_BINS)
    return Whole(
        names=names,
        moments=merge_stats(parts),
        counts=counts.astype(np.int64).reshape(len(names), NUM_BINS),
        segments=len(rows),
    )


def joined(parts: list[Whole]) -> Whole:
    """Of several blocks, perhaps of datasets with other elements: what an element is not in, it has no samples of."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    place = {name: i for i, name in enumerate(names)}
    size = len(names)
    spread: list[RunningStats] = []
    counts = np.zeros((size, NUM_BINS), dtype=np.int64)
    for part in parts:
        at = [place[name] for name in part.names]
        empty = {
            "count": np.zeros(size, dtype=np.int64),
            "mean": np.zeros(size),
            "m2": np.zeros(size),
            "low": np.full(size, np.inf),
            "high": np.full(size, -np.inf),
        }
        for name, values in empty.items():
            values[at] = getattr(part.moments, name)
        spread.append(RunningStats(**empty))
        counts[at] += part.counts
    return Whole(
        names=names,
        moments=merge_stats(stack_stats(spread)),
        counts=counts,
        segments=sum(part.segments for part in parts),
    )


def _normalisation(whole: Whole) -> Normalisation:
    moments = whole.moments
    low, high = moments.low, moments.high
    values = {
        "mean": moments.mean,
        "std": moments.std,
        "q01": quantile(whole.counts, 0.01, low, high),
        "q99": quantile(whole.counts, 0.99, low, high),
        "min": low,
        "max": high,
    }
    return Normalisation(
        names=whole.names,
        count=tuple(int(n) for n in moments.count),
        segments=whole.segments,
        **{name: _listed(each, moments.count) for name, each in values.items()},
    )


def _listed(values: np.ndarray[Any, Any], count: Ints) -> Any:
    return tuple(float(v) if n else None for v, n in zip(values, count, strict=True))
