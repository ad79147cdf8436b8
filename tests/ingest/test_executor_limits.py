"""The memory limit of a worker: refused when the process itself does not fit, and lifted when the episode is over."""

from __future__ import annotations

import resource
import signal

import pytest

from ingest.executors import inline
from ingest.executors.inline import EPISODE_MIB, MIB, data_mib, exit_reason, memory_limit
from ingest.executors.local import LocalExecutor
from ingest.recipe import Limits
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError


def nothing(work: int, disk: LocalStorage) -> int:
    return work


def test_a_limit_below_what_a_process_needs_is_refused_with_the_numbers() -> None:
    """A real worker: its own need is what it measures, whatever that is on this machine."""
    works = iter([1, 2])
    with pytest.raises(ConfigError, match=r"--memory-limit-mb 256 MiB is too low") as caught:
        list(LocalExecutor(1, Limits(memory_limit_mib=256)).run(lambda: next(works, None), nothing))
    advised = int(str(caught.value).split("use --memory-limit-mb ")[1].split()[0])
    assert advised > 256 + 1
    assert caught.value.exit_code == 2
    works = iter([1, 2])
    enough = LocalExecutor(1, Limits(memory_limit_mib=advised))
    assert dict(enough.run(lambda: next(works, None), nothing)) == {1: 1, 2: 2}


def test_the_limit_ends_with_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker does between episodes has no limit: its watchdog and its answer never run short."""
    monkeypatch.setattr(inline, "idle_mib", lambda: 1)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_mib = data_mib() + EPISODE_MIB + 64
    with memory_limit(limit_mib):
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] == limit_mib * MIB
        with pytest.raises(MemoryError):
            bytearray(2 * limit_mib * MIB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_how_a_process_ended_is_named() -> None:
    assert exit_reason(3) == "worker process ended with exit code 3"
    assert "SIGSEGV" in exit_reason(-signal.SIGSEGV)
    assert "memory is full" in exit_reason(-signal.SIGKILL)
