"""Workers and threads follow what the machine gives: affinity, and the quotas of the cgroups around a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import machine


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_least_quota_of_a_cgroup_and_those_above_it_counts(tmp_path: Path) -> None:
    membership, root = tmp_path / "cgroup", tmp_path / "sys"
    membership.write_text("0::/pod/box\n")
    assert machine.quota_cores(root, membership) is None
    write(root / "pod" / "box" / "cpu.max", "max 100000\n")
    write(root / "pod" / "cpu.max", "300000 100000\n")
    write(root / "cpu.max", "800000 100000\n")
    write(tmp_path / "cpu.max", "1 100000\n")  # not a cgroup
    assert machine.quota_cores(root, membership) == 3.0
    write(root / "pod" / "box" / "cpu.max", "150000 100000\n")
    assert machine.quota_cores(root, membership) == 1.5


def test_quotas_of_version_1_count(tmp_path: Path) -> None:
    membership, root = tmp_path / "cgroup", tmp_path / "sys"
    membership.write_text("5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n")
    write(root / "cpu" / "cpu.cfs_quota_us", "-1\n")
    write(root / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert machine.quota_cores(root, membership) is None
    write(root / "cpu" / "docker" / "1" / "cpu.cfs_quota_us", "250000\n")
    write(root / "cpu" / "docker" / "1" / "cpu.cfs_period_us", "100000\n")
    assert machine.quota_cores(root, membership) == 2.5


@pytest.mark.parametrize("text", ["", "max", "x y", "1", "1 0", "0 100000", "-1 100000"])
def test_what_is_no_quota_limits_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path / "sys" / "cpu.max", text)
    assert machine.quota_cores(tmp_path / "sys", tmp_path / "none") is None


@pytest.mark.parametrize(("quota", "usable"), [(None, 8), (2.0, 2), (1.5, 2), (0.2, 1), (64.0, 8)])
def test_usable_cores_are_the_least_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, usable: int
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "quota_cores", lambda: quota)
    assert machine.usable_cores() == usable


# The command itself, and what its libraries would work with at its end.
POOLS = """
import sys
from jobs import cli, machine

if sys.argv[1:] == ["quota"]:
    machine.quota_cores = lambda: 0.7
sys.argv[1:] = ["--version"]
try:
    cli.main()
finally:
    import polars, pyarrow
    from ingest.catalog.views import connect
    from ingest.catalog.query_process import QueryLimits
    threads = connect(QueryLimits()).execute("SELECT current_setting('threads')").fetchone()[0]
    sys.stdout.write(f"{polars.thread_pool_size()} {pyarrow.cpu_count()} {threads}\\n")
"""


def pools_of(kind: str, *, before: Callable[[], None] | None = None, **environment: str) -> str:
    """Threads of Polars, Arrow and DuckDB."""
    variables = {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "POLARS_MAX_THREADS"}
    inherited = {name: value for name, value in os.environ.items() if name not in variables}
    done = subprocess.run(
        [sys.executable, "-c", POOLS, kind],
        env=inherited | environment,
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def test_libraries_start_one_thread_on_one_core() -> None:
    """As `taskset -c 0` gives it."""
    first = min(os.sched_getaffinity(0))
    assert pools_of("affinity", before=lambda: os.sched_setaffinity(0, {first})) == "1 1 1"


def test_libraries_start_as_many_threads_as_the_quota_gives() -> None:
    assert pools_of("quota") == "1 1 1"


def test_a_bound_of_the_environment_stays() -> None:
    assert pools_of("quota", POLARS_MAX_THREADS="3", OMP_NUM_THREADS="2") == "3 2 2"
