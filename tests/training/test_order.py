"""Sample order: a pure function, exact in its proportions, the same for any number of ranks and workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.rng_keys import Order, key_of, mixed, permuted, uniform


def order(weights: list[float], num_draws: int, seed: int = 0) -> Order:
    return Order(
        weights=np.array(weights),
        num_anchors=np.full(len(weights), 7),
        num_draws=num_draws,
        seed=seed,
    )


def test_splitmix_by_the_published_values() -> None:
    """The first outputs of SplitMix64 from state 0 (Vigna's splitmix64.c): each is the finaliser of a multiple of the golden gamma."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([0, golden, 2 * golden % 2**64], dtype=np.uint64)
    assert [hex(v) for v in mixed(states)] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


@given(st.integers(1, 300), st.integers(0, 2**40))
def test_it_is_a_permutation(num: int, key: int) -> None:
    found = permuted(key_of(key), np.arange(num), num)
    assert sorted(found) == list(range(num))


def test_neighbours_do_not_stay_neighbours() -> None:
    found = permuted(key_of(1), np.arange(10_000), 10_000)
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03


def test_uniform_is_uniform() -> None:
    found = np.sort(uniform(key_of(5), np.arange(100_000)))
    assert (
        np.abs(found - (np.arange(100_000) + 0.5) / 100_000).max() < 0.006
    )  # Kolmogorov, p about 0.001


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=20).filter(lambda w: sum(w) > 0.01),
    st.integers(1, 500),
    st.integers(0, 9),
)
def test_every_segment_is_drawn_floor_or_ceil_of_its_share(
    weights: list[float], num: int, epoch: int
) -> None:
    segment, anchor = order(weights, num).at(epoch, np.arange(num))
    counts = np.bincount(segment, minlength=len(weights))
    exact = np.array(weights) / sum(weights) * num
    assert (np.abs(counts - exact) < 1 + 1e-6).all()
    assert not counts[np.array(weights) == 0].any()
    assert ((anchor >= 0) & (anchor < 7)).all()


def test_epochs_and_seeds_differ_and_one_draw_needs_no_other() -> None:
    made = order([1, 2, 3], 90)
    whole = made.at(4, np.arange(90))
    for i in (0, 17, 89):
        assert [v.item() for v in made.at(4, i)] == [v[i] for v in whole]
    assert not np.array_equal(whole[0], made.at(5, np.arange(90))[0])
    assert not np.array_equal(whole[0], order([1, 2, 3], 90, seed=1).at(4, np.arange(90))[0])


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [np.nan]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        order(weights, 5)
