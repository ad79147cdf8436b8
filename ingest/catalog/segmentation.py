"""Cuts episodes into the segments that a tier is given to: [start, end) that cover an episode and do not overlap.

All episodes at once, because there may be millions: an episode is a row number. Edges are wanted places to cut. They are taken in
the order of their rank, then of time; one nearer than `min_steps` to an edge already taken, or to an end of the episode, is not
taken. So no segment is shorter than `min_steps` unless the episode is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spans:
    """M stretches [start, end) of timesteps, each of the episode `row`."""

    row: Ints
    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.row)

    def at(self, chosen: npt.NDArray[np.bool_] | Ints) -> Spans:
        return Spans(row=self.row[chosen], start=self.start[chosen], end=self.end[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CutPoints:
    """M wanted cuts before timestep `at` of the episode `row`; the lowest `rank` is the most important."""

    row: Ints
    at: Ints
    rank: Ints


def cut_points_of(spans: Spans, rank: int) -> CutPoints:
    """Both ends of every span."""
    return CutPoints(
        row=np.concatenate([spans.row, spans.row]),
        at=np.concatenate([spans.start, spans.end]),
        rank=np.full(2 * len(spans), rank, dtype=np.int64),
    )


def concat(parts: list[CutPoints]) -> CutPoints:
    """All edges together."""
    none = CutPoints(
        row=np.zeros(0, np.int64), at=np.zeros(0, np.int64), rank=np.zeros(0, np.int64)
    )
    parts = [none, *parts]
    return CutPoints(
        row=np.concatenate([p.row for p in parts]),
        at=np.concatenate([p.at for p in parts]),
        rank=np.concatenate([p.rank for p in parts]),
    )


def pad_to(spans: Spans, lengths: Ints, min_steps: Ints) -> Spans:
    """Spans of at least `min_steps`, about their middle and inside the episode: what is short is set apart, not overlooked."""
    length, least = lengths[spans.row], np.minimum(min_steps, lengths)[spans.row]
    missing = least - (spans.end - spans.start)
    start = np.where(missing > 0, spans.start - missing // 2, spans.start)
    start = np.clip(start, 0, length - least)
    end = np.where(missing > 0, start + least, np.minimum(spans.end, length))
    return Spans(row=spans.row, start=start, end=end)


def merged(spans: Spans, lengths: Ints) -> Spans:
    """The same timesteps as disjoint spans inside their episodes, in order of row and time; neighbours that touch are one."""
    last = lengths[spans.row]
    start, end = np.clip(spans.start, 0, last), np.clip(spans.end, 0, last)
    kept = end > start
    row, start, end = spans.row[kept], start[kept], end[kept]
    # Episodes on one line, each with a timestep to spare, so that one number orders them and none reaches into the next.
    stride = int(lengths.max(initial=0)) + 1
    key = row * stride + start
    if np.any(key[1:] < key[:-1]):
        order = np.argsort(key, kind="stable")
        row, end, key = row[order], end[order], key[order]
    reach = np.maximum.accumulate(row * stride + end)
    is_new = np.append(np.ones(min(len(key), 1), dtype=bool), key[1:] > reach[:-1])
    is_last = np.append(is_new[1:], np.ones(min(len(key), 1), dtype=bool))
    first = row[is_new] * stride
    return Spans(row=row[is_new], start=key[is_new] - first, end=reach[is_last] - first)


def is_covered(spans: Spans, lengths: Ints) -> npt.NDArray[np.bool_]:
    """[N] whether one span alone covers all of the episode: so it is with most, and they need no arithmetic."""
    out = np.zeros(len(lengths), dtype=bool)
    out[spans.row[(spans.start <= 0) & (spans.end >= lengths[spans.row])]] = True
    return out


def gaps(runs: Spans, lengths: Ints) -> Spans:
    """What `runs` leave uncovered of every episode, the gap at its end after the others."""
    is_whole = is_covered(runs, lengths)
    covered = merged(runs.at(~is_whole[runs.row]), lengths)
    row, start, end = covered.row, covered.start, covered.end
    is_first = np.append(np.ones(min(len(row), 1), dtype=bool), row[1:] != row[:-1])
    before = np.where(is_first, 0, np.append(0, end[:-1])[: len(end)])
    reached = np.zeros(len(lengths), dtype=np.int64)  # the end of the last run of each episode
    np.maximum.at(reached, row, end)
    others = np.flatnonzero(~is_whole)
    between = Spans(
        row=np.concatenate([row, others]),
        start=np.concatenate([before, reached[others]]),
        end=np.concatenate([start, lengths[others]]),
    )
    return between.at(between.end > between.start)


def split_at(lengths: Ints, min_steps: Ints, edges: CutPoints) -> Spans:
    """The segments of every episode, in order of row and time.

    Args:
        lengths: [N] timesteps of each episode, >= 1.
        min_steps: [N] shortest segment of each, >= 1.
        edges: wanted cuts; those outside an episode or too near its ends are ignored.

    Raises:
        ValueError: an episode without timesteps, or a minimum below one.
    """
    if lengths.min(initial=1) < 1 or min_steps.min(initial=1) < 1:
        raise ValueError("an episode and a segment must have at least one timestep")
    taken_row, taken_at = _taken(lengths, min_steps, edges)
    order = np.argsort(_keys(taken_row, taken_at, lengths))
    taken_row, taken_at = taken_row[order], taken_at[order]
    counts = np.bincount(taken_row, minlength=len(lengths)) + 1
    row = np.repeat(np.arange(len(lengths), dtype=np.int64), counts)
    start = np.zeros(len(row), dtype=np.int64)
    # before an edge are the edges before it, and the first segment of every episode up to its own
    start[np.arange(len(taken_row)) + taken_row + 1] = taken_at
    end = np.empty_like(start)
    end[:-1] = start[1:]
    end[np.cumsum(counts) - 1] = lengths
    return Spans(row=row, start=start, end=end)


def _keys(row: Ints, at: Ints, lengths: Ints) -> Ints:
    """One number by which to sort by row, then by timestep: several times as fast as two."""
    return row * (int(lengths.max(initial=0)) + 1) + at


def _taken(lengths: Ints, min_steps: Ints, edges: CutPoints) -> tuple[Ints, Ints]:
    """The edges that are cut at. Each round takes the best one left of every episode and drops what is too near to it."""
    least = min_steps[edges.row]
    fits = (edges.at >= least) & (lengths[edges.row] - edges.at >= least)
    row, at, rank = edges.row[fits], edges.at[fits], edges.rank[fits]
    ranks = int(rank.max(initial=0)) + 1
    order = np.argsort(_keys(row * ranks + rank, at, lengths))
    row, at = row[order], at[order]
    rows, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    while len(row):
        is_first = np.append(True, row[1:] != row[:-1])
        rows.append(row[is_first])
        places.append(at[is_first])
        chosen = at[is_first][np.cumsum(is_first) - 1]
        is_free = np.abs(at - chosen) >= min_steps[row]
        row, at = row[is_free], at[is_free]
    return np.concatenate(rows), np.concatenate(places)
