"""The grid: where it starts, how many timesteps, and which sample is nearest."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ingest.transforms.time_grid import gap_limit_ns, grid, nearest
from schemas.errors import Code, SourceError
from schemas.rate import instants_ns, rate_from
from tests.strategies import clocks

MS = 1_000_000
TEN = Fraction(10)


def clock(*ms: float) -> np.ndarray:
    return np.array([round(m * MS) for m in ms], dtype=np.int64)


@pytest.mark.parametrize(
    ("given_ms", "want_ms"),
    [
        ([(0, 200)], (0, 100, 200)),  # both ends count
        ([(0, 199.999999)], (0, 100, 200)),  # one nanosecond is rounding, not a missing sample
        ([(0, 199.999998)], (0, 100)),
        ([(0, 99)], (0,)),
        ([(0, 300), (50, 400)], (50, 150, 250)),  # starts with the latest, ends with the earliest
        ([(-30, 300), (20, 120)], (20, 120)),
        ([(70, 70)], (70,)),
    ],
)
def test_grids_by_hand(given_ms: list[tuple[float, float]], want_ms: tuple[float, ...]) -> None:
    clocks = [clock(*sorted(set(ends))) for ends in given_ms]
    assert grid(clocks, TEN, 1000).tolist() == clock(*want_ms).tolist()


@pytest.mark.parametrize("rate", ["29.97", "30", "59.94", "15", "5", "7/3", "24"])
def test_ten_seconds_of_any_source_are_a_hundred_timesteps_and_one(rate: str) -> None:
    source = rate_from(rate)
    count = int(10 * source) + 1
    t = instants_ns(count, source)
    found = grid([t], TEN, 1000)
    assert len(found) == int((Fraction(count - 1) / source) * 10) + 1
    assert found[-1] <= t[-1] + 1


def test_no_common_time() -> None:
    with pytest.raises(SourceError, match="overlap") as caught:
        grid([clock(0, 100), clock(101, 300)], TEN, 1000)
    assert caught.value.code is Code.NO_COMMON_TIME
    assert grid([clock(0, 100), clock(100, 300)], TEN, 1000).tolist() == clock(100).tolist()


def test_nothing_observed_is_an_empty_episode() -> None:
    """A source with commands only: nothing says when the episode is."""
    with pytest.raises(SourceError) as caught:
        grid([], TEN, 1000)
    assert caught.value.code is Code.EMPTY_EPISODE


def test_too_long() -> None:
    assert len(grid([clock(0, 5000)], TEN, 5)) == 51
    with pytest.raises(SourceError) as caught:
        grid([clock(0, 5000.000001)], TEN, 5)
    assert caught.value.code is Code.TOO_LONG


def test_a_wild_clock_is_refused_before_a_grid_is_made_of_it() -> None:
    with pytest.raises(SourceError, match="at most 1000 s"):
        grid([np.array([0, 2**62], dtype=np.int64)], TEN, 1000)


@given(st.lists(clocks(), min_size=1, max_size=4), st.sampled_from([TEN, rate_from(29.97)]))
def test_a_grid_lies_in_every_clock(given_clocks: list[np.ndarray], rate: Fraction) -> None:
    start = max(c[0] for c in given_clocks)
    end = min(c[-1] for c in given_clocks)
    assume(start <= end)
    at = grid(given_clocks, rate, 1000)
    assert at[0] == start
    assert at[-1] <= end + 1
    assert instants_ns(len(at) + 1, rate, int(start))[-1] > end  # not one timestep more would fit
    np.testing.assert_array_equal(at, instants_ns(len(at), rate, int(start)))


# --- gaps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "limit_ms"),
    [
        ((0, 100, 200), 250),  # two periods of 10 Hz are less than a quarter second
        ((0, 333, 666, 999), 666),  # a 3 Hz source must not be all gaps
        ((0, 10, 20, 500), 250),  # the median, so that one gap does not excuse itself
        ((0,), 250),
        ((0, 200), 400),
    ],
)
def test_gap_limit_by_hand(ms: tuple[int, ...], limit_ms: int) -> None:
    assert gap_limit_ns(clock(*ms), gap_periods=2, gap_ms=250) == limit_ms * MS


# --- nearest ------------------------------------------------------------------------------------------------------------


def nearest_by_loop(clock_ns: list[int], at: int) -> int:
    best = 0
    for i, t in enumerate(clock_ns):
        if abs(t - at) < abs(clock_ns[best] - at):
            best = i
    return best


@pytest.mark.parametrize(
    ("at", "index"),
    [(-5, 0), (0, 0), (4, 0), (5, 0), (6, 1), (10, 1), (15, 1), (16, 2), (99, 2)],
)
def test_nearest_by_hand_ties_go_to_the_earlier(at: int, index: int) -> None:
    t = np.array([0, 10, 20], dtype=np.int64)
    assert nearest(t, np.array([at])).tolist() == [index]


def test_the_only_sample_is_the_nearest() -> None:
    assert nearest(clock(5), clock(0, 5, 9)).tolist() == [0, 0, 0]


@given(clocks(scale_ns=1), st.lists(st.integers(-700, 5000), min_size=1, max_size=20))
def test_nearest_against_a_loop(t: np.ndarray, at: list[int]) -> None:
    got = nearest(t, np.array(sorted(at), dtype=np.int64))
    assert got.tolist() == [nearest_by_loop(t.tolist(), instant) for instant in sorted(at)]
