"""Which pairs are looked at, what is said of them, and which copy stays."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest

from ingest.curation.duplicates import search
from ingest.curation.duplicates.compare import PairComparison, Thresholds, compare_pair, plausible
from ingest.curation.duplicates.find import find_leaks
from ingest.curation.duplicates.retention import Standing, best, why
from ingest.curation.duplicates.search import Pairs, near_pairs
from ingest.curation.duplicates.signatures import Signatures
from ingest.curation.measurements.each.trajectory import POINTS
from tests.curation.dedup_cases import arm, look, signatures

# --- search -------------------------------------------------------------------------------------------------------------


def crowd(rng: np.random.Generator, count: int = 1200, width: int = 24) -> np.ndarray:
    """Clustered vectors: 30 groups, and a near neighbour for every tenth vector."""
    middle = rng.normal(0, 1, (30, width))
    made = middle[rng.integers(0, 30, count)] + rng.normal(0, 0.35, (count, width))
    made[::10] = made[1::10] + rng.normal(0, 0.03, (count // 10, width))
    return made.astype(np.float32)


def all_pairs(vectors: np.ndarray, radius: float) -> set[tuple[int, int]]:
    exact = vectors.astype(float)
    square = (exact**2).sum(axis=1)
    far2 = square[:, None] + square - 2 * exact @ exact.T
    return {(a, b) for a, b in zip(*np.nonzero(far2 < radius**2), strict=True) if a < b}


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.one.tolist(), pairs.other.tolist(), strict=True))


def test_cells_find_what_comparing_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, owner = crowd(np.random.default_rng(1)), np.arange(1200)
    expected = all_pairs(vectors, 0.5)
    assert len(expected) >= 120
    assert as_set(near_pairs(vectors, owner, 0.5)) == expected
    monkeypatch.setattr(search, "ONE_CELL", 100)
    monkeypatch.setattr(search, "_HOMES", 7)
    monkeypatch.setattr(search, "_VISITORS", 50)
    found = as_set(near_pairs(vectors, owner, 0.5))
    assert found <= expected
    assert len(found) >= 0.99 * len(expected)


def test_neighbours_in_other_cells_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ONE_CELL", 100)
    plane = (
        np.random.default_rng(3).uniform(0, 1, (2000, 2)).astype(np.float32)
    )  # 89 cells, no gaps
    expected = all_pairs(plane, 0.02)
    assert len(expected) > 2000
    assert as_set(near_pairs(plane, np.arange(2000), 0.02)) == expected


def test_a_vector_is_no_pair_with_its_owners_others() -> None:
    vectors = np.zeros((4, 3), np.float32)
    pairs = near_pairs(vectors, np.array([0, 0, 1, 2]), 0.1)
    assert as_set(pairs) == {(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert as_set(search.joined(3, search.of_owners(pairs, np.array([0, 0, 1, 2])))) == {
        (0, 1),
        (0, 2),
        (1, 2),
    }
    side = np.array([True, True, False, False])
    across = near_pairs(vectors, np.array([0, 0, 1, 2]), 0.1, side=side)
    assert as_set(across) == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_a_crowd_keeps_its_nearest_and_is_counted() -> None:
    vectors = np.linspace(0, 0.1, 100, dtype=np.float32)[:, None]
    pairs = near_pairs(vectors, np.arange(100), 1.0)
    assert pairs.crowded == 100
    half = search.MOST // 2
    assert {(k, k + half) for k in range(99 - half)} <= as_set(pairs)
    assert len(pairs.one) <= 100 * search.MOST


def test_nothing_has_no_pairs() -> None:
    assert as_set(near_pairs(np.zeros((0, 5), np.float32), np.zeros(0, np.intp), 1.0)) == set()


# --- the judge ----------------------------------------------------------------------------------------------------------


def verdict(found: Signatures) -> PairComparison:
    return compare_pair(found, Pairs(one=np.array([0]), other=np.array([1])), Thresholds())


def is_same(found: Signatures) -> bool:
    return bool(verdict(found).is_same[0])


def test_motion_and_pictures_are_asked_together() -> None:
    assert is_same(signatures([[arm(1)], [arm(1, 0.02)]], [[look(1)], [look(1, 0.3)]]))
    assert not is_same(signatures([[arm(1)], [arm(2)]], [[look(1)], [look(1)]]))
    assert not is_same(signatures([[arm(1)], [arm(1)]], [[look(1)], [look(2)]]))
    assert not is_same(signatures([[arm(1)], [arm(1)]], [[look(1)], []]))
    # Each within its own limit, but not both at its edge: 4 % of 5 %, and 0.3 of 0.35.
    edge = [[arm(1)], [arm(1, 0.044)]]
    close = verdict(signatures(edge, [[look(1)], [look(1)]]))
    far = verdict(signatures(edge, [[look(1)], [look(1, 1.0)]]))
    assert 0.03 < close.path[0] < 0.05
    assert 0.25 < far.look[0] < 0.35
    assert close.is_same[0]
    assert not far.is_same[0]


def test_the_rate_a_copy_claims_does_not_count_when_both_agree() -> None:
    both = [[arm(1)], [arm(1)]], [[look(1)], [look(1)]]
    assert is_same(signatures(*both, duration_s=[10.0, 20.0]))
    assert not is_same(signatures(*both, duration_s=[10.0, 50.0]))


def test_pictures_alone_have_to_agree_almost_wholly() -> None:
    assert is_same(signatures([[], [arm(1)]], [[look(1)], [look(1, 0.1)]]))
    assert not is_same(signatures([[], [arm(1)]], [[look(1)], [look(1, 0.5)]]))
    same = [[], []], [[look(1)], [look(1)]]
    assert is_same(signatures(*same, duration_s=[10.0, 12.0]))
    assert not is_same(signatures(*same, duration_s=[10.0, 14.0]))


def test_cameras_may_be_fewer_and_in_another_order() -> None:
    paths = [[arm(1)], [arm(1)]]
    assert is_same(signatures(paths, [[look(1), look(2)], [look(2), look(1)]]))
    assert is_same(signatures(paths, [[look(1), look(2), look(3)], [look(9), look(3)]]))
    assert not is_same(signatures(paths, [[look(1), look(2)], [look(8), look(9)]]))


def test_every_arm_has_to_fit_whatever_side_it_is_called() -> None:
    cameras = [[look(1)], [look(1)]]
    assert is_same(signatures([[arm(1), arm(2)], [arm(1), arm(2)]], cameras))
    assert is_same(signatures([[arm(1), arm(2)], [arm(2), arm(1)]], cameras))
    assert not is_same(signatures([[arm(1), arm(2)], [arm(1), arm(3)]], cameras))
    assert not is_same(signatures([[arm(1), arm(2)], [arm(3), arm(1)]], cameras))
    # A release with one arm of the two.
    assert is_same(signatures([[arm(1), arm(2)], [arm(2)]], cameras))
    assert is_same(signatures([[arm(1)], [arm(2), arm(1)]], cameras))
    assert not is_same(signatures([[arm(1), arm(2)], [arm(3)]], cameras))


def test_the_opening_of_the_arms_that_fit_counts() -> None:
    cameras, late = [[look(1)], [look(1)]], arm(2)
    late[:, 3] = np.linspace(0, 1, POINTS) > 0.5
    crossed = [[arm(1), arm(2)], [late, arm(1)]]
    found = verdict(signatures(crossed, cameras))
    assert found.path[0] < 0.01
    assert found.opening[0] == pytest.approx(1.0)
    assert not found.is_same[0]


def test_pairs_that_move_quite_otherwise_are_not_compared_further() -> None:
    found = signatures([[arm(1)], [arm(1)], [arm(2)], []], [[look(1)]] * 4)
    one, other = np.triu_indices(4, k=1)
    assert as_set(plausible(found, Pairs(one=one, other=other))) == {(0, 1), (0, 3), (1, 3), (2, 3)}


def test_leaks_are_told_of_the_episode_that_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    none = np.zeros(0, np.intp)
    links = {"exact": (none, none)}
    monkeypatch.setattr("ingest.curation.duplicates.find.exact_pairs", lambda *_: links["exact"])
    found = signatures([[arm(k)] for k in (1, 2, 1, 1, 3)], [[look(k)] for k in (1, 2, 1, 1, 3)])
    is_reference = np.array([False, False, True, False, True])
    leaks = find_leaks(None, None, found, is_reference, Thresholds())  # type: ignore[arg-type]
    assert list(zip(leaks.checked, leaks.reference, strict=True)) == [(0, 2), (3, 2)]
    assert not leaks.is_exact.any()
    # 1 and 4 are exact copies by way of 0, which is on the side of 1.
    links["exact"] = (np.array([0, 0]), np.array([1, 4]))
    leaks = find_leaks(None, None, found, is_reference, Thresholds())  # type: ignore[arg-type]
    pairs = list(zip(leaks.checked, leaks.reference, leaks.is_exact, strict=True))
    assert pairs == [(0, 4, True), (0, 2, False), (1, 4, True), (3, 2, False)]


# --- the rule -----------------------------------------------------------------------------------------------------------

WORST = Standing(
    uid="z", tier="low", num_cameras=1, licence_class="non_commercial", unsettled_facts=2
)
BETTER = [
    (replace(WORST, tier="high"), "tier high over low"),
    (replace(WORST, num_cameras=3), "3 cameras over 1"),
    (replace(WORST, licence_class="permissive"), "licence permissive over non_commercial"),
    (
        replace(WORST, is_native_rate=True),
        "recorded at the corpus's rate or above, the other below",
    ),
    (replace(WORST, unsettled_facts=0), "0 unsettled facts against 2"),
    (replace(WORST, uid="a"), "nothing tells them apart; the lower uid"),
]


@pytest.mark.parametrize("place", range(len(BETTER)))
def test_each_criterion_decides_when_those_before_it_do_not(place: int) -> None:
    wins, reason = BETTER[place]
    assert why(wins, WORST) == reason
    for order in permutations([WORST, wins, *(b for b, _ in BETTER[place + 1 :])][:4]):
        assert best(order) == wins


def test_an_unknown_tier_is_better_than_excluded_and_an_unknown_word_is_last() -> None:
    by_tier = [replace(WORST, tier=t) for t in ("odd", "excluded", "", "actionless", "low", "high")]
    for worse, wins in pairwise(by_tier):
        assert best([worse, wins]) == wins
    assert best([replace(WORST, licence_class="odd"), WORST]) == WORST
