"""Snapshots: immutable, numbered, put-if-absent; readers see whole commits and survive older parts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic import write_part
from ingest.corpus import publishing, snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.snapshot import Part, Snapshot
from ingest.storage.local import LocalStorage
from schemas.catalog import FORMAT_VERSION, TABLES
from schemas.errors import ConfigError, InvariantError, TransientError
from schemas.json_text import parse_json
from tests.faults.runs import tree
from tests.ingest.test_storage import Ordered

DISK = LocalStorage()


def row(uid: str, start: int = 0) -> dict[str, Any]:
    return dict.fromkeys(TABLES["segments"].names) | {"uid": uid, "start": start}


def commit(corpus: Path, parent: Snapshot, *uids: str, run_id: str = "run") -> Snapshot:
    part = write_part(DISK, corpus, "segments", [row(uid) for uid in uids])
    return publishing.publish(DISK, corpus, parent, {"segments": part}, run_id)


def uids(corpus: Path, number: int | None = None) -> list[str]:
    table = snapshot.load(corpus, number).read(corpus, "segments", ["uid"])
    return list(table.column("uid").to_pylist())


def test_an_empty_corpus_has_snapshot_zero(tmp_path: Path) -> None:
    empty = snapshot.load(tmp_path)
    assert (empty.number, empty.parts("segments")) == (0, ())
    for table, schema in TABLES.items():
        assert empty.read(tmp_path, table).schema == schema


def test_commits_add_up_and_old_ones_stay(tmp_path: Path) -> None:
    one = commit(tmp_path, Snapshot(), "a")
    two = commit(tmp_path, one, "b", "c", run_id="second")
    assert (one.number, two.number) == (1, 2)
    assert (uids(tmp_path, 1), uids(tmp_path)) == (["a"], ["a", "b", "c"])
    assert snapshot.load(tmp_path) == snapshot.load(tmp_path, 2)
    assert snapshot.load(tmp_path).run_id == "second"
    raw = json.loads((tmp_path / "catalog/_snapshots/00000002.json").read_text())
    assert (raw["snapshot"], raw["parent"], raw["format_version"]) == (2, 1, FORMAT_VERSION)
    assert sum(part["rows"] for part in raw["tables"]["segments"]) == 3


def test_the_rows_of_one_episode_are_as_many_as_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They become Python objects; a row many times over would fill the memory."""
    current = commit(tmp_path, commit(tmp_path, Snapshot(), "a", "b", "a"), "a")
    monkeypatch.setattr(snapshot, "MOST_ROWS_OF_EPISODE", 3)
    assert snapshot.rows_of_episode(current, tmp_path, "segments", "a").num_rows == 3
    monkeypatch.setattr(snapshot, "MOST_ROWS_OF_EPISODE", 2)
    assert snapshot.rows_of_episode(current, tmp_path, "segments", "b").num_rows == 1
    with pytest.raises(DamagedCatalog, match="more than 2 rows for one episode"):
        snapshot.rows_of_episode(current, tmp_path, "segments", "a")


def test_the_second_of_two_writers_loses_and_destroys_nothing(tmp_path: Path) -> None:
    base = commit(tmp_path, Snapshot(), "a")
    commit(tmp_path, base, "b")
    before = tree(tmp_path / "catalog" / "_snapshots")
    with pytest.raises(TransientError, match="another writer published snapshot 2"):
        commit(tmp_path, base, "c")
    assert tree(tmp_path / "catalog" / "_snapshots") == before
    assert uids(tmp_path) == ["a", "b"]
    commit(tmp_path, snapshot.load(tmp_path), "c")  # run again
    assert uids(tmp_path) == ["a", "b", "c"]


def test_parts_are_durable_before_the_snapshot_that_names_them(tmp_path: Path) -> None:
    part = write_part(DISK, tmp_path, "segments", [row("a")])
    disk = LocalStorage(tmp_path, Ordered([tmp_path / part.path]))
    disk.adopt([tmp_path / part.path])
    assert publishing.publish(disk, tmp_path, Snapshot(), {"segments": part}, "run").number == 1


def test_the_same_rows_cannot_count_twice(tmp_path: Path) -> None:
    one = commit(tmp_path, Snapshot(), "a")
    with pytest.raises(InvariantError, match="already part of snapshot 1"):
        commit(tmp_path, one, "a")
    assert uids(tmp_path) == ["a"]


def test_a_part_is_named_by_its_content(tmp_path: Path) -> None:
    first = write_part(DISK, tmp_path, "segments", [row("a")])
    before = tree(tmp_path)
    assert write_part(DISK, tmp_path, "segments", [row("a")]) == first
    assert tree(tmp_path) == before
    assert write_part(DISK, tmp_path, "segments", [row("b")]).path != first.path
    assert first.num_bytes == (tmp_path / first.path).stat().st_size


def test_a_part_from_before_a_column_existed_reads_as_null(tmp_path: Path) -> None:
    (tmp_path / "catalog/segments").mkdir(parents=True)
    old = pa.table({"uid": ["old"], "start": pa.array([3], pa.int64())})
    pq.write_table(old, tmp_path / "catalog/segments/part-0.parquet")
    part = Part(path="catalog/segments/part-0.parquet", rows=1, num_bytes=1, sha256="0")
    one = publishing.publish(DISK, tmp_path, Snapshot(), {"segments": part}, "run")
    two = commit(tmp_path, one, "new")
    table = two.read(tmp_path, "segments")
    assert table.schema == TABLES["segments"]
    assert table.column("uid").to_pylist() == ["old", "new"]
    assert table.column("text").to_pylist() == [None, None]
    assert table.column("start").to_pylist() == [3, 0]
    assert two.read(tmp_path, "segments", ["text"]).num_rows == 2  # a column only the new part has


def test_half_written_snapshots_are_not_seen(tmp_path: Path) -> None:
    commit(tmp_path, Snapshot(), "a")
    folder = tmp_path / "catalog/_snapshots"
    (folder / ".00000002.json.77.part").write_text("{")
    (folder / "notes.json").write_text("{}")
    assert snapshot.load(tmp_path).number == 1


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    commit(tmp_path, Snapshot(), "a")
    folder = tmp_path / "catalog/_snapshots"
    raw = json.loads((folder / "00000001.json").read_text())
    (folder / "100000000.json").write_text(json.dumps(raw | {"snapshot": 100_000_000}))
    assert snapshot.load(tmp_path).number == 100_000_000


def test_a_snapshot_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    commit(tmp_path, Snapshot(), "a")
    path = tmp_path / "catalog/_snapshots/00000001.json"
    raw = json.loads(path.read_text()) | {"format_version": FORMAT_VERSION + 1}
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="install a newer eicorpus"):
        snapshot.load(tmp_path)


def test_an_absent_snapshot_is_named(tmp_path: Path) -> None:
    commit(tmp_path, Snapshot(), "a")
    with pytest.raises(ConfigError, match=r"no snapshot 7; available: \[1\]"):
        snapshot.load(tmp_path, 7)
    with pytest.raises(KeyError, match="segments"):
        Snapshot().parts("segmentz")


def test_no_snapshot_is_published_that_its_reader_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "MAX_PARTS", 1)
    base = commit(tmp_path, Snapshot(), "a")
    with pytest.raises(ConfigError, match=r"2 catalog files.*at most 1; run `eicorpus compact`"):
        commit(tmp_path, base, "b")
    assert snapshot.load(tmp_path) == base


def test_the_content_of_a_table_is_that_of_its_rows_however_they_are_cut(tmp_path: Path) -> None:
    parts = [write_part(DISK, tmp_path, "segments", [row(uid)]) for uid in "abc"]
    whole = write_part(DISK, tmp_path, "segments", [row(uid) for uid in "abc"])
    merged = replace(whole, content=snapshot.content_of(parts))
    assert snapshot.content_of([merged]) == snapshot.content_of(parts[::-1])
    assert len({snapshot.content_of(some) for some in ([], parts[:1], parts[:2], parts)}) == 4
    one = publishing.publish_tables(DISK, tmp_path, Snapshot(), {"segments": [merged]}, "run")
    assert snapshot.load(tmp_path).parts("segments") == one.parts("segments") == (merged,)
    assert one.content("segments") == snapshot.content_of(parts)


def test_a_snapshot_from_before_parts_were_merged_opens(tmp_path: Path) -> None:
    base = commit(tmp_path, Snapshot(), "a")
    path = tmp_path / "catalog/_snapshots/00000001.json"
    raw = json.loads(path.read_text())
    del raw["merged"]
    path.write_text(json.dumps(raw))
    assert snapshot.load(tmp_path) == base
    for odd in ("x" * 64, "0" * 63, 7, None):
        path.write_text(json.dumps(raw | {"merged": {base.parts("segments")[0].path: odd}}))
        with pytest.raises(snapshot.DamagedSnapshot):
            snapshot.load(tmp_path)


def test_a_snapshot_of_the_most_parts_fits_its_bounds() -> None:
    """By a thousandth of them, of the longest name of a table."""
    num_parts = snapshot.MAX_PARTS // 1000
    part = Part(
        path=f"catalog/{max(TABLES, key=len)}/part-{'0' * 32}.parquet",
        rows=10**12,
        num_bytes=10**12,
        sha256="0" * 64,
        content="0" * 64,
    )
    parts = [replace(part, path=part.path.replace("0" * 32, f"{n:032}")) for n in range(num_parts)]
    text = snapshot.text_of(Snapshot(tables={"segments": parts}))
    assert len(text) * 1000 < snapshot.LIMITS.max_bytes
    most = (snapshot.LIMITS.max_elements - 100) // 1000 + 100
    assert parse_json(text, limits=replace(snapshot.LIMITS, max_elements=most))
