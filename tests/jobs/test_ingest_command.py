"""`eicorpus ingest` as a person sees it: the plan of a small run, and why it exits with 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jobs.cli import app
from tests.faults.toy import write_toy


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", {"a": "good", "b": "good", "c": "quarantine"})


def ingest(raw: Path, *words: str) -> typer.testing.Result:
    out = str(raw.parent / "corpus")
    common = ["ingest", "tests.faults.toy:Toy", str(raw), "--out", out, "--workers", "0"]
    return CliRunner().invoke(app, [*common, *words])


def test_the_last_line_of_a_run_that_exits_with_1_is_the_reason(raw: Path) -> None:
    done = ingest(raw, "--max-quarantined", "0.05")
    assert done.exit_code == 1
    reason = "exit 1: quarantined: 1 of 3 available episodes (33.3 %), --max-quarantined allows 5 %"
    assert done.stderr.splitlines()[-1] == reason
    again = ingest(raw, "--max-quarantined", "0.05", "--json")
    assert (again.exit_code, json.loads(again.stdout)["result"]["quarantined"]) == (1, 1)
    assert again.stderr.splitlines()[-1] == reason


def test_a_run_within_what_is_allowed_says_nothing_of_an_exit(raw: Path) -> None:
    done = ingest(raw, "--max-quarantined", "0.5")
    assert done.exit_code == 0
    assert "exit 1" not in done.output


def test_the_plan_of_a_small_run_promises_no_time_of_zero(raw: Path) -> None:
    plan = ingest(raw, "--dry-run").stderr
    assert "0:00:03 of recording" in plan
    assert "less than a minute on 1 cores" in plan
    assert "0.000" not in plan


def test_a_dry_run_estimates_what_the_plan_costs(raw: Path) -> None:
    shown = ingest(raw, "--dry-run").stderr
    assert "core-hours, 0 GPU-hours" in shown
    assert "6 objects (6 PUTs in a bucket); an estimate from the cameras of 2 episodes" in shown
    cost = json.loads(ingest(raw, "--dry-run", "--json").stdout)["result"]["cost"]
    assert (cost["probed_episodes"], cost["objects"], cost["gpu_hours"]) == (2, 6, 0.0)
    assert 0 < cost["core_hours"] < 0.01
    assert not (raw.parent / "corpus").exists()
