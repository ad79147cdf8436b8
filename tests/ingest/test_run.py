"""A run accounts for every episode, in plan order, however its executor behaves."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.base import SourceInfo
from ingest.corpus import snapshot
from ingest.executors.inline import InlineExecutor
from ingest.pipeline import run as loop
from ingest.pipeline.process import Work
from ingest.pipeline.tally import Tally, beyond_allowance
from ingest.recipe import Limits
from schemas.episode import EpisodeRef
from schemas.errors import Code, InvariantError, TransientError
from schemas.outcome import Outcome, State, WorkerFailure
from tests.faults.runs import LIMITS, facts, run, tree
from tests.faults.toy import Toy, write_toy

KINDS = {"a": "good", "b": "quarantine", "c": "good", "d": "short", "e": "crash", "f": "good"}


class Backwards(InlineExecutor):
    """Takes all the work at once and answers last first."""

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        yield from reversed(list(super().run(next_work, body)))


class Forgetful(InlineExecutor):
    """Loses the answer of the second episode."""

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        for number, answer in enumerate(super().run(next_work, body)):
            if number != 1:
                yield answer


class Interrupted(InlineExecutor):
    """Ctrl-C while the fourth episode is being worked on: the third waits for its batch."""

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        for number, answer in enumerate(super().run(next_work, body)):
            if number == 3:
                raise KeyboardInterrupt
            yield answer


class Deadly(InlineExecutor):
    """Kills its worker on the first `times` attempts at episode `a`."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.tries: list[str] = []

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        while (work := next_work()) is not None:
            name = work.ref.episode_id
            self.tries.append(name)
            if name == "a" and self.tries.count("a") <= self.times:
                yield work, WorkerFailure(code=Code.WORKER_DIED, how="killed by SIGSEGV")
            else:
                yield from InlineExecutor().run(iter([work, None]).__next__, body)


def test_every_episode_is_accounted_for(tmp_path: Path) -> None:
    tally = run(write_toy(tmp_path / "raw", KINDS), tmp_path / "corpus")
    assert (tally.discovered, tally.committed, tally.filtered) == (6, 3, 1)
    assert (tally.quarantined, tally.failed, tally.adds_up) == (1, 1, True)
    assert dict(tally.codes) == {"truncated": 1, "too_short": 1, "internal_error": 1}
    verdicts = {v["episode_id"]: v["state"] for v in facts(tmp_path / "corpus", "verdicts")}
    assert verdicts == {
        "a": "committed",
        "b": "quarantined",
        "c": "committed",
        "d": "filtered",
        "e": "failed",
        "f": "committed",
    }
    (row,) = facts(tmp_path / "corpus", "runs")
    assert (row["discovered"], row["committed"], row["filtered"]) == (6, 3, 1)
    assert (row["quarantined"], row["failed"], row["executor"]) == (1, 1, "inline")
    assert row["started_at"] == datetime(2026, 1, 1, tzinfo=UTC)


class Bundles(Toy):
    """Its second reference is a missing shard in which three episodes were."""

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        first, second = super().discover(root, info)
        problem = (Code.MISSING_SHARD.value, "not there")
        yield from (first, replace(second, problem=problem, stands_for=3))


def test_a_reference_counts_as_the_episodes_that_it_stands_for(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", dict.fromkeys("ab", "good"))
    tally = run(raw, tmp_path / "corpus", source=f"{__name__}:Bundles")
    assert (tally.discovered, tally.committed, tally.quarantined) == (4, 1, 3)
    (row,) = facts(tmp_path / "corpus", "runs")
    assert (row["discovered"], row["quarantined"]) == (4, 3)


@pytest.mark.parametrize("in_memory", [0, 1, 1000])
def test_answers_in_any_order_make_the_same_corpus(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they wait in memory, or are read from their staging folders again."""
    monkeypatch.setattr(loop, "MAX_IN_MEMORY", in_memory)
    raw = write_toy(tmp_path / "raw", KINDS)
    run(raw, tmp_path / "one")
    run(raw, tmp_path / "two", executor=Backwards())
    assert tree(tmp_path / "one" / "datasets") == tree(tmp_path / "two" / "datasets")
    for table in ("episodes", "segments", "measurements", "artifacts"):
        assert facts(tmp_path / "one", table) == facts(tmp_path / "two", table)


class Sweeping(Backwards):
    """Somebody removes what was staged before its turn comes."""

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        for work, answer in super().run(next_work, body):
            yield work, answer
            if work.ref.episode_id == "b":
                shutil.rmtree(work.staging)


def test_an_episode_whose_staging_folder_is_gone_when_its_turn_comes_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_IN_MEMORY", 0)
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abc", "good"))
    tally = run(raw, tmp_path / "corpus", executor=Sweeping())
    assert (tally.committed, tally.failed, dict(tally.codes)) == (2, 1, {"staging_lost": 1})
    tally = run(raw, tmp_path / "corpus", run_id="again")
    assert (tally.committed, tally.failed) == (3, 0)
    assert len(facts(tmp_path / "corpus", "episodes")) == 3


def test_a_lost_answer_is_noticed(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abc", "good"))
    with pytest.raises(InvariantError, match="discovered 3 episodes, but only 1 have a result"):
        run(raw, tmp_path / "corpus", executor=Forgetful())
    assert facts(tmp_path / "corpus", "runs") == []  # no row says that all is well
    run(raw, tmp_path / "corpus", run_id="again")
    run(raw, tmp_path / "wanted")
    assert tree(tmp_path / "corpus" / "datasets") == tree(tmp_path / "wanted" / "datasets")


def test_an_interrupted_run_keeps_what_is_done_and_can_be_resumed(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abcde", "good"))
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "corpus", executor=Interrupted(), run_id="1")
    done = [row["episode_id"] for row in facts(tmp_path / "corpus", "episodes")]
    assert sorted(done) == ["a", "b", "c"]
    tally = run(raw, tmp_path / "corpus", run_id="2")
    assert (tally.committed, tally.committed_before) == (5, 3)
    run(raw, tmp_path / "wanted")
    assert tree(tmp_path / "corpus" / "datasets") == tree(tmp_path / "wanted" / "datasets")


def test_one_death_is_forgiven(tmp_path: Path) -> None:
    executor = Deadly(times=1)
    raw = write_toy(tmp_path / "raw", dict.fromkeys("ab", "good"))
    tally = run(raw, tmp_path / "corpus", executor=executor)
    assert (tally.committed, tally.quarantined) == (2, 0)
    assert executor.tries.count("a") == 2
    verdicts = snapshot.load(tmp_path / "corpus").read(tmp_path / "corpus", "verdicts").to_pylist()
    assert {v["episode_id"]: v["attempts"] for v in verdicts} == {"a": 2, "b": 1}


def test_two_deaths_are_not(tmp_path: Path) -> None:
    executor = Deadly(times=9)
    raw = write_toy(tmp_path / "raw", dict.fromkeys("ab", "good"))
    tally = run(raw, tmp_path / "corpus", executor=executor)
    assert (tally.committed, tally.quarantined) == (1, 1)
    assert executor.tries.count("a") == LIMITS.deaths_to_quarantine == 2
    assert dict(tally.codes) == {"worker_died": 1}


def test_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    class Full(InlineExecutor):
        def run(
            self, next_work: Callable[[], Work | None], body: Any
        ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
            while (work := next_work()) is not None:
                failed = Outcome(uid=work.ref.uid, state=State.FAILED, code="disk_full")
                yield work, failed

    raw = write_toy(tmp_path / "raw", dict.fromkeys("ab", "good"))
    with pytest.raises(TransientError, match="free disk space"):
        run(raw, tmp_path / "corpus", executor=Full())


def test_sources_are_described_once(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abc", "good"))
    run(raw, tmp_path / "corpus", limit=1, run_id="1")
    run(raw, tmp_path / "corpus", run_id="2")
    (source,) = facts(tmp_path / "corpus", "sources")
    assert (source["source"], source["root"], source["adapter_version"]) == ("toy", str(raw), 1)
    assert source["licence_class"] == "unknown"
    assert len(facts(tmp_path / "corpus", "runs")) == 2


def test_a_run_with_nothing_to_do_still_leaves_its_row(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", {"a": "good"})
    run(raw, tmp_path / "corpus", run_id="1")
    before = tree(tmp_path / "corpus" / "datasets")
    tally = run(raw, tmp_path / "corpus", run_id="2")
    assert (tally.discovered, tally.committed, tally.committed_before) == (1, 1, 1)
    assert tree(tmp_path / "corpus" / "datasets") == before
    assert len(facts(tmp_path / "corpus", "runs")) == 2


LOST_SHARD = Counter(missing_shard=25)  # a partial download is no failure


@pytest.mark.parametrize(
    ("counts", "is_fine"),
    [
        ({"discovered": 10, "committed": 10}, True),
        ({"discovered": 10, "committed": 8, "quarantined": 2}, True),
        ({"discovered": 10, "committed": 7, "quarantined": 3}, False),
        ({"discovered": 10, "committed": 9, "failed": 1}, False),  # our fault: none is allowed
        ({"discovered": 10, "filtered": 10}, True),
        ({"discovered": 10, "quarantined": 10, "codes": Counter(missing_file=10)}, False),
        ({"discovered": 50, "committed": 25, "quarantined": 25, "codes": LOST_SHARD}, True),
        ({"discovered": 0}, True),
    ],
)
def test_what_may_be_lost(counts: dict[str, int], is_fine: bool) -> None:
    assert (not beyond_allowance(Tally(**counts), Limits())) == is_fine


def test_what_was_lost_is_told_with_its_share_and_the_option() -> None:
    limits = Limits(max_quarantined_ratio=0.05)
    lost = Tally(discovered=5, committed=2, quarantined=3, codes=Counter(missing_file=2))
    assert beyond_allowance(lost, limits) == [
        "quarantined: 1 of 3 available episodes (33.3 %), --max-quarantined allows 5 %"
    ]
    failed = Tally(discovered=4, failed=4)
    assert beyond_allowance(failed, limits) == [
        "failed: 4 of 4 available episodes (100 %), --max-failed allows 0 %",
        "none of 4 episodes was committed; the files of 0 are missing",
    ]


def test_the_equation(tmp_path: Path) -> None:
    tally = Tally(discovered=4, committed=1, filtered=1, quarantined=1, failed=1)
    assert tally.adds_up
    tally.count(Outcome(uid="u", state=State.FAILED, code="x"), State.FAILED, 1)
    assert not tally.adds_up
