"""One slow episode idles no cluster: outcomes wait for it in any number, and are committed in plan order. The real run loop, on a clock of its own."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ingest.corpus.layout import CorpusLayout
from ingest.pipeline import run as loop
from ingest.pipeline.run import RunContext, _Run
from ingest.recipe import Limits
from schemas.episode import EpisodeRef
from schemas.outcome import Outcome, State

COMMIT_S = 0.0021  # of the driver, an episode: findings of 10^4 on a quiet machine
TAKE_S = 0.0001


@dataclass
class Clock:
    now_s: float = 0.0


@dataclass
class Commits:
    """Stands for the committer: what came, in which order, and what it costs."""

    clock: Clock
    uids: list[str] = field(default_factory=list)
    pending: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome, verdict: Any, folder: Path, *, episodes: int) -> None:
        self.uids.append(outcome.uid)
        self.pending.append(outcome)
        self.clock.now_s += COMMIT_S

    def flush(self) -> Iterator[Outcome]:
        done, self.pending = self.pending, []
        return iter(done)


@dataclass
class Cluster:
    """`slots` workers, twice as many episodes handed out at a time as with Ray, and the driver, which does one thing at a time."""

    slots: int
    clock: Clock
    worked: list[tuple[float, float]] = field(default_factory=list)  # from when until when
    handed_out_s: float = 0.0  # when the last episode was

    def run(self, driver: _Run, duration_s: Any) -> None:
        queued: deque[Any] = deque()
        ends: list[tuple[float, int, Any]] = []
        free = [(0.0, slot) for slot in range(self.slots)]
        is_out = False
        number = 0
        while True:
            while not is_out and len(queued) + len(ends) < 2 * self.slots:
                work = driver.next_work()
                if work is None:
                    break
                queued.append((self.clock.now_s, work))
                self.handed_out_s = self.clock.now_s
            while queued and free:
                at, slot = heapq.heappop(free)
                since, work = queued.popleft()
                number += 1
                begin = max(at, since)
                self.worked.append((begin, begin + duration_s(work.ref)))
                heapq.heappush(ends, (self.worked[-1][1], number, (slot, work)))
            if not ends:
                break
            end, _, (slot, work) = heapq.heappop(ends)
            heapq.heappush(free, (end, slot))
            self.clock.now_s = max(self.clock.now_s, end) + TAKE_S
            driver.take(work, outcome_of(work.ref.uid))
        driver.hand_over_all()

    @property
    def busy(self) -> float:
        """Share of the slots that worked until the last episode was handed out."""
        until = self.handed_out_s
        return sum(max(0.0, min(end, until) - begin) for begin, end in self.worked) / (
            self.slots * until
        )


def outcome_of(uid: str) -> Outcome:
    outcome = Outcome(uid=uid, state=State.QUARANTINED, code="truncated")
    object.__setattr__(outcome, "state", State.STAGED)  # the episode is of no consequence here
    return outcome


def made(tmp_path: Path, num: int, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> _Run:
    refs = tuple(
        EpisodeRef(source="toy", dataset="toy", episode_id=f"{number:06d}", root="/raw")
        for number in range(num)
    )
    plan: Any = SimpleNamespace(
        todo=refs, forgotten=(), discovered=num, done=0, stale=0, poisoned=(), digest="d", options_digest="", assets=None
    )  # fmt: skip
    request: Any = SimpleNamespace(source="toy", recipe=None, bucket=None)
    context = RunContext(
        run_id="r", command="", now=lambda: datetime(2026, 1, 1, tzinfo=UTC), monotonic_s=lambda: clock.now_s
    )  # fmt: skip
    ledger = SimpleNamespace(
        attempts=lambda *a: None, death=lambda *a: None, ends=lambda ends, facts: list(ends)
    )
    monkeypatch.setattr(loop, "Ledger", lambda *a: ledger)
    monkeypatch.setattr(loop, "staged_before", lambda folder: outcome_of(folder.name.split(".")[0]))
    monkeypatch.setattr(_Run, "_verdict", lambda *a: None)
    monkeypatch.setattr(loop.Tally, "count", lambda *a: None)
    commits: Any = Commits(clock)
    return _Run(request, plan, CorpusLayout(tmp_path), commits, Limits(), context, None)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "least"), [(64, 0.95), (256, 0.9)])
def test_a_slow_episode_in_5000_leaves_the_others_at_work(
    slots: int, least: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 s instead of 0.5 s: with outcomes that stop the run when 10,000 of them wait, 256 workers were idle nine tenths of the time."""
    clock = Clock()
    driver = made(tmp_path, 60_000, clock, monkeypatch)
    cluster = Cluster(slots=slots, clock=clock)
    cluster.run(driver, lambda ref: 300.0 if int(ref.episode_id) % 5000 == 77 else 0.5)
    assert cluster.busy > least
    commits: Any = driver.committer
    assert commits.uids == [ref.uid for ref in driver.plan.todo]
    assert driver.num_in_memory == 0
