"""A server and its build killed together, once: the next server completes the job. `tests.faults.service_kills` does so at many moments."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.service_kills import MARK, POLL_S, TOO_EARLY, TOO_LATE, Kills


def _first_target(reached: Callable[[], str]) -> None:
    while reached() == TOO_EARLY:
        time.sleep(POLL_S)


@pytest.mark.slow
def test_a_job_whose_server_and_build_are_killed_ends_as_one_that_nothing_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, "")  # restored after the test
    kills = Kills(tmp_path)
    one = kills.round(("server", "job", "build"), _first_target)
    while one.at == TOO_LATE:  # on a machine that was busy between the look and the kill
        assert one.problems == []
        one = kills.round(("server", "job", "build"), _first_target)
    assert one.problems == []
