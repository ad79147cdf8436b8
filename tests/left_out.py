"""The last lines of a test run: how many tests it left out by marker and what runs them, and how many it skipped, and why.

A run that is green by omission names what it omitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

MARKERS = ("gpu", "ray", "peer", "slow")  # the first that a test has names it
_KEY = "left_out"
COUNTS = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = Counter()


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    for item in items:
        kind = next((name for name in MARKERS if item.get_closest_marker(name)), "other")
        item.config.stash[COUNTS][kind] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands its counts to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_KEY] = dict(session.config.stash[COUNTS])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Every worker deselects the same tests, so one worker's counts are those of the run."""
    node.config.stash[COUNTS] = Counter(getattr(node, "workeroutput", {}).get(_KEY, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = Counter(map(_reason, terminalreporter.stats.get("skipped", [])))
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"skipped: {count}, {reason}")
    counts = terminalreporter.config.stash[COUNTS]
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        terminalreporter.write_line(f"left out: {kinds}; make test-all runs all but gpu")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test, or a whole file, was skipped, as `pytest.skip` was called."""
    where = report.longrepr
    reason = where[2] if isinstance(where, tuple) else str(where)
    return reason.removeprefix("Skipped: ")
