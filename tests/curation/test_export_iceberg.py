"""`eicorpus export --to iceberg`, read back by pyiceberg, and by DuckDB where its extension is: every row once, and none that was forgotten."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.export import data_file, iceberg
from ingest.export.iceberg import Exported, export, exported_name
from ingest.export.warehouse import ExportStep, Warehouse, open_folder
from ingest.maintenance.compact import compact, plan_merges
from ingest.maintenance.erase import forget
from ingest.storage.local import LocalStorage
from jobs.cli import app
from schemas.catalog import TABLES
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import annotate, build, rows_of, uids
from tests.generators import corpus as synthetic

pytest.importorskip("pyiceberg.catalog.sql", reason="NOT RUN: the extra `iceberg` is not installed")
FEW = ("episodes", "tiers", "captions", "runs", "tombstones")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five tables are enough where it is not about types: each costs some 50 ms an export."""
    monkeypatch.setattr(iceberg, "TABLES", {name: TABLES[name] for name in FEW})


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """16 episodes with lists, structs, NaN and NULL in two snapshots."""
    root = tmp_path / "corpus"
    root.mkdir()
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    synthetic.commit(root, synthetic.rows_of(12, 3))
    more = synthetic.rows_of(4, 1, first=12)
    synthetic.commit(root, {name: more[name] for name in ("episodes", "verdicts", "measurements")})
    return root


def warehouse(root: Path) -> Warehouse:
    return open_folder(root / "ware house", "eicorpus", "corpus")


def exported(corpus: Path, uid: str = "synthetic") -> dict[str, Exported]:
    current = snapshot.load(corpus)
    done = export(corpus, uid, current, warehouse(corpus.parent))
    return {each.table: each for each in done}


def there(root: Path, table: str) -> Any:
    return warehouse(root).catalog.load_table(("corpus", exported_name(table)))


def read(root: Path, table: str) -> list[str]:
    """Which files there are, and which fields, is what Iceberg says; rows are of those files.

    pyiceberg 0.12.0 reads a NULL list of structs as an empty one, which is checked apart.
    """
    found = there(root, table)
    ids = {field.field_id: field.name for field in found.schema().fields}
    rows = []
    for task in found.scan().plan_files():
        file = pq.read_table(task.file.file_path, partitioning=None)
        names = [ids[int(field.metadata[b"PARQUET:field_id"])] for field in file.schema]
        rows += file.rename_columns(names).select(TABLES[table].names).to_pylist()
    scanned = found.scan().to_arrow()
    assert scanned.num_rows == len(rows)
    assert sorted(map(lenient, scanned.to_pylist())) == sorted(map(lenient, rows))
    return sorted(map(repr, rows))


def lenient(row: dict[str, Any]) -> str:
    """Blind to what pyiceberg's reader makes of a NULL list of structs."""
    return repr({name: [] if value is None else value for name, value in row.items()})


def wanted(corpus: Path, table: str) -> list[str]:
    return sorted(map(repr, rows_of(corpus, table)))


def history(root: Path, table: str) -> list[tuple[str, str]]:
    """(what was done, our snapshot) of each Iceberg snapshot."""
    found = there(root, table).metadata.snapshots
    return [
        (s.summary.operation.value, s.summary.additional_properties["eicorpus.snapshot"])
        for s in found
    ]


def test_every_row_of_every_table_with_its_types(corpus: Path) -> None:
    done = exported(corpus)
    assert set(done) == {exported_name(table) for table in TABLES}
    assert "verdicts_all" in done
    for table in TABLES:
        assert read(corpus.parent, table) == wanted(corpus, table), table
        found = there(corpus.parent, table).schema().as_arrow()
        assert found.names == TABLES[table].names
    episodes = there(corpus.parent, "episodes").schema().as_arrow()
    assert pa.types.is_struct(episodes.field("cameras").type.value_type)
    assert episodes.field("length").type == pa.int64()
    assert episodes.field("num_gaps").type == pa.int32()
    at = there(corpus.parent, "runs").schema().as_arrow().field("started_at").type
    assert at == pa.timestamp("us", tz="UTC")


@pytest.mark.usefixtures("few")
def test_the_same_snapshot_twice_adds_nothing_and_a_new_one_adds_its_rows(corpus: Path) -> None:
    root = corpus.parent
    exported(corpus)
    current = snapshot.load(corpus)
    before = {table: there(root, table).metadata_location for table in FEW}
    assert {each.step for each in exported(corpus).values()} == {ExportStep.NOTHING}
    assert {table: there(root, table).metadata_location for table in FEW} == before
    assert history(root, "episodes") == [("append", "2")]
    properties = there(root, "episodes").properties
    sha256 = hashlib.sha256(snapshot.text_of(current).encode()).hexdigest()
    assert (properties["eicorpus.snapshot"], properties["eicorpus.snapshot_sha256"]) == (
        "2",
        sha256,
    )
    synthetic.commit(corpus, {"episodes": synthetic.rows_of(2, 0, first=16)["episodes"]})
    done = exported(corpus)
    assert (done["episodes"].step, done["episodes"].written, done["episodes"].rows) == (
        ExportStep.APPEND,
        2,
        18,
    )
    assert done["runs"].step is ExportStep.NOTHING
    assert history(root, "episodes") == [("append", "2"), ("append", "3")]
    assert there(root, "runs").properties["eicorpus.snapshot"] == "3"
    assert read(root, "episodes") == wanted(corpus, "episodes")
    # the Iceberg snapshot that names ours is what ours was
    old = there(root, "episodes")
    assert old.scan(snapshot_id=old.metadata.snapshots[0].snapshot_id).to_arrow().num_rows == 16


@pytest.mark.usefixtures("few")
def test_compaction_replaces_the_rows_in_one_snapshot(corpus: Path) -> None:
    exported(corpus)
    current = snapshot.load(corpus)
    compact(
        CorpusLayout(corpus), LocalStorage(), current, plan_merges(corpus, current), "compaction"
    )
    done = exported(corpus)
    assert done["episodes"].step is ExportStep.REPLACE
    assert history(corpus.parent, "episodes") == [("append", "2"), ("overwrite", "3")]
    assert read(corpus.parent, "episodes") == wanted(corpus, "episodes")
    assert exported(corpus)["episodes"].step is ExportStep.NOTHING


@pytest.mark.usefixtures("few")
def test_no_file_of_the_warehouse_tells_of_a_forgotten_episode(tmp_path: Path) -> None:
    corpus = build(tmp_path)
    known = uids(corpus)
    exported(corpus, "corpus")
    needles = [known["c"].encode(), b"do c", b"secret words of c"]
    assert all(said(tmp_path / "ware house", needle) for needle in needles)
    annotate(corpus, known, "curation-2")
    exported(corpus, "corpus")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    forget(CorpusLayout(corpus), LocalStorage(), [known["c"]], reason="", run_id="x", erased_at=at)
    done = exported(corpus, "corpus")
    assert done["episodes"].step is ExportStep.ANEW
    assert done["runs"].step is ExportStep.NOTHING
    for table in FEW:
        assert read(tmp_path, table) == wanted(corpus, table), table
    for needle in needles:
        assert {path.parts[-3] for path in said(tmp_path / "ware house", needle)} <= {"tombstones"}


def said(folder: Path, needle: bytes) -> list[Path]:
    """Files with these bytes, in Parquet also unpacked."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                data += repr(pq.read_table(path, partitioning=None).to_pylist()).encode()
            found += [path] if needle in data else []
    return found


@pytest.mark.usefixtures("few")
def test_an_export_that_was_stopped_goes_on(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full after the first file of the second table; what it left is gone when the table is made again."""
    real, calls = iceberg.pieces, []

    def full(root: Path, table: str, parts: Any) -> Iterator[pa.Table]:
        calls.append(table)
        yield from real(root, table, parts)
        if table == "tiers":
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(iceberg, "pieces", full)
        rows = synthetic.rows_of(2, 0, first=20)["episodes"]
        tier = dict.fromkeys(TABLES["tiers"].names) | {"uid": rows[0]["uid"], "snapshot": 1}
        synthetic.commit(corpus, {"tiers": [tier]})
        with pytest.raises(OSError, match="No space"):
            exported(corpus)
    assert calls == ["episodes", "tiers"]
    assert there(corpus.parent, "tiers").metadata.snapshots == []
    done = exported(corpus)
    assert (done["episodes"].step, done["tiers_all"].written) == (ExportStep.NOTHING, 13)
    for table in FEW:
        assert read(corpus.parent, table) == wanted(corpus, table)
    left = corpus.parent / "ware house/corpus/tiers_all/data"
    warehouse(corpus.parent).catalog.drop_table("corpus.tiers_all")
    assert list(left.iterdir())
    exported(corpus)
    assert len(list(left.iterdir())) == 1  # not one of the dropped table


@pytest.mark.usefixtures("few")
def test_a_piece_is_on_the_disk_before_the_next_is_read(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bounds memory. By hand: episodes are in two parts, and a piece of one byte is a batch."""
    files: list[int] = []

    def counted(root: Path, table: str, parts: Any) -> Iterator[pa.Table]:
        for piece in data_file.pieces(root, table, parts, num_bytes=1):
            if table == "episodes":
                files.append(
                    len(list((root.parent / "ware house/corpus/episodes").rglob("*.parquet")))
                )
            yield piece

    monkeypatch.setattr(iceberg, "pieces", counted)
    exported(corpus)
    assert files == [0, 1]
    assert history(corpus.parent, "episodes") == [("append", "2")]


@pytest.mark.usefixtures("few")
def test_a_part_from_before_a_column_reads_as_null(corpus: Path) -> None:
    rows = synthetic.rows_of(2, 0, first=30)["episodes"]
    narrow = pa.Table.from_pylist(rows, schema=TABLES["episodes"]).drop_columns(["split"])
    part = snapshot.write_tables(LocalStorage(), corpus, "episodes", [narrow], schema=narrow.schema)
    publishing.publish(LocalStorage(), corpus, snapshot.load(corpus), {"episodes": part}, "old")
    exported(corpus)
    assert read(corpus.parent, "episodes") == wanted(corpus, "episodes")


@pytest.mark.usefixtures("few")
def test_a_table_that_is_not_ours_or_of_another_corpus_is_not_touched(corpus: Path) -> None:
    to = warehouse(corpus.parent)
    to.catalog.create_table("corpus.runs", schema=pa.schema([("a", pa.int64())]))
    with pytest.raises(ConfigError, match="that eicorpus did not write"):
        exported(corpus)
    to.catalog.drop_table("corpus.runs")
    exported(corpus)
    with pytest.raises(ConfigError, match="contains corpus synthetic, not other"):
        exported(corpus, "other")
    (corpus.parent / "ware house/catalog.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match="the Iceberg catalog refuses"):
        exported(corpus)


@pytest.mark.usefixtures("few")
def test_the_command(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = str(corpus.parent / "ware house")
    words = ["export", str(corpus), "--to", "iceberg", "--warehouse", to, "--json"]
    result = CliRunner().invoke(app, words)
    answer = json.loads(result.stdout)["result"]
    assert answer["snapshot"] == 2
    assert {each["table"]: each["written"] for each in answer["tables"]}["episodes"] == 16
    with writer_lock(CorpusLayout(corpus)):
        assert "is writing to this corpus" in str(CliRunner().invoke(app, words).exception)
    inside = ["export", str(corpus), "--to", "iceberg", "--warehouse", str(corpus / "x")]
    assert "inside the corpus" in str(CliRunner().invoke(app, inside).exception)
    nowhere = CliRunner().invoke(app, ["export", str(corpus), "--to", "iceberg"])
    assert "--warehouse DIR" in str(nowhere.exception)
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog.sql", None)
    missing = CliRunner().invoke(app, words).exception
    assert isinstance(missing, ConfigError)
    assert "pip install 'eicorpus[iceberg]'" in str(missing)


@pytest.mark.usefixtures("few")
def test_duckdb_reads_it(corpus: Path) -> None:
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    try:
        connection.execute("LOAD iceberg")
    except duckdb.Error:
        pytest.skip("NOT RUN: DuckDB's iceberg extension is not installed, and is not fetched here")
    exported(corpus)
    location = there(corpus.parent, "episodes").metadata_location
    found = connection.sql(f"FROM iceberg_scan('{location}')").arrow().read_all()
    assert sorted(map(repr, found.to_pylist())) == wanted(corpus, "episodes")
