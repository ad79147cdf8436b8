"""What stays of a cluster: nothing is left out but for a copy of its own; and the whole search held against comparing all with all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.curation.duplicates import find, search
from ingest.curation.duplicates.compare import Thresholds, compare_pair
from ingest.curation.duplicates.find import Copies, find_copies
from ingest.curation.duplicates.retention import ROUNDS, kept_instead
from ingest.curation.duplicates.search import Pairs
from ingest.curation.duplicates.signatures import Signatures
from tests.curation.dedup_cases import arm, look, signatures

LIMITS = Thresholds()


@pytest.fixture
def _no_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    none = np.zeros(0, np.intp)
    monkeypatch.setattr(find, "exact_pairs", lambda *_: (none, none))


def copies_in(found: Signatures) -> Copies:
    return find_copies(Path(), None, found, LIMITS)  # type: ignore[arg-type]


def stays(found: Signatures, copies: Copies, rank: list[int]) -> list[int]:
    members = np.arange(len(found))
    return [int(k) for k in kept_instead(found, copies, members, np.array(rank), LIMITS)]


def chain(length: int) -> Signatures:
    """One motion becomes another by 0.06 rad at a time: next ones are 3 to 4.3 % apart and copies, those after them 5.9 % and more."""
    arms = []
    for k in range(length):
        made = arm(1)
        made[:, :3] = np.cos(0.06 * k) * made[:, :3] + np.sin(0.06 * k) * arm(2)[:, :3]
        arms.append([made])
    return signatures(arms, [[look(1)]] * length)


@pytest.mark.usefixtures("_no_exact")
def test_only_direct_copies_of_what_stays_are_left_out() -> None:
    found = chain(3)
    copies = copies_in(found)
    assert len(set(copies.cluster.tolist())) == 1
    far = compare_pair(found, Pairs(one=np.array([0]), other=np.array([2])), LIMITS)
    assert not far.is_same[0]
    assert stays(found, copies, [0, 1, 2]) == [0, 0, 2]
    assert stays(found, copies, [2, 1, 0]) == [0, 2, 2]
    assert stays(found, copies, [1, 0, 2]) == [1, 1, 1]


@pytest.mark.usefixtures("_no_exact")
def test_a_long_chain_is_not_one_recording() -> None:
    length = 3 * ROUNDS  # longer than the rounds reach
    found = chain(length)
    copies = copies_in(found)
    assert len(set(copies.cluster.tolist())) == 1
    best_last = list(range(length))[::-1]
    for rank in (list(range(length)), best_last):
        kept = stays(found, copies, rank)
        left_out = [(k, to) for k, to in enumerate(kept) if k != to]
        assert length / 3 <= len(set(kept)) <= length / 2
        assert all(kept[to] == to for to in kept)
        pairs = np.array(left_out, dtype=np.intp).T
        assert compare_pair(found, Pairs(one=pairs[0], other=pairs[1]), LIMITS).is_same.all()
        assert all(rank[to] < rank[k] for k, to in left_out)


@pytest.mark.usefixtures("_no_exact")
def test_a_crowd_of_copies_leaves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MOST", 2)
    found = signatures([[arm(1, 0.001 * k)] for k in range(30)], [[look(1)]] * 30)
    assert set(stays(found, copies_in(found), list(range(30)))) == {0}


def test_bytes_are_enough() -> None:
    found = signatures([[arm(1)], [arm(2)]], [[look(1)], [look(2)]])
    same = np.zeros(2, np.intp)
    copies = Copies(cluster=same, exact=same, links=(same[:1], same[1:]), candidates=0, crowded=0)
    assert stays(found, copies, [1, 0]) == [1, 1]


def test_which_of_a_pair_comes_first_changes_nothing() -> None:
    found = chain(4)
    found.paths[1:, :, :3] *= np.float16(1.01)
    one, other = np.triu_indices(4, k=1)
    there = compare_pair(found, Pairs(one=one, other=other), LIMITS)
    back = compare_pair(found, Pairs(one=other, other=one), LIMITS)
    np.testing.assert_array_equal(there.path, back.path)
    np.testing.assert_array_equal(there.is_same, back.is_same)


@pytest.mark.usefixtures("_no_exact")
def test_the_search_finds_what_comparing_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ONE_CELL", 50)
    monkeypatch.setattr(search, "MOST", 1000)
    rng = np.random.default_rng(5)
    seeds = rng.integers(0, 70, 180)
    noise = rng.choice([0.0, 0.01, 0.03, 0.05], 180)
    arms, looks = [], []
    for k, (seed, of) in enumerate(zip(seeds.tolist(), noise.tolist(), strict=True)):
        arms.append([arm(seed) + np.pad(of * rng.normal(0, 0.14, (32, 3)), ((0, 0), (0, 1)))])
        looks.append([look(seed % 40, 0.0), look(1000 + k)] if k % 3 else [])
    found = signatures(arms, looks)
    one, other = np.triu_indices(180, k=1)
    truth = compare_pair(found, Pairs(one=one, other=other), LIMITS).is_same
    expected = set(zip(one[truth].tolist(), other[truth].tolist(), strict=True))
    links = copies_in(found).links
    assert len(expected) > 50
    assert set(zip(*(side.tolist() for side in links), strict=True)) == expected
