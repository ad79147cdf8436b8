"""`eicorpus snapshot list` says which command made each snapshot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from tests.faults.runs import run
from tests.faults.toy import write_toy


def invoked(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_each_snapshot_names_its_command(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    run(write_toy(tmp_path / "raw", dict.fromkeys("abc", "fine")), corpus, run_id="first")
    for words in (
        ["measure", str(corpus), "--workers", "0"],
        ["tier", str(corpus)],
        ["dedup", str(corpus)],
    ):
        invoked(*words)
    invoked("compact", str(corpus))
    listed = json.loads(invoked("snapshot", "list", str(corpus), "--json"))["result"]["snapshots"]
    commands = list(dict.fromkeys(entry["command"] for entry in listed))
    assert commands[0] == "test"  # what the run recorded of itself
    assert commands[1:] == [
        "eicorpus measure",
        "eicorpus tier",
        "eicorpus dedup",
        "eicorpus compact",
    ]
    shown = invoked("snapshot", "list", str(corpus))
    assert "eicorpus measure" in shown
