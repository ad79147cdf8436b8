"""Cuts and overlaps, worked out by hand and against a three-line loop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.catalog.segmentation import (
    CutPoints,
    Spans,
    concat,
    cut_points_of,
    gaps,
    pad_to,
    split_at,
)
from ingest.curation.tiers.frame import SegmentLine, aggregate, covered_steps, touched
from ingest.curation.tiers.policy import Edge
from ingest.curation.tiers.tier import _in_bounds


def spans(*of: tuple[int, int, int]) -> Spans:
    """(row, start, end) each."""
    array = np.array(of, dtype=np.int64).reshape(-1, 3)
    return Spans(row=array[:, 0], start=array[:, 1], end=array[:, 2])


def rows(found: Spans) -> list[tuple[int, int, int]]:
    columns = (found.row.tolist(), found.start.tolist(), found.end.tolist())
    return list(zip(*columns, strict=True))


def edges(*of: tuple[int, int, int]) -> CutPoints:
    """(row, at, rank) each."""
    array = np.array(of, dtype=np.int64).reshape(-1, 3)
    return CutPoints(row=array[:, 0], at=array[:, 1], rank=array[:, 2])


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_a_failed_try_in_the_middle_is_a_segment_of_its_own() -> None:
    found = split_at(ints(100), ints(20), cut_points_of(spans((0, 40, 60)), 0))
    assert rows(found) == [(0, 0, 40), (0, 40, 60), (0, 60, 100)]


def test_without_edges_an_episode_is_one_segment() -> None:
    assert rows(split_at(ints(7, 3), ints(1, 1), concat([]))) == [(0, 0, 7), (1, 0, 3)]
    assert rows(split_at(ints(), ints(), concat([]))) == []


def test_the_more_important_edge_stays_and_what_is_too_near_goes() -> None:
    """30 has the lower rank, so 24 (first in time) and 35 go; 5 and 97 are too near to the ends."""
    wanted = edges((0, 24, 1), (0, 30, 0), (0, 35, 1), (0, 40, 1), (0, 5, 0), (0, 97, 0))
    assert [s for _, s, _ in rows(split_at(ints(100), ints(10), wanted))] == [0, 30, 40]


def test_of_equal_rank_the_earlier_edge_stays() -> None:
    wanted = edges((0, 38, 0), (0, 30, 0), (0, 41, 0))
    assert [s for _, s, _ in rows(split_at(ints(100), ints(10), wanted))] == [0, 30, 41]


def test_an_edge_exactly_the_minimum_away_is_taken() -> None:
    wanted = edges((0, 10, 0), (0, 20, 0), (0, 90, 0))
    assert [s for _, s, _ in rows(split_at(ints(100), ints(10), wanted))] == [0, 10, 20, 90]


def test_an_episode_shorter_than_the_minimum_is_one_segment() -> None:
    assert rows(split_at(ints(5), ints(20), edges((0, 2, 0)))) == [(0, 0, 5)]


def test_a_minimum_below_one_timestep_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        split_at(ints(5), ints(0), concat([]))


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 45), st.integers(0, 2)), max_size=20),
)
def test_segments_tile_every_episode(
    lengths: list[int], least: int, wanted: list[tuple[int, int, int]]
) -> None:
    wanted = [(row % len(lengths), at, rank) for row, at, rank in wanted]
    found = rows(split_at(ints(*lengths), ints(*[least] * len(lengths)), edges(*wanted)))
    for row, length in enumerate(lengths):
        mine = [(s, e) for r, s, e in found if r == row]
        assert mine[0][0] == 0
        assert mine[-1][1] == length
        assert all(a[1] == b[0] for a, b in pairwise(mine))
        assert all(e - s >= min(least, length) for s, e in mine)
        # the oracle: one edge after the other
        taken: list[int] = []
        for _, at in sorted((rank, at) for r, at, rank in wanted if r == row):
            if all(abs(at - other) >= least for other in (0, length, *taken)) and 0 < at < length:
                taken.append(at)
        assert [s for s, _ in mine] == [0, *sorted(taken)]


def test_what_is_short_is_widened_about_its_middle_inside_the_episode() -> None:
    given = spans((0, 50, 54), (0, 2, 4), (0, 97, 99), (0, 30, 60), (1, 1, 2))
    found = pad_to(given, ints(100, 6), ints(10, 10))
    assert rows(found) == [(0, 47, 57), (0, 0, 10), (0, 90, 100), (0, 30, 60), (1, 0, 6)]


def test_gaps_are_what_no_run_covers() -> None:
    runs = spans((0, 10, 20), (0, 15, 40), (0, 60, 130), (2, 0, 5))
    expected = [(0, 0, 10), (0, 40, 60), (1, 0, 8), (2, 5, 9)]
    assert rows(gaps(runs, ints(100, 8, 9))) == expected


def test_gaps_of_runs_outside_the_episode_are_the_episode() -> None:
    assert rows(gaps(spans((0, 120, 130), (0, -9, -1)), ints(100))) == [(0, 0, 100)]


# --- overlaps -----------------------------------------------------------------------------------------------------------

LINE = SegmentLine(lengths=ints(100, 50), segments=spans((0, 0, 40), (0, 40, 100), (1, 0, 50)))


def test_covered_steps_count_an_overlap_once() -> None:
    given = spans((0, 30, 50), (0, 45, 60), (0, 200, 300), (1, -5, 10))
    assert covered_steps(LINE, given).tolist() == [10, 20, 10]
    assert covered_steps(LINE, spans()).tolist() == [0, 0, 0]


def test_a_span_touches_every_segment_that_it_overlaps() -> None:
    segment, span = touched(LINE, spans((0, 39, 41), (0, 40, 100), (1, 49, 60), (1, 50, 60)))
    assert list(zip(segment.tolist(), span.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 2),
    ]


def test_aggregates_by_hand() -> None:
    given, value = spans((0, 30, 50), (0, 60, 70), (0, 80, 90)), np.array([2.0, 7.0, np.nan])
    assert aggregate(LINE, given, value, "share").tolist() == [0.25, 0.5, 0.0]
    assert aggregate(LINE, given, value, "count").tolist() == [1, 3, 0]
    assert np.nan_to_num(aggregate(LINE, given, value, "max"), nan=-1).tolist() == [2, 7, -1]
    assert np.nan_to_num(aggregate(LINE, given, value, "min"), nan=-1).tolist() == [2, 2, -1]


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 110), st.integers(1, 30)), max_size=12)
)
def test_covered_steps_are_those_of_a_mask(of: list[tuple[int, int, int]]) -> None:
    masks = [np.zeros(100, bool), np.zeros(50, bool)]
    for row, start, size in of:
        masks[row][max(start, 0) : max(start + size, 0)] = True
    given = spans(*[(row, start, start + size) for row, start, size in of])
    expected = [masks[0][:40].sum(), masks[0][40:].sum(), masks[1].sum()]
    assert covered_steps(LINE, given).tolist() == expected


def test_one_timestep_short_is_not_the_whole() -> None:
    """The short way for episodes that one run covers must not take those that it nearly covers."""
    lengths = ints(10, 10, 10)
    runs = spans((0, 0, 9), (1, 1, 10), (2, 0, 10))
    assert rows(gaps(runs, lengths)) == [(1, 0, 1), (0, 9, 10)]
    line = SegmentLine(
        lengths=lengths, segments=split_at(lengths, ints(1, 1, 1), edges((1, 5, 0), (2, 5, 0)))
    )
    assert covered_steps(line, runs).tolist() == [9, 4, 5, 5, 5]


def test_bounds_of_an_edge_include_what_they_say() -> None:
    value = np.array([1.4, 1.5, 1.6, np.nan])
    for word, is_in in (
        ("above", [False, False, True, False]),
        ("at_least", [False, True, True, False]),
        ("below", [True, False, False, False]),
        ("at_most", [True, True, False, False]),
    ):
        edge = Edge.model_validate({"measurement": "pause_s", word: 1.5, "origin": "ours"})
        assert _in_bounds(edge, value).tolist() == is_in
