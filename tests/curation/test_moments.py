"""Statistics that merge equal those of the whole, against a two-pass oracle in extended precision."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.curation.manifests.running_stats import (
    NUM_BINS,
    QUANTILE_ERROR,
    SCALE,
    bin_of,
    histogram,
    merge_stats,
    quantile,
    running_stats,
    stack_stats,
)


def oracle(samples: np.ndarray) -> tuple[float, float]:
    """Mean and sum of squared deviations of a list, exactly rounded sums."""
    mean = math.fsum(samples) / len(samples)
    return mean, math.fsum((x - mean) ** 2 for x in samples)


@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1000.0, 0.01), (-1e6, 1e-3)])
def test_merged_parts_are_the_whole(offset: float, spread: float) -> None:
    """Mean 1000 and deviation 0.01 survive, which sums of squares do not."""
    rng = np.random.default_rng(5)
    values = offset + spread * rng.normal(size=(500, 3))
    valid = rng.random((500, 3)) < 0.7
    valid[100:180, 1] = False  # a part without any sample of an element
    cuts = [0, 1, 40, 100, 180, 420, 500]
    parts = [running_stats(values[a:b], valid[a:b]) for a, b in pairwise(cuts)]
    found = merge_stats(stack_stats(parts))
    for e in range(3):
        mean, m2 = oracle(values[valid[:, e], e])
        assert found.count[e] == valid[:, e].sum()
        assert found.mean[e] == pytest.approx(mean, rel=1e-14)
        assert found.m2[e] == pytest.approx(m2, rel=1e-9)
        assert (found.low[e], found.high[e]) == (
            values[valid[:, e], e].min(),
            values[valid[:, e], e].max(),
        )


def test_by_hand() -> None:
    """1, 2, 6: mean 3, deviations 4 + 1 + 9 = 14; then with 11: mean 5, 16 + 9 + 1 + 36 = 62."""
    all_valid = np.ones((3, 1), dtype=bool)
    a = running_stats(np.array([[1.0], [2.0], [6.0]]), all_valid)
    b = running_stats(np.array([[11.0]]), all_valid[:1])
    assert (a.count[0], a.mean[0], a.m2[0]) == (3, 3.0, 14.0)
    both = merge_stats(stack_stats([a, b]))
    assert (both.count[0], both.mean[0], both.m2[0]) == (4, 5.0, 62.0)
    assert both.std[0] == math.sqrt(62 / 4)


def test_nothing_has_no_statistics() -> None:
    none = running_stats(np.zeros((4, 1)), np.zeros((4, 1), dtype=bool))
    assert (none.count[0], none.mean[0], none.m2[0]) == (0, 0.0, 0.0)
    assert merge_stats(stack_stats([none, none])).count[0] == 0
    empty = np.zeros((1, NUM_BINS), dtype=np.int64)
    assert np.isnan(quantile(empty, 0.5, none.low, none.high)).all()


@given(
    st.lists(st.floats(-20, 20, allow_subnormal=False), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.25, 0.5, 0.99]),
    st.integers(1, 5),
)
def test_a_quantile_is_within_its_bound(samples: list[float], share: float, parts: int) -> None:
    values = np.array(samples)[:, None]
    counts = np.zeros(NUM_BINS, dtype=np.int64)
    for part in np.array_split(values, parts):
        bins, filled = histogram(part, np.ones(part.shape, dtype=bool))
        counts[bins] += filled
    low, high = np.array([min(samples)]), np.array([max(samples)])
    [found] = quantile(counts[None], share, low, high)
    exact = sorted(samples)[max(math.ceil(share * len(samples)), 1) - 1]
    assert abs(found - exact) <= QUANTILE_ERROR * math.hypot(exact, SCALE) * (1 + 1e-9)


def test_a_gripper_that_is_zero_or_one_has_exact_quantiles() -> None:
    values = np.repeat([0.0, 1.0], 50)[:, None]
    counts = np.zeros((1, NUM_BINS), dtype=np.int64)
    bins, filled = histogram(values, np.ones(values.shape, dtype=bool))
    counts[0, bins] = filled
    low, high = np.array([0.0]), np.array([1.0])
    assert quantile(counts, 0.5, low, high)[0] == 0.0
    assert quantile(counts, 0.51, low, high)[0] == 1.0


def test_bins_are_those_of_each_element_and_masked_samples_are_in_none() -> None:
    values = np.array([[0.0, 1.0], [0.0, 2.0]])
    bins, counts = histogram(values, np.array([[True, True], [True, False]]))
    assert bins.tolist() == [bin_of(np.array(0.0)), NUM_BINS + bin_of(np.array(1.0))]
    assert counts.tolist() == [2, 1]
    assert bin_of(np.array([-1e9, 1e9])).tolist() == [0, NUM_BINS - 1]
