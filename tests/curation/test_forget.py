"""`eicorpus forget`: everything that tells of an episode goes, nothing else changes, and it does not come back by itself."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest import snapshot
from ingest.commit import datasets_of
from ingest.corpus import Corpus
from ingest.disk import Disk
from ingest.life.doomed import tables_with_uid
from ingest.life.forget import forget, preview
from ingest.recovery import recover
from ingest.snapshot import Snapshot
from ingest.verify.corpus import verify
from jobs.cli import app
from schemas import manifest
from schemas.errors import ConfigError
from tests.curation.living import annotate, build, rows_of, uids
from tests.faults.runs import facts, run, tree
from tests.faults.toy import write_toy
from tests.ingest.verify_corpus import TOY_EPISODES, data_file, dataset, video_file

AT = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("forget"))


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "corpus")


def erase(corpus: Path, *names: str, run_id: str = "erasure") -> Snapshot:
    """Forget episodes by their id."""
    known = uids(corpus)
    wanted = [known[name] for name in names]
    disk = Disk()
    _, found = forget(Corpus(corpus), disk, wanted, reason="asked", run_id=run_id, erased_at=AT)
    return found


def tasks(corpus: Path) -> list[str]:
    lines = (dataset(corpus) / "meta/tasks.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["task_index"] for line in found] == list(range(len(found)))
    return [line["task"] for line in found]


def test_nothing_of_the_episode_is_left_in_any_snapshot(corpus: Path) -> None:
    uid = uids(corpus)["c"]
    assert any(uid in line for line in (corpus / "ledger/first.jsonl").read_text().splitlines())
    erase(corpus, "c")
    for number in snapshot.numbers(corpus):
        for table in tables_with_uid():
            rows = rows_of(corpus, table, number)
            assert rows or table == "signatures" or number < 5
            assert not any(uid in repr(row) or "do c" in repr(row) for row in rows), (number, table)
    for path in corpus.rglob("*"):
        if path.is_file() and "tombstones" not in path.parts:
            assert uid.encode() not in path.read_bytes(), path
    assert not (corpus / "cache/captions/00/c.json").exists()
    assert not list(dataset(corpus).glob("latents/*/*/*/episode_000001.*"))
    assert len(list(dataset(corpus).glob("latents/*/*/*/*"))) == 3
    assert list((corpus / "staging").iterdir()) == []


def test_no_file_of_another_episode_changes_and_the_corpus_verifies(corpus: Path) -> None:
    before = tree(corpus / "datasets")
    erase(corpus, "c")
    after = tree(corpus / "datasets")
    changed = {name for name in before if after.get(name) != before[name]}
    root = dataset(corpus).relative_to(corpus / "datasets").as_posix()
    kept = {name for name in changed if "/meta/" not in name}
    assert kept == {
        f"{root}/data/chunk-000/episode_000001.parquet",
        f"{root}/videos/chunk-000/observation.images.front/episode_000001.mp4",
        f"{root}/latents/dino/chunk-000/front/episode_000001.safetensors",
    }
    assert verify(corpus, deep=True) == []
    assert [row["episode_index"] for row in rows_of(corpus, "episodes")] == [0, 2, 3]


def test_the_place_holds_as_many_timesteps_of_nothing(corpus: Path) -> None:
    wanted = {row["episode_id"]: row["length"] for row in rows_of(corpus, "episodes")}["c"]
    erase(corpus, "c")
    table = pq.read_table(data_file(corpus, 1))
    assert table.num_rows == wanted
    assert set(table["episode_index"].to_pylist()) == {1}
    for name in ("observation.state", "action", "observation.valid", "action.valid"):
        column = table[name].combine_chunks()
        values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        assert not any(values.to_pylist()), name
    [tombstone] = rows_of(corpus, "tombstones")
    assert (tombstone["episode_id"], tombstone["reason"], tombstone["erased_at"]) == (
        "c",
        "asked",
        AT,
    )
    assert (tombstone["episode_index"], tombstone["length"]) == (1, wanted)
    assert tombstone["ends"] == [{"run_id": "first", "state": "committed"}]
    own = json.loads((dataset(corpus) / "meta/eicorpus.json").read_text())
    assert (own["episodes"], own["erased_episodes"]) == (4, [1])


def test_task_numbers_stay_and_texts_of_nobody_go(corpus: Path) -> None:
    assert tasks(corpus) == ["do a", "do c", "do e", "do f"]
    erase(corpus, "c")
    assert tasks(corpus) == ["do a", "[erased task 1]", "do e", "do f", "[erased]"]
    erase(corpus, "f", run_id="second")
    assert tasks(corpus) == ["do a", "[erased task 1]", "do e", "[erased task 3]", "[erased]"]
    assert verify(corpus) == []
    pins = [row for row in rows_of(corpus, "artifacts") if row["kind"] == "tasks"]
    assert len(pins) == 1


def test_meta_is_rebuilt_to_the_byte(corpus: Path) -> None:
    erase(corpus, "a", "f")
    meta = dataset(corpus) / "meta"
    wanted = tree(meta)
    shutil.rmtree(meta)
    current = snapshot.load(corpus)
    recover(Corpus(corpus), Disk(), current, datasets_of(corpus, current))
    assert tree(meta) == wanted


def test_ingest_goes_on_after_the_last_and_leaves_the_forgotten_out(
    corpus: Path, tmp_path: Path
) -> None:
    erase(corpus, "f", "a")
    raw = write_toy(tmp_path / "raw", {**TOY_EPISODES, "g": "good"})
    tally = run(raw, corpus, run_id="later", has_moved=True)
    assert (tally.discovered, tally.committed, tally.filtered, tally.quarantined) == (7, 3, 3, 1)
    assert tally.codes == {"forgotten": 2, "too_short": 1, "truncated": 1}
    assert tasks(corpus) == [
        "[erased task 0]",
        "do c",
        "do e",
        "[erased task 3]",
        "[erased]",
        "do g",
    ]
    numbers = {row["episode_id"]: row["episode_index"] for row in rows_of(corpus, "episodes")}
    assert numbers == {"c": 1, "e": 2, "g": 4}
    assert verify(corpus) == []


def test_restore_brings_it_back_at_a_new_place(corpus: Path, tmp_path: Path) -> None:
    before = {row["uid"]: row["content_sha256"] for row in rows_of(corpus, "episodes")}
    erase(corpus, "c")
    raw = write_toy(tmp_path / "raw", TOY_EPISODES)
    tally = run(raw, corpus, run_id="later", has_moved=True, restore=True)
    assert tally.committed == 4
    [row] = [row for row in rows_of(corpus, "episodes") if row["episode_id"] == "c"]
    assert (row["episode_index"], row["content_sha256"]) == (4, before[row["uid"]])
    assert verify(corpus) == []
    again = run(raw, corpus, run_id="again", has_moved=True)
    assert (again.committed, again.codes["forgotten"]) == (4, 0)
    erase(corpus, "c", run_id="once more")
    assert [row["episode_index"] for row in rows_of(corpus, "tombstones")] == [1, 4]
    assert verify(corpus) == []


def test_copies_lose_the_decision_that_rested_on_it(corpus: Path) -> None:
    known = uids(corpus)
    looked = preview(Corpus(corpus), snapshot.load(corpus), [known["a"]])
    assert looked.undecided == (known["c"],)
    erase(corpus, "a")
    assert rows_of(corpus, "duplicates") == []


def test_a_manifest_leaves_the_place_out_and_keeps_its_digest(corpus: Path) -> None:
    folder = publish_manifest(corpus)
    whole = manifest.load(folder)
    assert (len(whole), whole.num_erased) == (4, 0)
    erase(corpus, "e")
    left = manifest.load(folder)
    assert (len(left), left.num_erased) == (3, 1)
    assert "e" not in left.rows["text"].to_pylist()
    assert left.facts == whole.facts


def test_only_quarantined_episodes_can_be_forgotten_too(corpus: Path) -> None:
    [row] = [row for row in rows_of(corpus, "verdicts") if row["episode_id"] == "b"]
    disk, root = Disk(), Corpus(corpus)
    forget(root, disk, [row["uid"]], reason="", run_id="x", erased_at=AT)
    [tombstone] = rows_of(corpus, "tombstones")
    assert (tombstone["dataset_path"], tombstone["files"]) == (None, [])
    assert row["uid"] not in (corpus / "quarantine/first.jsonl").read_text()
    assert verify(corpus) == []


def test_a_damaged_erasure_shows_as_such(corpus: Path) -> None:
    erase(corpus, "c")
    video_file(corpus, 1).write_bytes(video_file(corpus, 0).read_bytes())
    checks = {found.check.value for found in verify(corpus)}
    assert "file_changed" in checks


def test_the_command(corpus: Path) -> None:
    known = uids(corpus)
    before = tree(corpus)
    ask = ["forget", str(corpus), known["c"], "--json"]
    answer = json.loads(CliRunner().invoke(app, [*ask, "--what-if"]).stdout)
    assert tree(corpus) == before
    assert answer["would_forget"] == [known["c"]]
    # by hand: the toy episode has a data file and a video
    assert (answer["rows"]["artifacts"], answer["rows"]["episodes"]) == (2, 1)
    answer = json.loads(CliRunner().invoke(app, [*ask, "--reason", "law"]).stdout)
    assert (answer["forgotten"], answer["undecided"]) == ([known["c"]], [])
    again = json.loads(CliRunner().invoke(app, ask).stdout)
    assert (again["forgotten"], again["already"]) == ([], [known["c"]])
    assert again["snapshot"] == answer["snapshot"]


def test_an_unknown_uid_touches_nothing(corpus: Path) -> None:
    before = tree(corpus)
    with pytest.raises(ConfigError, match="no episode nobody"):
        forget(Corpus(corpus), Disk(), ["nobody"], reason="", run_id="x", erased_at=AT)
    assert tree(corpus) == before


def test_many_at_once_are_as_one_after_the_other(corpus: Path, tmp_path: Path) -> None:
    other = shutil.copytree(corpus, tmp_path / "other")
    annotate(corpus, uids(corpus), "curation-2")
    annotate(other, uids(other), "curation-2")
    erase(corpus, "a", "e")
    erase(other, "e", run_id="one")
    erase(other, "a", run_id="two")
    assert tree(corpus / "datasets") == tree(other / "datasets")
    for table in (*tables_with_uid(), "tombstones"):
        if table != "artifacts":
            assert facts(corpus, table) == facts(other, table), table


def publish_manifest(corpus: Path) -> Path:
    """A manifest of every episode, by its id as text."""
    empty = manifest.ROW_SCHEMA.empty_table()
    rows = [
        dict.fromkeys(manifest.ROW_SCHEMA.names)
        | {k: row[k] for k in ("uid", "dataset_path", "episode_index")}
        | {"text": row["episode_id"]}
        for row in sorted(rows_of(corpus, "episodes"), key=lambda row: row["uid"])
    ]
    table = pa.Table.from_pylist(rows, schema=empty.schema)
    folder = corpus / manifest.FOLDER / "m"
    folder.mkdir(parents=True)
    pq.write_table(table, folder / manifest.ROWS_FILE)
    facts_ = manifest.ManifestFacts(
        manifest_version=1,
        name="m",
        corpus_uid="corpus",
        snapshot=snapshot.load(corpus).number,
        where="",
        text_policy="best",
        policy=manifest.PolicyFacts(name="p", digest="d", text=""),
        split=manifest.SplitFacts(by="auto", val=0.0, test=0.0),
        mixture=manifest.MixtureFacts(text="", digest="", by=(), draw_hours=0.0, groups=()),
        num_rows=table.num_rows,
        num_episodes=table.num_rows,
        hours={},
        rows_sha256=manifest.rows_sha256(table),
        statistics=None,
    )
    (folder / manifest.FACTS_FILE).write_text(facts_.model_dump_json())
    return folder
