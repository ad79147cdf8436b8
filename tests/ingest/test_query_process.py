"""A query of a user ends at its limits, whatever it calls: DuckDB does not interrupt a call on one huge value, the kernel does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from ingest.catalog import query_process
from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits, answer
from ingest.catalog.sql_guard import reading_statement
from schemas.errors import ConfigError, InvariantError
from tests.generators.corpus import write_catalog

# Each is one call that DuckDB 2.0.0 does not interrupt; on two quiet cores the least of them takes ten seconds.
UNINTERRUPTED = {
    "one long text": "SELECT md5(repeat('x', 2000000000))",
    "edit distance": "SELECT levenshtein(repeat('x', 200000), repeat('y', 200000))",
    "a number of two billion digits": "SELECT length(format('{:2000000000d}', 1))",
    "one long list": "SELECT len(string_split(repeat('a,', 400000000), ','))",
}
SHORT = QueryLimits(timeout_s=0.5, memory_mb=2000, threads=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("apart") / "corpus", num_episodes=3).root


def children() -> set[str]:
    """Process ids below this one."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(path.read_text().split()) if path.exists() else set()


@pytest.mark.slow
@pytest.mark.parametrize("name", UNINTERRUPTED)
def test_a_call_that_duckdb_does_not_interrupt_ends_at_the_limit(root: Path, name: str) -> None:
    before, started = children(), time.process_time()
    with pytest.raises(ConfigError, match=r"stopped after 0\.5 s|Out of Memory|memory-mb"):
        answer(root, UNINTERRUPTED[name], snapshot=None, limits=SHORT)
    assert children() == before
    assert time.process_time() - started < 5  # of this process, which only waits


def test_the_answer_is_that_of_the_catalog(root: Path) -> None:
    sql = "SELECT uid, cameras, hours FROM episodes ORDER BY uid"
    found = answer(root, sql, snapshot=None, limits=QueryLimits())
    with Catalog.open(root) as catalog:
        assert found.table.equals(catalog.arrow(sql))
        assert found.snapshot == catalog.snapshot


def test_an_empty_answer_keeps_its_columns(root: Path) -> None:
    found = answer(
        root, "SELECT uid FROM episodes WHERE false", snapshot=None, limits=QueryLimits()
    )
    assert (found.table.column_names, found.table.num_rows) == (["uid"], 0)


def test_tables_that_are_given_can_be_selected_from(root: Path) -> None:
    tables = {"mine": pa.table({"a": [1, 2]}), "yours": pa.table({"b": ["x"]})}
    sql = "SELECT sum(a) AS a, (SELECT b FROM yours) AS b FROM mine"
    found = answer(root, sql, snapshot=None, limits=QueryLimits(), tables=tables)
    assert found.table.to_pylist() == [{"a": 3, "b": "x"}]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nope FROM episodes", "Candidate bindings"),
        ("DROP VIEW episodes", "not allowed"),
        ("FROM range(100000000000)", "larger than 50 MB"),
        ("SELECT len(list(range)) FROM range(100000000)", "Out of Memory"),
    ],
)
def test_errors_arrive_as_they_were_raised(root: Path, sql: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        answer(root, sql, snapshot=None, limits=QueryLimits(memory_mb=50, threads=1))
    assert caught.value.where == "query"


def test_a_module_of_the_current_folder_is_not_imported(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "duckdb.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert answer(root, "SELECT 1 AS a", snapshot=None, limits=QueryLimits()).table.num_rows == 1


def test_a_process_that_breaks_is_our_bug_with_its_last_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_process, "PROGRAM", "raise ValueError('broken inside')")
    with pytest.raises(InvariantError, match="broken inside"):
        answer(root, "SELECT 1", snapshot=None, limits=QueryLimits())


def test_a_process_that_the_kernel_kills_lacked_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_process, "PROGRAM", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ConfigError, match="SIGKILL, probably because it ran out of memory"):
        answer(root, "SELECT 1", snapshot=None, limits=QueryLimits())


# The program of the child, a line of Python before its `main`; CATALOG is the class that it opens.
CHANGED = """
import os, signal, sys
sys.path[:] = sys.argv[1:]
from ingest.catalog import query_child
CATALOG = query_child.Catalog
{change}
query_child.main()
"""
ALARM = "lambda *_, **__: os.kill(os.getpid(), signal.SIGALRM)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (f"CATALOG.open = {ALARM}", r"did not open within 120 s; run the query again"),
        (f"CATALOG.write_arrow = {ALARM}", r"stopped after 7 s; .* --time-limit-s"),
    ],
)
def test_an_alarm_names_the_limit_that_was_reached(
    root: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str
) -> None:
    monkeypatch.setattr(query_process, "PROGRAM", CHANGED.format(change=change))
    with pytest.raises(ConfigError, match=message) as caught:
        answer(root, "SELECT 1", snapshot=None, limits=QueryLimits(timeout_s=7))
    assert ("--time-limit-s" in caught.value.message) == ("write_arrow" in change)


def test_the_kernel_ends_a_snapshot_that_does_not_open(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = "query_child.START_S, CATALOG.open = 0.01, lambda *_, **__: signal.pause()"
    monkeypatch.setattr(query_process, "PROGRAM", CHANGED.format(change=change))
    with pytest.raises(ConfigError, match="did not open"):
        answer(root, "SELECT 1", snapshot=None, limits=QueryLimits(timeout_s=3600))


@pytest.mark.slow
def test_memory_that_duckdb_does_not_count_is_limited_too(root: Path) -> None:
    """One text is outside of DuckDB's own limit, which is 10 MB here; the kernel's is `SLACK_MB` more."""
    sql = "SELECT strlen(repeat(repeat('x', 1000000), 700)) AS n"
    with pytest.raises(ConfigError, match=r"Out of Memory|memory-mb"):
        answer(root, sql, snapshot=None, limits=QueryLimits(memory_mb=10, threads=1))
    enough = answer(root, sql, snapshot=None, limits=QueryLimits(memory_mb=1000, threads=1))
    assert enough.table["n"].to_pylist() == [700000000]


@pytest.mark.slow
def test_where_of_a_manifest_ends_at_the_limit_too(root: Path) -> None:
    with Catalog.open(root, limits=SHORT) as catalog:
        catalog.register("mine", pa.table({"a": [1, 2]}))
        sql = "SELECT count(*) AS n FROM mine, episodes"
        assert catalog.arrow_of_stranger(sql)["n"].to_pylist() == [6]
        with pytest.raises(ConfigError, match=r"stopped after|Out of Memory"):
            catalog.arrow_of_stranger(
                "SELECT 1 FROM mine WHERE levenshtein(repeat('x', 200000), repeat('y', 200000)) > a"
            )


@pytest.mark.slow
def test_an_orphan_ends_at_its_limit(root: Path, tmp_path: Path) -> None:
    """The driver is killed: the kernel's alarm ends the query without it."""
    code = (
        "import sys; from pathlib import Path; from ingest.catalog.query_process import QueryLimits; from ingest.catalog.query_process import answer;"
        "answer(Path(sys.argv[1]), sys.argv[2], snapshot=None, limits=QueryLimits(timeout_s=5, memory_mb=1000, threads=1))"
    )
    sql = "SELECT levenshtein(repeat('x', 500000), repeat('y', 500000))"
    with subprocess.Popen([sys.executable, "-c", code, str(root), sql]) as driver:
        listed = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
        if not listed.exists():
            driver.kill()
            pytest.skip("NOT RUN: this kernel does not list the children of a process")
        while not (child := listed.read_text().split()):
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 120
    while Path(f"/proc/{child[0]}").exists() and not is_zombie(child[0]):
        assert time.monotonic() < deadline, "the orphan goes on"
        time.sleep(0.2)


def is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("text", ["FROM episodes", "FROM episodes WHERE length > 1 LIMIT 2"])
def test_what_is_nowhere_in_the_text_is_no_number_of_the_user(text: str) -> None:
    """DuckDB places the `*` that `FROM t` implies at 2^64 - 1, which no bounded JSON reader takes."""
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE episodes (length BIGINT)")
        assert reading_statement(connection, text).type == duckdb.StatementType.SELECT
