"""What is read from what a dead worker process left, with real crashes of real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.executors import local
from ingest.executors.crash_report import WATCH, CrashReport, is_more, oom_kills, report_of
from ingest.executors.node_proof import SharedView
from ingest.recipe import Limits
from schemas.errors import Code

CRASH = """
import ctypes, faulthandler, os, sys
file = open(sys.argv[1], "w+b")
faulthandler.enable(file, all_threads=False)
file.write(b"task-1 node-1 3,0,4\\n")
file.flush()
def decode():
    {how}
decode()
"""


def crashed(folder: Path, how: str) -> CrashReport:
    program = CRASH.format(how=how)
    subprocess.run([sys.executable, "-c", program, str(folder / f"{WATCH}w1")], check=False)
    report = report_of(SharedView(folder=str(folder), nonce=""), "task-1")
    assert report is not None
    return report


@pytest.mark.parametrize(
    ("how", "crash"),
    [
        ("ctypes.string_at(0)", "SIGSEGV at "),
        ("os.abort()", "SIGABRT at <string>:8 in decode"),
        ("os.kill(os.getpid(), 9)", ""),
        ("os._exit(3)", ""),
    ],
)
def test_a_crash_names_its_signal_and_its_place(how: str, crash: str, tmp_path: Path) -> None:
    report = crashed(tmp_path, how)
    assert (report.node_id, report.oom_kills, report.is_timed_out) == ("node-1", (3, 0, 4), False)
    assert report.crash.startswith(crash)
    assert bool(report.crash) == bool(crash)


def test_a_time_limit_is_no_crash(tmp_path: Path) -> None:
    how = (
        "faulthandler.dump_traceback_later(0.05, exit=True, file=file); import time; time.sleep(9)"
    )
    report = crashed(tmp_path, how)
    assert (report.is_timed_out, report.crash) == (True, "")


def test_only_the_report_of_the_task_counts(tmp_path: Path) -> None:
    view = SharedView(folder=str(tmp_path), nonce="")
    (tmp_path / f"{WATCH}w1").write_text("task-10 node 0,0,0\n")
    (tmp_path / f"{WATCH}w3").write_text("task-1 node 0,0\n")
    (tmp_path / f"{WATCH}w2").write_bytes(b"task-1 node \xff\n")  # torn or strange
    assert report_of(view, "task-1") is None
    assert report_of(None, "task-1") is None


FILES = {
    "proc/vmstat": "nr_free_pages 7\noom_kill {}\n",
    "sys/fs/cgroup/memory.events": "low 0\noom 9\noom_kill {}\noom_group_kill 0\n",
    "sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill {}\n",
}


def kernel_counts(root: Path, *counts: int) -> tuple[int, ...]:
    for (name, text), count in zip(FILES.items(), counts, strict=False):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(count))
    return oom_kills(root)


def test_a_kill_of_the_kernel_is_counted_wherever_it_is_reported(tmp_path: Path) -> None:
    before = oom_kills(tmp_path)
    assert before == (0, 0, 0)
    for counts in ((2,), (2, 3), (2, 3, 4)):
        now = kernel_counts(tmp_path, *counts)
        assert is_more(now, before)
        before = now
    assert before == (2, 3, 4)
    assert not is_more(kernel_counts(tmp_path, 2, 3, 4), before)


@pytest.mark.parametrize("counts", [(8, 4), (8, 3), (7, 4)])
def test_a_kill_that_two_counters_report_is_one(
    counts: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the machine and of the container; the second process was killed by somebody else."""
    kernel_counts(tmp_path, 7, 3)
    monkeypatch.setattr(local, "oom_kills", lambda: oom_kills(tmp_path))
    with local.LocalPool(1, Limits()) as pool:
        kernel_counts(tmp_path, *counts)
        codes = [pool._expired(-signal.SIGKILL).code for _ in range(2)]
        assert codes == [Code.OOM_KILLED, Code.WORKER_DIED]
        kernel_counts(tmp_path, counts[0] + 2, counts[1] + 2)  # at once
        codes = [pool._expired(-signal.SIGKILL).code for _ in range(3)]
        assert codes == [Code.OOM_KILLED, Code.OOM_KILLED, Code.WORKER_DIED]
