"""SQL of users: it reads one snapshot within limits and does nothing else; its three formats hold the same rows."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from ingest.catalog.query_process import QueryLimits
from jobs.build.spec import Spec, json_schema
from jobs.service import api_data, limits
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import HOSTILE, NUM_EPISODES, TOKEN

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


def test_a_result_over_its_limit_is_refused_whatever_its_format(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = QueryLimits(timeout_s=60, memory_mb=1024, answer_mb=1, threads=1)
    monkeypatch.setattr(api_data, "SQL_LIMITS", small)
    for format_ in ("json", "csv", "arrow"):
        answer = ask(client, "SELECT i FROM range(500000) t(i)", format=format_)
        assert answer.status_code == 400
        assert "larger than 1 MB" in answer.json()["error"]["message"]
        assert ask(client, "SELECT 1", format=format_).status_code == 200


def test_rows_come_in_order_over_many_batches(client: TestClient) -> None:
    sql, num_rows = "SELECT i FROM range(300000) t(i) ORDER BY i", 300_000
    json_answer = ask(client, sql, limit_rows=100_000).json()
    assert json_answer["rows"] == [[each] for each in range(100_000)]
    assert (json_answer["num_rows"], json_answer["is_cut"]) == (num_rows, True)
    lines = ask(client, sql, format="csv").text.split("\n")
    assert lines == ["i", *map(str, range(num_rows)), ""]
    table = pa.ipc.open_stream(ask(client, sql, format="arrow").content).read_all()
    assert table["i"].to_pylist() == list(range(num_rows))
    assert ask(client, "SELECT 1 AS a WHERE false", format="csv").text == "a\n"


@pytest.mark.parametrize("format_", ["csv", "arrow"])
def test_a_place_is_held_until_the_answer_is_sent(client: TestClient, format_: str) -> None:
    free_while_sent = []

    async def asked(ends: bool) -> None:
        body = json.dumps({"sql": "SELECT 1", "format": format_}).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "path": ROUTE,
            "raw_path": ROUTE.encode(),
            "query_string": b"",
            "headers": [
                (b"host", b"127.0.0.1:8321"),
                (b"authorization", f"Bearer {TOKEN}".encode()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
            "http_version": "1.1",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
        }
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.Future()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                free_while_sent.append(api_data._queries._value)
                if not ends:
                    raise OSError("the client has gone")

        with suppress(Exception):
            await client.app(scope, receive, send)

    for ends in (True, False):
        asyncio.run(asked(ends))
        assert max(free_while_sent) == api_data.MAX_QUERIES - 1
        assert api_data._queries._value == api_data.MAX_QUERIES


def test_a_slow_client_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_S", 0.0)
    places = threading.BoundedSemaphore(1)

    async def sent() -> None:
        held = ExitStack()
        held.enter_context(limits.place(places, ""))
        response = limits.HeldStream(held, [b"x"], "text/csv")

        async def never(_: object = None) -> Any:
            await asyncio.Future()

        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, never, never)

    asyncio.run(sent())
    assert places.acquire(blocking=False)


def test_an_answer_that_is_never_sent_gives_its_place_back() -> None:
    places = threading.BoundedSemaphore(1)
    held = ExitStack()
    held.enter_context(limits.place(places, ""))
    response = limits.HeldStream(held, [b"x"], "text/csv")
    assert not places.acquire(blocking=False)
    del response
    assert places.acquire(blocking=False)


def test_a_diff_of_manifests_takes_a_place_of_queries(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_data, "_folder", lambda *_: Path())
    with ExitStack() as held:
        for _ in range(api_data.MAX_QUERIES):
            held.enter_context(limits.place(api_data._queries, ""))
        assert client.get("/api/v1/manifests/a/diff/b").status_code == 503


def test_the_schema_of_a_spec_is_served(client: TestClient) -> None:
    schema = client.get("/api/v1/spec-schema").json()
    assert schema == json.loads(json.dumps(json_schema()))
    assert set(schema["properties"]) == set(Spec.model_fields)


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
