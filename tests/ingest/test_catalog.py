"""SQL over a snapshot must say what plain Python says over the same rows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.catalog.views import HISTORIES, connect
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from tests.generators.corpus import (
    WrittenCatalog,
    commit,
    episode,
    rows_of,
    uid_of,
    verdict,
    write_catalog,
)


@pytest.fixture
def written(tmp_path: Path) -> WrittenCatalog:
    return write_catalog(tmp_path / "corpus")


def _replace_part(root: Path, table: str, content: pa.Table) -> None:
    """Swap the only part of a table for other content, as an older or newer eicorpus would have written it."""
    (manifest,) = (root / "catalog/_snapshots").glob("*.json")
    raw = json.loads(manifest.read_text())
    (part,) = raw["tables"][table]
    pq.write_table(content, root / part["path"])
    part["num_bytes"] = (root / part["path"]).stat().st_size
    manifest.write_text(json.dumps(raw))


def test_group_by_says_what_python_says(written: WrittenCatalog) -> None:
    expected: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
    for row in written.rows["episodes"]:
        if row["length"] > 60:
            cell = expected[row["source"], row["embodiment"]]
            cell[0] += 1
            cell[1] += row["length"]
            cell[2] += row["hours"]
    with Catalog.open(written.root) as catalog:
        answer = catalog.sql(
            "SELECT source, embodiment, count(*) AS n, sum(length) AS steps, sum(hours) AS h FROM episodes "
            "WHERE length > 60 GROUP BY ALL ORDER BY ALL"
        )
    assert answer.select("source", "embodiment").rows() == sorted(expected)
    for row in answer.rows():
        assert list(row[2:]) == pytest.approx(expected[row[0], row[1]])


def test_join_and_measurements_say_what_python_says(written: WrittenCatalog) -> None:
    sharp = {m["uid"]: m["value"] for m in written.rows["measurements"] if m["name"] == "sharpness"}
    expected = sorted(
        (e["uid"], sharp[e["uid"]]) for e in written.rows["episodes"] if sharp[e["uid"]] > 0.5
    )
    with Catalog.open(written.root) as catalog:
        answer = catalog.sql(
            "SELECT e.uid, m.value FROM episodes e JOIN measurements m USING (uid) "
            "WHERE m.name = 'sharpness' AND m.value > $least ORDER BY e.uid",
            {"least": 0.5},
        )
    assert answer.rows() == expected
    assert len(expected) > 2


def test_every_value_of_every_table_survives(written: WrittenCatalog) -> None:
    with Catalog.open(written.root) as catalog:
        for name, schema in TABLES.items():
            view = f"{name}_all" if name in HISTORIES else name
            table = catalog.arrow(f"FROM {view}")
            assert table.column_names == schema.names, name
            expected = pa.Table.from_pylist(written.rows.get(name, []), schema=schema)
            assert repr(table.to_pylist()) == repr(expected.to_pylist()), name  # NaN != NaN
            assert repr(catalog.table(view).collect().to_arrow().to_pylist()) == repr(
                expected.to_pylist()
            ), name


def test_empty_corpus_has_every_table_with_its_types(tmp_path: Path) -> None:
    with Catalog.open(tmp_path) as catalog:
        assert catalog.snapshot == 0
        assert sorted(catalog.sql("SHOW TABLES")["name"]) == sorted(catalog.tables)
        for name, schema in TABLES.items():
            view = f"{name}_all" if name in HISTORIES else name
            table = catalog.arrow(f"FROM {view}")
            assert table.num_rows == 0
            assert table.column_names == schema.names
            assert repr(catalog.table(view).collect_schema()) == repr(
                pl.DataFrame(schema.empty_table()).schema
            )
        described = dict(
            catalog.sql("DESCRIBE episodes").select("column_name", "column_type").rows()
        )
    assert described["length"] == "BIGINT"
    assert described["tasks"] == "VARCHAR[]"
    assert described["cameras"].startswith("STRUCT(")


def test_verdicts_are_the_latest_of_each_uid(written: WrittenCatalog) -> None:
    # 0 committed, then failed in snapshot 2, committed again in 3; 13 stays quarantined. Written in wrong order.
    commit(written.root, {"verdicts": [verdict(0, "failed", 2), verdict(12, "committed", 2)]})
    commit(written.root, {"verdicts": [verdict(0, "committed", 3), verdict(1, "failed", 3)]})
    with Catalog.open(written.root) as catalog:
        states = dict(catalog.sql("SELECT uid, state FROM verdicts").rows())
        numbers = dict(catalog.sql("SELECT uid, snapshot FROM verdicts").rows())
        assert catalog.sql("SELECT count(*) FROM verdicts_all").item() == 15 + 4
        quarantine = set(catalog.sql("SELECT uid FROM quarantine")["uid"])
        frame = catalog.table("verdicts").collect()
    assert len(states) == 15
    assert (states[uid_of(0)], numbers[uid_of(0)]) == ("committed", 3)
    assert (states[uid_of(1)], numbers[uid_of(1)]) == ("failed", 3)
    assert quarantine == {uid_of(13), uid_of(14)}
    assert frame.columns == TABLES["verdicts"].names


def test_within_a_snapshot_the_last_attempt_counts(tmp_path: Path) -> None:
    rows = [verdict(0, "failed", 1, attempts=2), verdict(0, "quarantined", 1, attempts=3)]
    commit(tmp_path, {"verdicts": [rows[1], rows[0]]})
    with Catalog.open(tmp_path) as catalog:
        assert catalog.sql("SELECT state FROM verdicts").rows() == [("quarantined",)]


def test_tasks_are_one_row_per_episode_and_text(written: WrittenCatalog) -> None:
    expected = sorted(
        (e["uid"], text, count)
        for e in written.rows["episodes"]
        for text, count in zip(e["tasks"], e["task_counts"], strict=True)
    )
    with Catalog.open(written.root) as catalog:
        assert sorted(catalog.sql("SELECT uid, task, num_timesteps FROM tasks").rows()) == expected


def test_a_part_from_before_a_column_existed_reads_as_null(written: WrittenCatalog) -> None:
    old = pa.Table.from_pylist(written.rows["episodes"], schema=TABLES["episodes"])
    old = old.drop_columns(["success", "scene_id"])
    kind = pa.list_(pa.struct([("name", pa.string()), ("width", pa.int32())]))
    cameras = pa.array([[{"name": "head", "width": 256}]] * old.num_rows, type=kind)
    index = old.column_names.index("cameras")
    old = old.set_column(index, "cameras", cameras)
    _replace_part(written.root, "episodes", old)
    with Catalog.open(written.root) as catalog:  # the only part: the column is missing everywhere
        assert catalog.arrow("FROM episodes").column_names == TABLES["episodes"].names
        assert catalog.sql("SELECT count(*) FROM episodes WHERE success IS NULL").item() == 12
    commit(written.root, {"episodes": [episode(50), episode(51)]})
    with Catalog.open(written.root) as catalog:
        answer = dict(catalog.sql("SELECT uid, success FROM episodes").rows())
        codecs = catalog.sql(
            "SELECT cameras[1].codec AS c, count(*) AS n FROM episodes GROUP BY ALL"
        )
        frame = catalog.episodes(["uid", "success", "cameras"])
    expected = {uid_of(k): None for k in range(12)} | {uid_of(50): True, uid_of(51): False}
    assert answer == expected
    assert dict(codecs.rows()) == {None: 12, "h264": 2}
    assert dict(frame.select("uid", "success").rows()) == expected


def test_a_column_of_a_newer_eicorpus_is_not_shown(written: WrittenCatalog) -> None:
    newer = pa.Table.from_pylist(written.rows["sources"], schema=TABLES["sources"])
    _replace_part(written.root, "sources", newer.append_column("mood", pa.array(["good"] * 3)))
    with Catalog.open(written.root) as catalog:
        assert catalog.arrow("FROM sources").column_names == TABLES["sources"].names
        assert catalog.table("sources").collect().columns == TABLES["sources"].names


def test_an_open_catalog_does_not_see_later_commits(written: WrittenCatalog) -> None:
    with Catalog.open(written.root) as before:
        commit(written.root, {"episodes": [episode(100)]})
        assert before.snapshot == 1
        assert before.sql("SELECT count(*) FROM episodes").item() == 12
        assert before.episodes().height == 12
    with Catalog.open(written.root) as after, Catalog.open(written.root, snapshot=1) as first:
        assert (after.snapshot, first.snapshot) == (2, 1)
        assert after.sql("SELECT count(*) FROM episodes").item() == 13
        assert first.sql("SELECT count(*) FROM episodes").item() == 12
    with pytest.raises(ConfigError, match="no snapshot 9"):
        Catalog.open(written.root, snapshot=9)


def test_parts_that_no_snapshot_names_are_not_read(written: WrittenCatalog) -> None:
    folder = written.root / "catalog/episodes"
    (part,) = folder.glob("*.parquet")
    (folder / "part-orphan.parquet").write_bytes(part.read_bytes())
    with Catalog.open(written.root) as catalog:
        assert catalog.sql("SELECT count(*) FROM episodes").item() == 12


@pytest.mark.parametrize(
    "name", ["it's", 'a "quote"', "a[1]*b", "source=wrong", "back\\slash", "spa ce;--", "倒水"]
)
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    """`source=wrong` would become a hive partition column that overrides `source`."""
    written = write_catalog(tmp_path / name, num_episodes=3)
    with Catalog.open(written.root) as catalog:
        assert set(catalog.sql("SELECT source FROM episodes")["source"]) == {
            "agibot_world",
            "egodex",
            "oxe",
        }
        assert sorted(catalog.episodes()["source"]) == ["agibot_world", "egodex", "oxe"]


def test_a_corpus_behind_a_link_opens(written: WrittenCatalog, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(written.root)
    with Catalog.open(str(tmp_path / "shortcut")) as catalog:
        assert catalog.sql("SELECT count(*) FROM episodes").item() == 12


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT uidd FROM episodes", 'Candidate bindings: "uid"'),
        ("FROM episods", 'Did you mean "episodes"'),
        ("SELECT length + 'x' FROM episodes", "Could not convert string 'x'"),
        ("SELECT no_such(1)", "no_such does not exist"),
        ("  -- nothing", "0 statements"),
        ("SELECT $who", "Values were not provided"),
        ("SELECT error('stop ' || uid) FROM episodes", "stop "),
    ],
)
def test_a_wrong_query_is_the_callers_mistake(
    written: WrittenCatalog, sql: str, message: str
) -> None:
    with Catalog.open(written.root) as catalog:
        with pytest.raises(ConfigError) as caught:
            catalog.sql(sql)
        assert message in str(caught.value)
        assert caught.value.exit_code == 2
        assert catalog.sql("SELECT count(*) FROM episodes").item() == 12  # still usable


def test_a_wrong_name_in_python_is_the_callers_mistake(written: WrittenCatalog) -> None:
    with Catalog.open(written.root) as catalog:
        with pytest.raises(ConfigError, match="no table 'nope'"):
            catalog.table("nope")
        with pytest.raises(ConfigError, match="worst_image_skew_ms"):
            catalog.episodes(["uid", "nope"])
        assert catalog.episodes(["length", "uid"]).columns == ["length", "uid"]
        with pytest.raises(ConfigError, match="AS"):
            catalog.sql("SELECT 1 AS a, 2 AS a")
        assert catalog.arrow("SELECT 1 AS a, 2 AS a").column_names == ["a", "a"]
    with pytest.raises(ConfigError, match="no such folder"):
        Catalog.open(written.root / "nope")
    with pytest.raises(ConfigError, match="must be positive"):
        QueryLimits(timeout_s=0)


def test_a_missing_or_cut_part_is_said_at_once(written: WrittenCatalog) -> None:
    (part,) = (written.root / "catalog/episodes").glob("*.parquet")
    data = part.read_bytes()
    part.write_bytes(data[:-10])
    with pytest.raises(ConfigError, match="is missing or does not have"):
        Catalog.open(written.root)
    part.write_bytes(b"x" * len(data))  # the right size, the wrong content
    with pytest.raises(ConfigError, match=r"part-.*damaged Parquet"):
        Catalog.open(written.root)
    part.unlink()
    with pytest.raises(ConfigError, match="is missing or does not have"):
        Catalog.open(written.root)


@pytest.mark.parametrize(
    "path", ["../secret.parquet", "/etc/passwd", "catalog/episodes/link.parquet"]
)
def test_a_part_outside_the_catalog_is_not_opened(written: WrittenCatalog, path: str) -> None:
    """A snapshot is a file that someone may have sent."""
    secret = written.root.parent / "secret.parquet"
    pq.write_table(pa.table({"uid": ["secret"]}), secret)
    (written.root / "catalog/episodes/link.parquet").symlink_to(secret)
    (manifest,) = (written.root / "catalog/_snapshots").glob("*.json")
    raw: dict[str, Any] = json.loads(manifest.read_text())
    raw["tables"]["episodes"][0].update(path=path, num_bytes=secret.stat().st_size)
    manifest.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"is not a catalog file|is a link"):
        Catalog.open(written.root)


def test_many_small_parts_are_one_table(tmp_path: Path) -> None:
    for k in range(20):
        commit(tmp_path, {"episodes": rows_of(2, 0, first=2 * k)["episodes"]})
    with Catalog.open(tmp_path) as catalog:
        assert catalog.snapshot == 20
        assert catalog.sql("SELECT count(DISTINCT uid) FROM episodes").item() == 40
        assert (
            catalog.sql("SELECT length FROM episodes WHERE uid = ?", [uid_of(7)]).item() == 40 + 49
        )


def test_the_view_reads_only_what_the_query_needs(written: WrittenCatalog) -> None:
    """A cast of every column must not stop DuckDB from pushing projection and filter into the scan."""
    with Catalog.open(written.root) as catalog:
        plan = duckdb.DuckDBPyConnection.execute(
            catalog._connection, "EXPLAIN SELECT length FROM episodes WHERE source = 'oxe'"
        ).fetchall()[0][1]
    assert "source" in plan.split("Filters")[1]
    assert "raw_files" not in plan


def test_a_query_may_begin_with_from(written: WrittenCatalog) -> None:
    """Its tree has nodes that the text does not have, at a place of 2^64 - 1."""
    with Catalog.open(written.root) as catalog:
        assert catalog.sql("FROM episodes ORDER BY 1 LIMIT 1").height == 1


def test_no_query_writes_a_progress_bar() -> None:
    """After two seconds DuckDB would write one to standard output, where it spoils an answer in JSON."""
    with connect(QueryLimits()) as connection:
        asked = connection.sql("SELECT current_setting('enable_progress_bar')")
        assert asked.fetchall() == [(False,)]
