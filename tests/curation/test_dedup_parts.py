"""The search and the comparison in parts give what they give at once, wherever the parts are worked on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.corpus.layout import open_or_create
from ingest.curation.duplicates import compare, search
from ingest.curation.duplicates.array_parts import (
    ATTEMPTS,
    INLINE,
    Arrays,
    ExecutorParts,
    PartRunner,
    bounds_of,
    parts_on,
)
from ingest.curation.duplicates.compare import Thresholds, are_same, compare_pair
from ingest.curation.duplicates.find import candidates
from ingest.curation.duplicates.search import Pairs, near_pairs
from ingest.curation.duplicates.signatures import Signatures
from ingest.executors.inline import Executor, InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.executors.node_proof import shared
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import Code, TransientError
from schemas.outcome import WorkerFailure
from tests.curation.dedup_cases import arm, look, signatures

LIMITS = Limits(memory_limit_mib=2048)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "ONE_CELL", 50)
    monkeypatch.setattr(search, "_ASSIGNED", 16)
    monkeypatch.setattr(search, "PART_VECTORS", 48)
    monkeypatch.setattr(search, "PART_PRODUCTS", 2000)
    monkeypatch.setattr(compare, "PART_PAIRS", 100)


def recordings(count: int = 240) -> Signatures:
    """Demonstrations of 12 tasks, some alike; every sixth episode is a copy of another, and every fifth has one camera more."""
    task = [k % 12 for k in range(count)]
    copied = [k - 6 if k % 6 == 0 and k else k for k in range(count)]
    paths = [[arm(task[of], 0.02 * (of % 7)) + 1e-3 * k] for k, of in enumerate(copied)]
    cameras = [
        [look(task[of], 0.1 * (of % 5)), *([look(100 + of)] if k % 5 == 0 else [])]
        for k, of in enumerate(copied)
    ]
    return signatures(paths, cameras)


def found(these: Signatures, parts: PartRunner) -> tuple[Pairs, np.ndarray]:
    pairs = candidates(these, parts=parts)
    return pairs, are_same(these, pairs, Thresholds(), parts)


def check_equal_on(executor: Executor, folder: Path, corpus: Path | None = None) -> None:
    """What an executor finds is what this process finds."""
    these = recordings()
    expected, is_same = found(these, INLINE)
    assert 0 < is_same.sum() < len(is_same)
    assert len(is_same) > 2 * compare.PART_PAIRS
    with parts_on(executor, LocalStorage(), folder) as parts:
        pairs, are = found(these, parts)
    assert np.array_equal(pairs.one, expected.one)
    assert np.array_equal(pairs.other, expected.other)
    assert pairs.crowded == expected.crowded > 0
    assert np.array_equal(are, is_same)
    assert not folder.exists()


@pytest.mark.usefixtures("small_parts")
def test_files_of_arrays_give_what_arrays_give(tmp_path: Path) -> None:
    check_equal_on(InlineExecutor(), tmp_path / "arrays")


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_processes_give_what_this_process_gives(tmp_path: Path) -> None:
    check_equal_on(LocalExecutor(2, LIMITS), tmp_path / "arrays")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("small_parts", "ray_cluster")
def test_ray_gives_what_this_process_gives(tmp_path: Path) -> None:
    from ingest.executors.ray import RayExecutor

    executor = RayExecutor(LIMITS, address=None, workers=2, notify=print)
    disk = LocalStorage(tmp_path)
    corpus = open_or_create(tmp_path / "corpus", uid="c", recipe_digest="", disk=disk)
    with shared(executor, corpus, disk) as folder:
        assert folder is not None
        check_equal_on(executor, folder / "arrays")


@pytest.mark.usefixtures("small_parts")
def test_parts_of_a_comparison_are_the_comparison() -> None:
    these = recordings()
    one, other = np.triu_indices(120, k=1)
    pairs = Pairs(one=one, other=other)
    whole = compare_pair(these, pairs, Thresholds()).is_same
    assert np.array_equal(are_same(these, pairs, Thresholds()), whole)


def test_parts_of_a_search_are_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    vectors = (rng.normal(0, 1, (40, 8))[rng.integers(0, 40, 900)]).astype(np.float32)
    vectors += rng.normal(0, 0.05, vectors.shape).astype(np.float32)
    monkeypatch.setattr(search, "ONE_CELL", 50)
    whole = near_pairs(vectors, np.arange(900), 0.3)
    monkeypatch.setattr(search, "PART_PRODUCTS", 1000)
    monkeypatch.setattr(search, "PART_VECTORS", 100)
    in_parts = near_pairs(vectors, np.arange(900), 0.3)
    assert len(whole.one) > 1000
    assert np.array_equal(whole.one, in_parts.one)
    assert np.array_equal(whole.other, in_parts.other)
    assert whole.crowded == in_parts.crowded > 0


def test_the_lowest_of_a_row() -> None:
    values = np.random.default_rng(2).permutation(60).reshape(3, 20).astype(np.float32)
    before = values.copy()
    lowest = search._lowest(values, 4)
    assert np.array_equal(lowest, np.argsort(before, axis=1)[:, :4])
    assert np.array_equal(values, before)


def test_the_nearest_of_a_crowd_are_those_of_a_sort() -> None:
    rng = np.random.default_rng(3)
    at = np.sort(rng.integers(0, 40, 900))
    nearness = np.round(rng.normal(-0.1, 0.1, 900), 2).astype(np.float32)  # with ties, some above 0
    kept, crowded = search._nearest(at, nearness)
    expected = []
    for row in range(40):
        places = np.flatnonzero(at == row)
        expected += places[np.argsort(-nearness[places], kind="stable")][: search.MOST].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    assert crowded == sum((at == row).sum() > search.MOST for row in range(40))


def test_bounds_cover_everything_once() -> None:
    assert bounds_of(0, 5) == [0]
    assert bounds_of(5, 5) == [0, 5]
    assert bounds_of(11, 5) == [0, 5, 10, 11]


def total(arrays: Arrays, first: int, end: int) -> int:
    return int(arrays["values"][first:end].sum())


class Dying(InlineExecutor):
    """The process of the second part ends, `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def run(self, next_work, body):  # type: ignore[no-untyped-def]
        for work, result in super().run(next_work, body):
            if work.number == 1 and work.attempt <= self.times:
                yield work, WorkerFailure(code=Code.WORKER_DIED, how="killed")
            else:
                yield work, result


def totals(executor: Executor, folder: Path) -> list[int]:
    with parts_on(executor, LocalStorage(), folder) as parts:
        assert isinstance(parts, ExecutorParts)
        return parts.map(total, {"values": np.arange(10)}, [0, 4, 8, 10])


def test_a_part_whose_process_ends_is_worked_on_again(tmp_path: Path) -> None:
    assert totals(Dying(ATTEMPTS - 1), tmp_path / "arrays") == [6, 22, 17]


def test_a_part_whose_process_always_ends_stops_the_command(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=f"ended {ATTEMPTS} times: worker_died: killed"):
        totals(Dying(ATTEMPTS), tmp_path / "arrays")
    assert not (tmp_path / "arrays").exists()
