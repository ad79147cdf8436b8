"""Ctrl-C and SIGTERM of the whole process group while the workers start: one line on standard error, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.runs import run, tree
from tests.faults.toy import write_toy

ROOT = Path(__file__).parents[2]

# Runs first of all in a spawned process, and holds it at its first bytecode until it is ended.
SLOW_START = """
import os, pathlib, sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    (pathlib.Path(__file__).parent / f"worker-{os.getpid()}").touch()
    until = time.monotonic() + 120
    while time.monotonic() < until:
        time.sleep(0.01)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_start_are_stopped_quietly(number: signal.Signals, tmp_path: Path) -> None:
    raw, out = write_toy(tmp_path / "raw", dict.fromkeys("abcd", "good")), tmp_path / "corpus"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(SLOW_START)
    words = ["ingest", "tests.faults.toy:Toy", str(raw), "--out", str(out), "--workers", "2"]
    command = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{hook}:{ROOT}"},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(hook.glob("worker-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(hook.glob("worker-*"))) >= 2, "the workers never started"
    os.killpg(command.pid, number)
    _, stderr = command.communicate(timeout=60)
    assert command.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "KeyboardInterrupt" not in stderr
    assert stderr.strip().splitlines()[-1].endswith("run the same command again to resume")
    run(raw, out, run_id="again")
    run(raw, tmp_path / "wanted")
    assert tree(out / "datasets") == tree(tmp_path / "wanted" / "datasets")
