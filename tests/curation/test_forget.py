"""`eicorpus forget`: everything that tells of an episode goes, nothing else changes, and it does not come back by itself."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.corpus import erasure, snapshot
from ingest.corpus.commit import datasets_of
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import recover
from ingest.maintenance.erase import forget
from ingest.maintenance.erasure_plan import erasure_preview, tables_with_uid
from ingest.storage.local import LocalStorage
from ingest.verify.corpus import verify
from jobs.cli import app
from schemas import manifest
from schemas.errors import ConfigError
from schemas.json_text import JsonLimits
from tests.curation.lifecycle_corpus import LATENT, annotate, build, publish_manifest, rows_of, uids
from tests.faults.runs import facts, run, tree
from tests.faults.toy import write_toy
from tests.ingest.verify_corpus import TOY_EPISODES, data_file, dataset, video_file

AT = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("forget"))


def erase(corpus: Path, *names: str, run_id: str = "erasure") -> Snapshot:
    """Forget episodes by their id."""
    known = uids(corpus)
    wanted = [known[name] for name in names]
    disk = LocalStorage()
    _, found = forget(
        CorpusLayout(corpus), disk, wanted, reason="asked", run_id=run_id, erased_at=AT
    )
    return found


def tasks(corpus: Path) -> list[str]:
    lines = (dataset(corpus) / "meta/tasks.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [line["task_index"] for line in found] == list(range(len(found)))
    return [line["task"] for line in found]


def littered(corpus: Path, uid: str) -> None:
    """What runs leave beside the catalog, finished or killed."""
    line = json.dumps({"uid": uid, "text": "do c"})
    for name in (
        "cache/captions/00/.k.json.part",
        "ledger/.first.jsonl.part",
        "manifests/.half.17.part/manifest.json",
        "manifests/m/.manifest.json.part",
        "manifests/m/.0123456789abcdef.9.part/manifest.json",
        "manifests/_cache/delta/block/000000-1.bin",
        "manifests/_cache/delta/merged/x.json",
        f"staging/{uid}.digest/rows",
    ):
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        (corpus / name).write_text(line)


def everything_said(path: Path) -> bytes:
    """The bytes of a file; of Parquet also what they say when unpacked."""
    said = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        said += repr((table.schema.metadata, table.to_pylist())).encode()
    return said


def test_no_file_says_anything_of_the_episode_but_its_tombstone(corpus: Path) -> None:
    """A search through every byte: names, texts, digests, and the pictures as they were encoded."""
    uid = uids(corpus)["c"]
    publish_manifest(corpus)
    littered(corpus, uid)
    video = video_file(corpus, 1).read_bytes()
    [row] = [row for row in rows_of(corpus, "episodes") if row["uid"] == uid]
    files = [row["sha256"] for row in rows_of(corpus, "artifacts") if row["uid"] == uid]
    words = ["do c", "secret c", "secret words of c", row["content_sha256"], *files]
    needles = [uid.encode(), *(word.encode() for word in words), video[-400:-300], LATENT % 1]
    there = b"".join(everything_said(p) for p in corpus.rglob("*") if p.is_file())
    assert all(needle in there for needle in needles)
    before = {n: {r["uid"] for r in rows_of(corpus, "verdicts", n)} for n in range(1, 6)}
    before[6] = before[5]
    erase(corpus, "c")
    for path in corpus.rglob("*"):
        if path.is_file() and "tombstones" not in path.parts:
            said = everything_said(path)
            assert [n for n in needles if n in said] == [], path
    for number in snapshot.numbers(corpus):
        there_now = {row["uid"] for row in rows_of(corpus, "verdicts", number)}
        assert there_now == before[number] - {uid}, number
        # a snapshot that had the episode has its place, so that numbers have no gap in it either
        buried = [row["uid"] for row in rows_of(corpus, "tombstones", number)]
        assert buried == ([uid] if uid in before[number] else []), number


def test_the_pictures_in_its_place_are_black(corpus: Path) -> None:
    erase(corpus, "c")
    with av.open(video_file(corpus, 1)) as video:
        pictures = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
    [tombstone] = rows_of(corpus, "tombstones")
    assert len(pictures) == tombstone["length"]
    assert max(int(picture.max()) for picture in pictures) <= 16  # black, limited range


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
        f"{root}/latents/dino-0123456789ab/chunk-000/front/episode_000001.safetensors",
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
    recover(CorpusLayout(corpus), LocalStorage(), current, datasets_of(corpus, current))
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
    looked = erasure_preview(CorpusLayout(corpus), snapshot.load(corpus), [known["a"]])
    assert looked.undecided == (known["c"],)
    erase(corpus, "a")
    assert rows_of(corpus, "duplicates") == []


def test_a_manifest_loses_the_rows_and_keeps_its_digest(corpus: Path) -> None:
    folder = publish_manifest(corpus)
    whole = manifest.load(folder)
    assert (len(whole), whole.num_erased) == (4, 0)
    erase(corpus, "e")
    left = manifest.load(folder)
    assert (len(left), left.num_erased) == (3, 1)
    assert left.facts.rows_sha256 == whole.facts.rows_sha256
    assert [g.group for g in left.facts.mixture.groups] == [{"text": "do a"}, {"text": "[erased]"}]
    erase(corpus, "a", run_id="second")
    assert (len(manifest.load(folder)), manifest.load(folder).num_erased) == (2, 2)
    redaction = manifest.load_redaction(folder)
    assert [(each.episode_index, each.num_rows) for each in redaction.erased] == [(0, 1), (2, 1)]
    # a row more or less than that is damage, as ever
    rows = manifest.load_rows(folder)
    pq.write_table(rows.slice(0, 1), folder / manifest.ROWS_FILE)
    with pytest.raises(ConfigError, match="the rows have digest"):
        manifest.load(folder)


def test_a_manifest_published_meanwhile_is_redacted_by_the_next_gc(corpus: Path) -> None:
    folder = publish_manifest(corpus)
    kept = shutil.copytree(folder, corpus / "kept")
    erase(corpus, "c")
    shutil.rmtree(folder)
    shutil.move(kept, folder)
    assert len(manifest.load(folder)) == 3  # the list of places holds
    assert CliRunner().invoke(app, ["gc", str(corpus)]).exit_code == 0
    assert uids(corpus).get("c") is None
    assert b"do c" not in everything_said(folder / manifest.ROWS_FILE)


def test_damaged_rows_of_a_manifest_stop_it_before_anything_is_touched(corpus: Path) -> None:
    folder = publish_manifest(corpus)
    (folder / manifest.ROWS_FILE).write_bytes(b"PAR1")
    before = tree(corpus)
    with pytest.raises(ConfigError, match="damaged"):
        erase(corpus, "c")
    assert tree(corpus) == before


def test_only_quarantined_episodes_can_be_forgotten_too(corpus: Path) -> None:
    [row] = [row for row in rows_of(corpus, "verdicts") if row["episode_id"] == "b"]
    disk, root = LocalStorage(), CorpusLayout(corpus)
    forget(root, disk, [row["uid"]], reason="", run_id="x", erased_at=AT)
    [tombstone] = rows_of(corpus, "tombstones")
    assert (tombstone["dataset_path"], tombstone["files"]) == (None, [])
    assert row["uid"] not in (corpus / "quarantine/first.jsonl").read_text()
    assert verify(corpus) == []


def test_a_list_of_quarantine_that_is_no_text_hides_no_episode(corpus: Path) -> None:
    [row] = [row for row in rows_of(corpus, "verdicts") if row["episode_id"] == "b"]
    path = corpus / "quarantine/first.jsonl"
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    forget(CorpusLayout(corpus), LocalStorage(), [row["uid"]], reason="", run_id="x", erased_at=AT)
    assert row["uid"].encode() not in path.read_bytes()
    assert path.read_bytes().startswith(b"\xff\xfe\n")


def test_a_damaged_erasure_shows_as_such(corpus: Path) -> None:
    erase(corpus, "c")
    video_file(corpus, 1).write_bytes(video_file(corpus, 0).read_bytes())
    checks = {found.check.value for found in verify(corpus)}
    assert "file_changed" in checks


def test_no_erasure_is_committed_whose_intent_is_more_than_its_reader_takes(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = rows_of(corpus, "episodes")[0]
    before = snapshot.load(corpus)
    monkeypatch.setattr(erasure, "INTENT_LIMITS", JsonLimits(max_bytes=100, max_elements=1000))
    with pytest.raises(ConfigError, match="exceed the limit of one run; run `eicorpus gc` first"):
        forget(
            CorpusLayout(corpus), LocalStorage(), [row["uid"]], reason="", run_id="x", erased_at=AT
        )
    assert snapshot.load(corpus) == before


def test_the_command(corpus: Path) -> None:
    known = uids(corpus)
    before = tree(corpus)
    ask = ["forget", str(corpus), known["c"], "--json"]
    answer = json.loads(CliRunner().invoke(app, [*ask, "--dry-run"]).stdout)["result"]
    assert tree(corpus) == before
    assert answer["would_forget"] == [known["c"]]
    # by hand: the toy episode has a data file and a video
    assert (answer["rows"]["artifacts"], answer["rows"]["episodes"]) == (2, 1)
    answer = json.loads(CliRunner().invoke(app, [*ask, "--reason", "law"]).stdout)["result"]
    assert (answer["forgotten"], answer["undecided"]) == ([known["c"]], [])
    again = json.loads(CliRunner().invoke(app, ask).stdout)["result"]
    assert (again["forgotten"], again["already"]) == ([], [known["c"]])
    assert again["snapshot"] == answer["snapshot"]


def test_an_unknown_uid_touches_nothing(corpus: Path) -> None:
    before = tree(corpus)
    with pytest.raises(ConfigError, match="no episode nobody"):
        forget(
            CorpusLayout(corpus), LocalStorage(), ["nobody"], reason="", run_id="x", erased_at=AT
        )
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
