"""Real SIGKILL of real processes: the driver at many moments, and workers under Ray while they work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.faults.runs import facts, run, tree
from tests.faults.toy import GATE, write_toy

ROOT = Path(__file__).parents[2]
KINDS = {f"e{i:02d}": "slow" if i % 3 else "good" for i in range(9)} | {"e04": "quarantine"}


def start(raw: Path, out: Path, kind: str, run_id: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.drive", str(raw), str(out), kind, run_id],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def kill_whole_session(driver: subprocess.Popen[bytes]) -> None:
    """The driver first, at once; then its orphans, as a machine's end would."""
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    for child in children:
        if child.is_running():
            child.kill()


def assert_undisturbed(out: Path, raw: Path, tmp_path: Path) -> None:
    run(raw, tmp_path / "wanted")
    assert tree(out / "datasets") == tree(tmp_path / "wanted" / "datasets")
    assert facts(out, "episodes") == facts(tmp_path / "wanted", "episodes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("local", marks=pytest.mark.smoke),
        pytest.param("ray", marks=pytest.mark.ray),
    ],
)
def test_driver_killed_at_different_moments(kind: str, tmp_path: Path) -> None:
    raw, out = write_toy(tmp_path / "raw", KINDS), tmp_path / "corpus"
    for number, moment_s in enumerate((1.5, 3.0, 4.5) if kind == "local" else (6.0, 9.0)):
        driver = start(raw, out, kind, f"run{number}")
        time.sleep(moment_s)
        if driver.poll() is None:
            kill_whole_session(driver)
    last = start(raw, out, kind, "last")
    assert last.wait(timeout=120) == 0
    assert_undisturbed(out, raw, tmp_path)


@pytest.mark.slow
def test_workers_do_not_outlive_their_driver(tmp_path: Path) -> None:
    """Only the driver is killed: an orphan would go on writing where the next run works."""
    raw = write_toy(tmp_path / "raw", {f"e{i}": "hang" for i in range(4)})
    driver = start(raw, tmp_path / "corpus", "local", "run")
    deadline = time.monotonic() + 60
    workers: list[psutil.Process] = []
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        children = psutil.Process(driver.pid).children(recursive=True)
        workers = [p for p in children if "spawn_main" in " ".join(p.cmdline())]
    time.sleep(6)  # they are at work, or about to be
    driver.kill()
    driver.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert len(gone) >= 2
    assert alive == []


def is_at_work(process: psutil.Process) -> bool:
    """Ray names a worker's process after the task that it runs."""
    try:
        return process.name().startswith("ray::_on_ray")
    except psutil.NoSuchProcess:
        return False


def busy_workers(driver: subprocess.Popen[bytes], wanted: int) -> list[psutil.Process]:
    """`wanted` Ray processes that work on an episode at this moment."""
    deadline = time.monotonic() + 90
    while driver.poll() is None and time.monotonic() < deadline:
        children = psutil.Process(driver.pid).children(recursive=True)
        busy = [p for p in children if is_at_work(p)]
        if len(busy) == wanted:
            return busy
        time.sleep(0.05)
    raise AssertionError(f"never {wanted} workers at work")


@pytest.mark.slow
@pytest.mark.ray
def test_workers_killed_under_ray(tmp_path: Path) -> None:
    """Two workers are killed while they work; their episodes are tried again and nothing is lost or doubled."""
    raw = write_toy(tmp_path / "raw", KINDS | {"e00": "gated", "e01": "gated"})
    out = tmp_path / "corpus"
    driver = start(raw, out, "ray", "run")
    # Two gated episodes keep both workers at work until the gate opens, so nothing here is a race. Two processes that are
    # busy at one moment have different episodes: the same one twice would rightly be quarantined.
    for worker in busy_workers(driver, 2):
        worker.kill()
    (raw / GATE).touch()
    assert driver.wait(timeout=120) == 0
    assert_undisturbed(out, raw, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_says_so_and_resumes(how: signal.Signals, tmp_path: Path) -> None:
    # The gate is shut until the rerun, so that no machine is fast enough to end before the signal.
    raw, out = write_toy(tmp_path / "raw", KINDS | {"e03": "gated"}), tmp_path / "corpus"
    words = ["ingest", "tests.faults.toy:Toy", str(raw), "--out", str(out), "--workers", "1"]
    command = [sys.executable, "-m", "jobs", *words]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("ledger/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(how)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said.decode()
    assert b"to resume" in said
    (raw / GATE).touch()
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=120).returncode == 0
    assert_undisturbed(out, raw, tmp_path)
