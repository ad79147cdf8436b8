"""What `eicorpus query` prints: valid JSON, CSV that parses back, Parquet, a table that says what it left out."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from jobs.commands.query import query
from schemas.errors import ConfigError
from tests.generators.corpus import TASKS, commit, episode, write_catalog

TRICKY = """SELECT 'nan'::DOUBLE AS nan, '-inf'::FLOAT AS inf, NULL AS nothing, [1, NULL] AS list,
    {'a': 1, 'b': [{'c': 0.5}]} AS struct, MAP {'k': 1} AS map, 1.5 AS decimal, 170141183460469231731 AS huge,
    sum(3) AS total, TIMESTAMPTZ '2025-03-01 12:00:00.25+00' AS at, DATE '2025-03-01' AS day, TIME '01:02:03' AS time,
    '\\xAA'::BLOB AS bytes, INTERVAL 1 DAY AS interval, 'a'::ENUM('a') AS enum, true AS yes, 1 AS twin, 2 AS twin"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_catalog(tmp_path_factory.mktemp("query") / "corpus").root
    commit(root, {"episodes": [episode(20)]})
    return root


def ask(root: Path, sql: str, *options: str) -> Any:
    app = typer.Typer()
    app.command()(query)
    result = CliRunner().invoke(app, [str(root), sql, *options])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_json_is_one_valid_object_with_nested_values(root: Path) -> None:
    def no_constants(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    answer = json.loads(ask(root, TRICKY, "--json").stdout, parse_constant=no_constants)["result"]
    assert answer["columns"][-2:] == ["twin", "twin"]
    (row,) = answer["rows"]
    assert row[:6] == [None, None, None, [1, None], {"a": 1, "b": [{"c": 0.5}]}, [["k", 1]]]
    assert row[6:9] == [1.5, 170141183460469231731, 3]
    assert row[9:13] == ["2025-03-01T12:00:00.250000+00:00", "2025-03-01", "01:02:03", "qg=="]
    assert row[14:] == ["a", True, 1, 2]
    assert (answer["num_rows"], answer["snapshot"]) == (1, 2)


def test_json_of_whole_episodes(root: Path) -> None:
    answer = json.loads(ask(root, "FROM episodes", "--json").stdout)["result"]
    assert answer["num_rows"] == len(answer["rows"]) == 13
    row = dict(zip(answer["columns"], answer["rows"][4], strict=True))
    assert row["worst_image_skew_ms"] is None  # NaN
    assert row["cameras"][0]["K_cam"][2] == 128.0
    assert row["raw_files"] == [{"path": "raw/4.h5", "num_bytes": 5_000_000_000, "digest": "d4"}]


def test_json_without_rows(root: Path) -> None:
    answer = json.loads(ask(root, "SELECT uid FROM episodes WHERE false", "--json").stdout)[
        "result"
    ]
    assert answer == {"columns": ["uid"], "rows": [], "num_rows": 0, "snapshot": 2}


def test_csv_parses_back(root: Path) -> None:
    text = ask(root, "SELECT tasks[1] AS t, tasks, length, success FROM episodes", "--csv").stdout
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["t", "tasks", "length", "success"]
    assert {row[0] for row in rows[1:]} == set(TASKS)  # quotes, a newline, Chinese
    assert json.loads(rows[1][1]) == ["fold the towel", "put it back"]
    assert rows[1][2:] == ["40", "true"]
    assert rows[2][3] == ""


STRANGE = r"""SELECT '=cmd|'' /C calc''!A0' AS a, '+1' AS b, '-1' AS c, '@x' AS d, chr(9) || '=1' AS e, chr(13) || '=1' AS f,
    chr(27) || '[2J' || chr(155) || '31m' AS g, -1.5 AS h, -3 AS i, 'two' || chr(10) || 'lines' AS j, '折　叠' AS k, NULL AS l, '-3'::DECIMAL(4, 1) AS "=m" """


def test_csv_runs_in_no_spreadsheet_and_commands_no_terminal(root: Path) -> None:
    text = ask(root, STRANGE, "--csv").stdout
    header, row = csv.reader(io.StringIO(text, newline=""))
    assert header[-1] == "'=m"
    assert row[:6] == ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@x", "'\t=1", "\\r=1"]
    assert row[6] == "\\x1b[2J\\x9b31m"
    assert row[7:] == ["-1.5", "-3", "two\nlines", "折　叠", "", "-3"]
    assert not set(text) & {"\x1b", "\x9b", "\r"}


def test_csv_has_text_as_it_is_stored_when_that_is_wanted(root: Path) -> None:
    text = ask(root, STRANGE, "--csv", "--raw").stdout_bytes.decode()
    _, row = csv.reader(io.StringIO(text, newline=""))
    assert row[:6] == ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\t=1", "\r=1"]
    assert row[6] == "\x1b[2J\x9b31m"


def test_parquet_keeps_types(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    result = ask(root, "FROM episodes ORDER BY uid", "--parquet", str(file))
    assert pq.read_table(file).num_rows == 13
    assert pq.read_schema(file).field("cameras").type.value_type.field("width").type == "int32"
    assert result.stdout == ""
    assert "13 rows" in result.stderr
    answer = json.loads(ask(root, "FROM runs", "--parquet", str(file), "--json").stdout)["result"]
    assert (answer["rows"], answer["num_rows"], answer["parquet"]) == ([], 1, str(file))


def test_a_snapshot_can_be_named(root: Path) -> None:
    sql = "SELECT count(*) AS n FROM episodes"
    first = json.loads(ask(root, sql, "--json", "--snapshot", "1").stdout)["result"]
    assert (first["rows"], first["snapshot"]) == ([[12]], 1)
    assert json.loads(ask(root, sql, "--json").stdout)["result"]["rows"] == [[13]]


def test_the_table_says_what_it_left_out(root: Path) -> None:
    result = ask(root, "SELECT uid FROM episodes ORDER BY uid", "--limit-rows", "5")
    assert len(result.stdout.splitlines()) == 2 + 5
    assert "5 of 13 rows shown" in result.stderr
    whole = ask(root, "SELECT uid FROM episodes")
    assert len(whole.stdout.splitlines()) == 2 + 13
    assert whole.stderr == ""


def test_the_table_shows_strings_of_strangers_as_they_are(root: Path) -> None:
    """Markup would crash or vanish; control characters would command the terminal."""
    result = ask(root, "SELECT message FROM quarantine ORDER BY ALL")
    assert "[bold]episode 12 is cut" in result.stdout
    hostile = ask(root, "SELECT 'a' || chr(27) || '[2Jb[/nope]' || chr(10) || '倒水' AS \"[red]x\"")
    assert "a\\x1b[2Jb[/nope]\\n倒水" in hostile.stdout
    assert "[red]x" in hostile.stdout
    assert "\x1b" not in hostile.stdout


def test_empty_corpus_says_so(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text('{"format_version": 1}')
    result = ask(tmp_path, "SELECT count(*) FROM episodes", "--json")
    assert json.loads(result.stdout)["result"]["rows"] == [[0]]
    assert "this corpus has no snapshot yet" in result.stderr


@pytest.mark.parametrize(
    ("sql", "options", "message"),
    [
        ("SELECT nope FROM episodes", [], "Candidate bindings"),
        ("DROP VIEW episodes", [], "not allowed"),
        ("SELECT 1", ["--csv", "--json"], "cannot be combined"),
        ("SELECT 1", ["--raw"], "--raw needs --csv"),
        ("SELECT 1", ["--snapshot", "7"], "no snapshot 7"),
        ("SELECT 1", ["--parquet", "/no/such/folder/x.parquet"], "/no/such/folder"),
        ("SELECT 1", ["--parquet", "{root}/catalog/x.parquet"], "inside the corpus"),
        ("SELECT union_value(a := 1) AS u", ["--parquet", "{tmp}/x.parquet"], "x.parquet"),
        ("SELECT 1", ["--time-limit-s", "0"], "positive"),
        ("SELECT count(*) FROM range(1000000000000)", ["--time-limit-s", "0.1"], "stopped after"),
    ],
)
def test_mistakes_are_the_callers(
    root: Path, tmp_path: Path, sql: str, options: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ask(root, sql, *(option.format(root=root, tmp=tmp_path) for option in options))
    assert caught.value.exit_code == 2


def test_no_corpus_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no corpus"):
        ask(tmp_path, "SELECT 1")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_endless_query_ends_when_it_is_asked_to(root: Path, signum: int) -> None:
    """DuckDB counts for hours; a signal reaches Python only between two of its own steps, and there are none."""
    sql = "SELECT count(*) FROM range(1000000000000) a, range(100) b WHERE a.range % 7 = b.range"
    code = "import sys; from jobs.cli import main; print('up', flush=True); sys.argv = ['eicorpus', *sys.argv[1:]]; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "query", str(root), sql, "--time-limit-s", "600"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)  # it is counting
        process.send_signal(signum)
        assert process.wait(60) == 130
