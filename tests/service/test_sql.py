"""SQL of users: it reads one snapshot within limits and does nothing else; its three formats hold the same rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from ingest.catalog.query_process import QueryLimits
from jobs.service import api_data
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import HOSTILE, NUM_EPISODES

ROUTE = "/api/v1/sql"


def ask(client: TestClient, sql: str, **more: Any) -> Any:
    return client.post(ROUTE, json={"sql": sql, **more})


def test_rows_in_three_formats(client: TestClient, hard: WrittenCatalog) -> None:
    sql = "SELECT uid, embodiment, length FROM episodes ORDER BY uid LIMIT 20"
    rows = sorted(hard.rows["episodes"], key=lambda row: row["uid"])[:20]
    expected = [[row["uid"], row["embodiment"], row["length"]] for row in rows]
    answer = ask(client, sql).json()
    assert (answer["rows"], answer["num_rows"], answer["snapshot"]) == (expected, 20, 1)
    arrow = pa.ipc.open_stream(ask(client, sql, format="arrow").content).read_all()
    assert [list(row.values()) for row in arrow.to_pylist()] == expected
    text = ask(client, sql, format="csv")
    assert text.headers["content-type"].startswith("text/csv")
    assert "attachment" in text.headers["content-disposition"]
    cells = list(csv.reader(io.StringIO(text.text)))
    assert [row[0] for row in cells[1:]] == [row[0] for row in expected]
    assert "\x1b" not in text.text
    assert HOSTILE in {row[1] for row in expected}


def test_a_long_answer_is_cut_and_says_so(client: TestClient) -> None:
    answer = ask(client, "SELECT uid FROM episodes", limit_rows=7).json()
    assert (len(answer["rows"]), answer["num_rows"], answer["is_cut"]) == (7, NUM_EPISODES, True)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE episodes",
        "CREATE TABLE t AS SELECT 1",
        "COPY (SELECT 1) TO '{out}'",
        "ATTACH '{out}' AS x",
        "INSERT INTO episodes SELECT * FROM episodes",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "FROM '/etc/passwd'",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT getenv('HOME')",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP VIEW episodes",
        "EXPORT DATABASE '{out}'",
        "SELECT * FROM no_such_table",
        "SELEC 1",
        "",
    ],
)
def test_what_does_more_than_read_is_refused(client: TestClient, tmp_path: Path, sql: str) -> None:
    out = tmp_path / "written"
    answer = ask(client, sql.format(out=out))
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["error"]["code"] == "usage"
    assert not out.exists()
    assert "root:" not in answer.text


def test_a_loop_ends_at_the_time_limit(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        api_data, "SQL_LIMITS", QueryLimits(timeout_s=0.5, memory_mb=256, threads=1)
    )
    answer = ask(client, "SELECT sum(sin(i)) FROM range(1000000000000) t(i)")
    assert answer.status_code == 400
    assert "stopped after 0.5 s" in answer.json()["error"]["message"]


def test_a_large_result_ends_at_the_memory_limit(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_data, "SQL_LIMITS", QueryLimits(timeout_s=60, memory_mb=16, threads=1))
    answer = ask(client, "SELECT repeat('x', 1000000) FROM range(1000)")
    assert answer.status_code == 400


def test_queries_beyond_the_limit_are_told_to_come_back(client: TestClient) -> None:
    taken = [api_data._queries.acquire(blocking=False) for _ in range(api_data.MAX_QUERIES)]
    try:
        assert all(taken)
        answer = ask(client, "SELECT 1")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["code"] == "busy"
    finally:
        for _ in taken:
            api_data._queries.release()
    assert ask(client, "SELECT 1").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"sql": "SELECT 1", "format": "parquet"},
        {"sql": "SELECT 1", "limit_rows": 0},
        {"sql": "SELECT 1", "file": "/etc/passwd"},
        {"sql": 3},
        {},
        [],
    ],
)
def test_a_question_of_another_form_is_refused(client: TestClient, body: Any) -> None:
    answer = client.post(ROUTE, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "usage")


def test_a_question_that_is_no_json_is_refused(client: TestClient) -> None:
    for content in (b"{", b"\xff", b"[" * 100_000):
        answer = client.post(ROUTE, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["ok"] is False
