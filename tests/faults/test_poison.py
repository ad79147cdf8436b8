"""Episodes that take a worker with them: set aside with a code, and the run goes on. Same on processes and on Ray."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.executors.inline import Executor, InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.executors.ray import RayExecutor
from ingest.pipeline.process import Work, guarded
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import Code, TransientError
from schemas.outcome import Outcome, WorkerFailure
from tests.faults.disks import Count
from tests.faults.runs import facts, run, tree
from tests.faults.toy import write_toy

KINDS = {
    "a": "good",
    "b": "segfault",
    "c": "good",
    "d": "hang",
    "e": "oom",
    "f": "crash",
    "g": "flaky",
    "h": "kill",
    "i": "good",
    "j": "quarantine",
}
# Long enough for a worker to start beside other tests, short enough for a hang to be waited out twice.
LIMITS = Limits(time_limit_s=12, memory_limit_mib=2048)
CODES = {
    "b": ("quarantined", "worker_died"),
    "d": ("quarantined", "time_limit"),
    "e": ("quarantined", "out_of_memory"),
    "f": ("failed", "internal_error"),
    "h": ("quarantined", "worker_died"),
    "j": ("quarantined", "truncated"),
}


@pytest.fixture(
    params=[
        pytest.param("local", marks=pytest.mark.slow),
        pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray]),
    ]
)
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "local":
        return LocalExecutor(2, LIMITS)
    request.getfixturevalue("ray_cluster")
    return RayExecutor(LIMITS, address=None, workers=2)


def test_poison_is_set_aside_and_the_run_goes_on(executor: Executor, tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", KINDS)
    tally = run(raw, tmp_path / "corpus", executor=executor, limits=LIMITS)
    assert tally.adds_up
    verdicts = {v["episode_id"]: v for v in facts(tmp_path / "corpus", "verdicts")}
    found = {k: (v["state"], v["code"]) for k, v in verdicts.items() if v["state"] != "committed"}
    assert found == CODES
    assert tally.committed == 4
    assert "test" not in verdicts["f"]["message"]
    assert "toy.py" in verdicts["f"]["message"]  # the address of the bug


@pytest.mark.smoke
def test_executors_write_the_same_bytes(executor: Executor, tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abcdefg", "good") | {"d": "quarantine"})
    run(raw, tmp_path / "one", executor=InlineExecutor())
    run(raw, tmp_path / "two", executor=executor)
    assert tree(tmp_path / "one" / "datasets") == tree(tmp_path / "two" / "datasets")
    assert facts(tmp_path / "one", "episodes") == facts(tmp_path / "two", "episodes")


@pytest.mark.slow
def test_poison_is_not_tried_again_unless_asked(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", {"a": "good", "b": "segfault"})
    make: Callable[[], Executor] = lambda: LocalExecutor(1, LIMITS)  # noqa: E731
    run(raw, tmp_path / "corpus", executor=make(), limits=LIMITS, run_id="1")
    again = run(raw, tmp_path / "corpus", executor=make(), limits=LIMITS, run_id="2")
    assert (again.committed_before, again.quarantined, again.codes["worker_died"]) == (1, 1, 1)
    write_toy(raw, {"a": "good", "b": "good"})  # mended
    mended = run(
        raw,
        tmp_path / "corpus",
        executor=make(),
        limits=LIMITS,
        run_id="3",
        retry_crash_looping=True,
    )
    assert (mended.committed, mended.quarantined) == (2, 0)


class FullDisk(LocalStorage):
    """Refuses the rows of the second episode, as a file system without room does."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = Count(allowed=2)  # under all its roots

    def write(self, path: Path, data: bytes, **how: bool) -> None:
        is_rows = path.name == "staged.arrow"
        self.rows.done += is_rows
        if is_rows and self.rows.done == self.rows.allowed:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().write(path, data, **how)


def test_a_full_disk_stops_the_run_and_keeps_what_is_committed(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", dict.fromkeys("abc", "good"))
    with pytest.raises(TransientError, match="disk is full"):
        run(raw, tmp_path / "corpus", disk=FullDisk(), run_id="1")
    assert [e["episode_id"] for e in facts(tmp_path / "corpus", "episodes")] == ["a"]
    tally = run(raw, tmp_path / "corpus", run_id="2")
    assert (tally.committed, tally.committed_before, tally.failed) == (3, 1, 0)
    run(raw, tmp_path / "wanted")
    assert tree(tmp_path / "corpus" / "datasets") == tree(tmp_path / "wanted" / "datasets")


@pytest.mark.skipif(os.cpu_count() == 1, reason="NOT RUN: needs two cores")
def test_more_workers_than_episodes(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", {"a": "good"})
    tally = run(raw, tmp_path / "corpus", executor=LocalExecutor(2, LIMITS))
    assert tally.committed == 1


class Preempted:
    """An executor on whose first five tries the whole node goes away; then it works inline."""

    name = "preempted"

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome | WorkerFailure]]:
        tries = 0
        while (work := next_work()) is not None:
            tries += 1
            if tries <= 5:
                yield work, WorkerFailure(code=Code.WORKER_DIED, how="node lost", node_lost=True)
            else:
                yield work, guarded(work, LocalStorage())


def test_lost_machines_do_not_count_against_an_episode(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", {"a": "good"})
    tally = run(raw, tmp_path / "corpus", executor=Preempted())
    assert (tally.committed, tally.quarantined) == (1, 0)
