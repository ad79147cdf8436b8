"""A node that quarantines far more than the others is named: while the run goes on, in its result and in its row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.executors.inline import DRIVER, Placement
from ingest.pipeline.node_rates import LEAST, NodeRates
from ingest.pipeline.process import Work, guarded
from ingest.storage.local import LocalStorage
from schemas.errors import Code
from schemas.outcome import Outcome
from tests.faults.runs import facts, run
from tests.faults.toy import write_toy


@pytest.mark.parametrize(
    ("bad", "results", "others_bad", "others", "is_suspect"),
    [
        (LEAST, 40, 0, 400, True),
        (LEAST - 1, 9, 0, 400, False),  # too few to tell
        (40, 400, 4, 400, True),
        (40, 400, 20, 400, False),  # twice the rate
        (60, 100, 240, 400, False),  # the data are bad everywhere
        (20, 40, 0, 0, False),  # one node has no others
        (20, 40, 0, 1, False),
    ],
)
def test_five_times_the_rate_of_the_others(
    bad: int, results: int, others_bad: int, others: int, is_suspect: bool
) -> None:
    rates = NodeRates()
    for node, count, num_bad in (("a", results, bad), ("b", others, others_bad)):
        for number in range(count):
            rates.count(node, is_quarantined=number < num_bad)
    assert list(rates.suspects()) == (["a"] if is_suspect else [])
    if is_suspect:
        assert f"node a quarantines {bad} of {results} episodes" in rates.suspects()["a"]


class Lossy:
    """Half of the results are absences that the driver confirmed, or deaths of which no process reported its node."""

    name = "lossy"
    latest = Placement()

    def __init__(self, node: str, code: Code) -> None:
        self.node, self.code = node, code

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome]]:
        while (work := next_work()) is not None:
            is_lost = work.ref.at("kind") == "quarantine"
            self.latest = Placement(node=self.node if is_lost else "good")
            result = guarded(work, LocalStorage())
            yield work, replace(result, code=self.code.value) if is_lost else result


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (DRIVER, Code.MISSING_SHARD),
        ("", Code.WORKER_DIED),
        ("one", Code.MISSING_FILE),
        ("one", Code.TRUNCATED),
    ],
)
def test_only_a_node_is_named_and_not_for_what_is_absent(
    node: str, code: Code, tmp_path: Path
) -> None:
    kinds = {f"{number:02}": "quarantine" if number % 2 else "short" for number in range(24)}
    warnings: list[str] = []
    raw = write_toy(tmp_path / "raw", kinds)
    executor: Any = Lossy(node, code)
    tally = run(raw, tmp_path / "corpus", executor=executor, warn=warnings.append)
    assert tally.quarantined == 12
    suspects = ["one"] if code is Code.TRUNCATED else []
    assert list(tally.suspect_nodes) == suspects
    assert len(warnings) == len(suspects)


class TwoNodes:
    """Works inline; every second result is of node `bad`, whose disk damages what it reads."""

    name = "two nodes"
    latest = Placement()

    def run(
        self, next_work: Callable[[], Work | None], body: Any
    ) -> Iterator[tuple[Work, Outcome]]:
        while (work := next_work()) is not None:
            node = "bad" if work.ref.at("kind") == "quarantine" else "good"
            self.latest = Placement(node=node, seconds=0.25)
            yield work, guarded(work, LocalStorage())


def test_a_run_names_the_node_and_its_ledger_has_a_line_for_each_outcome(tmp_path: Path) -> None:
    kinds = {f"{number:02}": "quarantine" if number % 2 else "short" for number in range(24)}
    warnings: list[str] = []
    tally = run(
        write_toy(tmp_path / "raw", kinds),
        tmp_path / "corpus",
        executor=TwoNodes(),  # type: ignore[arg-type]
        warn=warnings.append,
    )
    assert list(tally.suspect_nodes) == ["bad"]
    assert len(warnings) == 1
    assert (
        "node bad quarantines 10 of 10 episodes (100.0%), the others 0 of 10 (0.0%)" in warnings[0]
    )
    [row] = facts(tmp_path / "corpus", "runs")
    assert row["suspect_nodes"] == list(tally.suspect_nodes.values())
    [ledger] = tmp_path.glob("corpus/ledger/*.jsonl")
    ends = [e for e in map(json.loads, ledger.read_text().splitlines()) if e["event"] == "end"]
    assert [(end["node"], end["seconds"], end["attempt"], end["source"]) for end in ends] == [
        ("bad" if number % 2 else "good", 0.25, 1, "toy") for number in range(24)
    ]
