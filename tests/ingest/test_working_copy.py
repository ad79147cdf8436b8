"""Two machines and one corpus in a bucket: commits, lanes, copies of files, and what a bucket may not do to a machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from benchmarks.overhead import Instant
from benchmarks.synthetic import write_part
from ingest.corpus import bucket_commit, commit_log, lanes, publishing, snapshot, snapshot_list
from ingest.corpus.bucket_copies import DamagedCopy
from ingest.corpus.commit_log import CommitLog, Conflict, LaneLost, LogEntry, OtherHistory
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.layout import LINK, CorpusLayout, open_or_create
from ingest.corpus.remote_link import read_link
from ingest.corpus.shared_manifests import fetch_manifests, share_manifest
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.working_copy import COPYING, WorkingCopy, attach
from ingest.corpus.writer import writing
from ingest.maintenance.erase import forget
from ingest.maintenance.sweep import sweep
from ingest.pipeline import run
from ingest.pipeline.plan import Request
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from ingest.storage.lock_file import held_with_others
from ingest.storage.object_store import ObjectStore
from jobs.stages.ingest import run_ingest
from schemas.catalog import TABLES
from schemas.errors import ConfigError, SourceError
from schemas.paths import OutsideCorpus

Attach = Callable[[str], WorkingCopy]


@pytest.fixture
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(f"memory://{abs(hash(request.node.nodeid))}/c")


@pytest.fixture
def machine(tmp_path: Path, store: ObjectStore) -> Attach:
    """The working copy of a machine of this name."""

    def made(name: str) -> WorkingCopy:
        root = tmp_path / name
        copy = attach(root, str(store.uri), store, may_be_absent=True)
        if not copy.link.corpus_uid:
            open_or_create(root, uid=f"uid-{name}", recipe_digest="", disk=LocalStorage(root))
            copy.refresh()
        return copy

    return made


def row(table: str, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(TABLES[table].names) | values


def commit(copy: WorkingCopy, parent: Snapshot, table: str, *rows: dict[str, Any]) -> Snapshot:
    disk = LocalStorage(copy.root)
    part = write_part(disk, copy.root, table, list(rows))
    return publishing.publish(disk, copy.root, parent, {table: part}, "run")


def media(copy: WorkingCopy, path: str, data: bytes) -> dict[str, Any]:
    """A file of an episode here, and the row that names it."""
    disk = LocalStorage(copy.root)
    disk.put(path, data)
    sha256 = hashlib.sha256(data).hexdigest()
    return row("artifacts", uid=path, kind="data", path=path, num_bytes=len(data), sha256=sha256)


def uids(state: Snapshot, copy: WorkingCopy, table: str = "segments") -> list[str]:
    return sorted(state.read(copy.root, table, ["uid"])["uid"].to_pylist())


def lane_path(copy: WorkingCopy, number: int = 0) -> str:
    return f"datasets/s/b.{copy.link.lane}/data/chunk-000/episode_{number:06d}.parquet"


def test_what_one_machine_commits_another_reads(machine: Attach) -> None:
    one, other = machine("one"), machine("other")
    state = commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    assert uids(other.refresh(), other) == ["a"]
    assert snapshot.load(other.root).number == state.number == 1
    assert one.link.corpus_uid == other.link.corpus_uid == "uid-one"


def test_commits_of_two_machines_add_up_whoever_is_first(machine: Attach) -> None:
    one, other = machine("one"), machine("other")
    before = one.refresh()
    assert other.refresh() == before
    commit(one, before, "segments", row("segments", uid="a", start=0))
    both = commit(other, before, "segments", row("segments", uid="b", start=0))
    assert (both.number, uids(both, other)) == (2, ["a", "b"])
    assert uids(one.refresh(), one) == ["a", "b"]


def test_equal_rows_of_two_machines_are_parts_of_their_own(machine: Attach) -> None:
    """Tables without uids, such as `runs`, may get the same row twice: a part has one owner, and a sweep can tell them apart."""
    one, other = machine("one"), machine("other")
    before = other.refresh()
    commit(one, one.refresh(), "runs", row("runs", run_id="r"))
    state = commit(other, before, "runs", row("runs", run_id="r"))
    assert len({part.path for part in state.parts("runs")}) == 2


def test_the_slower_of_two_with_the_same_episode_is_told(machine: Attach) -> None:
    one, other = machine("one"), machine("other")
    before = other.refresh()
    commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    with pytest.raises(Conflict, match="1 of these episodes"):
        commit(other, before, "segments", row("segments", uid="a", start=0))


def test_what_others_commit_beside_a_batch_is_left_out_of_the_next_ones(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of one episode. While the first is committed, another machine commits the episode of the second."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/count").write_text("3")
    workers = Instant(tmp_path)
    others: list[str | None] = ["*1"]
    monkeypatch.setattr(run, "BATCH_EPISODES", 1)

    def ingest_on(name: str, select: str | None = None) -> Path:
        attach(tmp_path / name, str(store.uri), store, may_be_absent=True)
        request = Request(
            source="benchmarks.overhead:Tiny",
            root=tmp_path / "raw",
            options={},
            recipe=Recipe(),
            select=select,
        )
        run_ingest(request, tmp_path / name, workers, Limits())
        return tmp_path / name

    class Beside(ObjectStore):
        def create(self, key: str, data: bytes) -> bool:
            if b'"episodes": [' in data and others:
                ingest_on("other", others.pop())
            return super().create(key, data)

    beside = Beside(store.uri)
    monkeypatch.setattr(publishing, "store_of", lambda uri: beside)
    one = ingest_on("one")
    current = snapshot.load(one)
    rows = current.read(one, "episodes", ["uid", "dataset_path"]).to_pylist()
    assert len(rows) == len({row["uid"] for row in rows}) == 3
    assert len({row["dataset_path"] for row in rows}) == 2


def test_rows_say_under_which_number_they_were_committed(machine: Attach) -> None:
    one, other = machine("one"), machine("other")
    before = other.refresh()
    commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    verdict = row("verdicts", uid="b", state="failed", snapshot=1)
    reviewed = row("verdicts", uid="c", state="failed", snapshot=0)
    state = commit(other, before, "verdicts", verdict, reviewed)
    rows = state.read(other.root, "verdicts", ["uid", "snapshot"]).to_pylist()
    assert rows == [{"uid": "b", "snapshot": 2}, {"uid": "c", "snapshot": 0}]


def test_media_are_uploaded_before_the_commit_and_leave_the_disk(
    machine: Attach, store: ObjectStore
) -> None:
    one = machine("one")
    parent = lanes.claim(one, "run")
    path = lane_path(one)
    state = commit(one, parent, "artifacts", media(one, path, b"rows"))
    assert store.get(path, max_bytes=9) == b"rows"
    assert not (one.root / path).exists()
    other = machine("other")
    assert other.fetch(other.refresh()) == 1
    assert (other.root / path).read_bytes() == b"rows"
    assert other.fetch(state) == 0


def test_what_a_stopped_run_left_in_the_lane_is_kept_and_the_session_gets_another_lane(
    machine: Attach, store: ObjectStore
) -> None:
    """Nothing is ever replaced, so a request of the stopped run that is still under way cannot matter."""
    one = machine("one")
    parent, path = lanes.claim(one, "run"), lane_path(one)
    store.put(path, b"of a stopped run")
    with pytest.raises(LaneLost, match="new lane"):
        commit(one, parent, "artifacts", media(one, path, b"rows"))
    assert store.get(path, max_bytes=99) == b"of a stopped run"
    again = WorkingCopy(one.root, store)
    parent = lanes.claim(again, "next")
    assert again.link.lane == "lane-2"
    commit(again, parent, "artifacts", media(again, lane_path(again), b"rows"))
    assert store.get(lane_path(again), max_bytes=9) == b"rows"


def test_equal_bytes_of_a_stopped_run_are_taken(machine: Attach, store: ObjectStore) -> None:
    one = machine("one")
    parent = lanes.claim(one, "run")
    store.put(lane_path(one), b"rows")
    assert commit(one, parent, "artifacts", media(one, lane_path(one), b"rows")).number == 2


@pytest.mark.parametrize(
    "path",
    [
        "datasets/s/b.lane-9/data/chunk-000/episode_000000.parquet",
        "datasets/s/b/data/chunk-000/episode_000000.parquet",
        "datasets/s/b.LANE/latents/enc/chunk-000/cam/episode_000000.safetensors",
    ],
)
def test_what_is_not_of_the_own_lane_is_never_replaced(
    machine: Attach, store: ObjectStore, path: str
) -> None:
    one = machine("one")
    parent = lanes.claim(one, "run")
    path = path.replace("LANE", one.link.lane)
    store.put(path, b"of another writer")
    with pytest.raises(Conflict, match="other bytes"):
        commit(one, parent, "artifacts", media(one, path, b"rows"))
    assert store.get(path, max_bytes=99) == b"of another writer"


def test_a_folder_keeps_its_lane_and_a_copy_of_it_gets_another(
    machine: Attach, tmp_path: Path, store: ObjectStore
) -> None:
    one = machine("one")
    lanes.claim(one, "first")
    lane = one.link.lane
    shutil.copytree(one.root, tmp_path / "twin")
    again = WorkingCopy(one.root, store)
    lanes.claim(again, "second")
    assert (again.link.lane, again.link.token) == (lane, 2)
    twin = WorkingCopy(tmp_path / "twin", store)
    lanes.claim(twin, "third")
    assert twin.link.lane != lane


def test_a_session_whose_lane_was_claimed_again_is_fenced(
    machine: Attach, store: ObjectStore
) -> None:
    one = machine("one")
    parent = lanes.claim(one, "first")
    lanes.claim(WorkingCopy(one.root, store), "second")
    with pytest.raises(LaneLost):
        bucket_commit.behind(one, parent)
    with pytest.raises(LaneLost):
        bucket_commit.commit(one, parent, {"segments": ()}, "run")
    log = CommitLog(store=store)
    assert [entry.kind for entry in log.after(0)] == ["claim", "claim"]


def test_a_late_entry_of_the_session_before_finds_its_number_taken(
    machine: Attach, store: ObjectStore
) -> None:
    one = machine("one")
    lanes.claim(one, "first")
    late = LogEntry(number=2, run_id="first", lane=one.link.lane, token=1, parent="")
    lanes.claim(WorkingCopy(one.root, store), "second")
    assert CommitLog(store=store).append(late).kind == "claim"


def test_an_object_with_other_bytes_is_refused_and_not_kept(
    machine: Attach, store: ObjectStore
) -> None:
    one = machine("one")
    state = commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    (part,) = state.parts("segments")
    store.put(part.path, b"x" * part.num_bytes)
    other = machine("other")
    with pytest.raises(DamagedCopy, match="other bytes"):
        other.refresh()
    assert not (other.root / part.path).exists()


def test_another_corpus_at_the_same_address_is_named(machine: Attach, store: ObjectStore) -> None:
    one = machine("one")
    one.refresh()
    store.put("corpus.json", b'{"format_version": 1, "uid": "new", "created_by_recipe": ""}')
    with pytest.raises(ConfigError, match="another corpus"):
        one.refresh()


def test_an_address_with_something_else_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.put("photos/1.jpg", b"")
    with pytest.raises(ConfigError, match=r"photos/1.jpg"):
        attach(tmp_path / "w", str(store.uri), store, may_be_absent=True)
    with pytest.raises(ConfigError, match="not a corpus"):
        attach(tmp_path / "w", str(store.uri), store)
    assert not (tmp_path / "w").exists()


def test_a_folder_that_is_something_else_is_refused(
    store: ObjectStore, tmp_path: Path, machine: Attach
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").touch()
    machine("one")
    with pytest.raises(ConfigError, match="not empty"):
        attach(tmp_path / "photos", str(store.uri), store)
    with pytest.raises(ConfigError, match="is a working copy of"):
        attach(tmp_path / "one", "memory://other/c", store)


def test_a_link_that_cannot_be_read_is_named(machine: Attach) -> None:
    one = machine("one")
    (one.root / LINK).write_text("{}")
    with pytest.raises(ConfigError, match=r"remote\.json.*cannot be read"):
        read_link(one.root)


def test_a_bucket_cannot_name_a_file_outside_of_the_copy(
    machine: Attach, store: ObjectStore, tmp_path: Path
) -> None:
    one = machine("one")
    store.put("victim", b"x")
    bad = row("artifacts", uid="u", kind="data", path="../victim", num_bytes=1, sha256="0" * 64)
    part = write_part(LocalStorage(one.root), one.root, "artifacts", [bad])
    with pytest.raises(ConfigError):
        one.fetch(replace(one.refresh(), tables={"artifacts": (part,)}))
    assert not (tmp_path / "victim").exists()


def test_a_sweep_deletes_what_no_commit_names_and_a_stale_lane_is_sealed(
    machine: Attach, store: ObjectStore
) -> None:
    one = machine("one")
    parent = lanes.claim(one, "run")
    commit(one, parent, "artifacts", media(one, lane_path(one), b"rows"))
    store.put(lane_path(one, 1), b"uploaded, not committed")
    store.put("catalog/segments/part-1.parquet", b"uploaded, not committed")
    looked = sweep(one, stale_s=-1, run_id="r", dry_run=True)
    assert set(looked.keys) == {lane_path(one, 1), "catalog/segments/part-1.parquet"}
    assert store.size(lane_path(one, 1)) is not None
    swept = sweep(one, stale_s=-1, run_id="r")
    assert (swept.keys, swept.sealed) == (looked.keys, (one.link.lane,))
    assert store.size(lane_path(one, 1)) is None
    assert store.get(lane_path(one), max_bytes=9) == b"rows"
    sealed = one.link.lane
    with pytest.raises(LaneLost):
        bucket_commit.behind(one, parent)
    again = WorkingCopy(one.root, store)
    lanes.claim(again, "again")
    assert again.link.lane != sealed


def test_a_commit_beside_the_entry_of_a_sweep_is_seen(
    machine: Attach, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer takes the number that the sweep tries first: what it names stays, and its lane is alive."""
    one, other = machine("one"), machine("other")
    parent = lanes.claim(other, "run")
    append, tried = CommitLog.append, []

    def slower(self: CommitLog, entry: LogEntry) -> LogEntry:
        if entry.kind == "sweep" and not tried:
            tried.append(entry)
            commit(other, parent, "artifacts", media(other, lane_path(other), b"rows"))
        return append(self, entry)

    monkeypatch.setattr(CommitLog, "append", slower)
    swept = sweep(one, stale_s=1e9, run_id="r")
    assert (swept.keys, swept.sealed, len(tried)) == ((), (), 1)
    monkeypatch.undo()
    later = machine("later")
    assert later.fetch(later.refresh()) == 1


def test_a_writer_that_meets_a_sweep_uploads_anew(machine: Attach, store: ObjectStore) -> None:
    one, other = machine("one"), machine("other")
    before = other.refresh()
    sweep(one, stale_s=1e9, run_id="r")
    state = commit(other, before, "segments", row("segments", uid="a", start=0))
    (part,) = state.parts("segments")
    uploaded = store.list("catalog/segments")
    assert part.path in uploaded
    assert part.path.endswith("-2.parquet")
    assert len(uploaded) == 2  # the first, which the sweep may delete


def test_an_erasure_in_a_working_copy_is_refused(machine: Attach) -> None:
    one = machine("one")
    with pytest.raises(ConfigError, match="working copy"):
        forget(
            CorpusLayout(one.root),
            LocalStorage(one.root),
            ["u"],
            reason="",
            run_id="r",
            erased_at=datetime.now(UTC),
        )


def test_a_manifest_has_one_publisher(machine: Attach, store: ObjectStore) -> None:
    one, other = machine("one"), machine("other")
    state = commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    other.refresh()
    for copy, text in ((one, b"one"), (other, b"other")):
        for name in ("manifest.parquet", "manifest.json"):
            LocalStorage(copy.root).put(f"manifests/m/{name}", text)
    share_manifest(one, one.root / "manifests/m", state.number)
    share_manifest(one, one.root / "manifests/m", state.number)
    with pytest.raises(Conflict, match="another manifest"):
        share_manifest(other, other.root / "manifests/m", state.number)
    third = machine("third")
    third.refresh()
    fetch_manifests(third)
    assert (third.root / "manifests/m/manifest.json").read_bytes() == b"one"


def test_a_seal_just_before_a_claim_is_seen(
    machine: Attach, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, cleaner = machine("one"), machine("cleaner")
    lanes.claim(one, "first")
    lane, refresh = one.link.lane, WorkingCopy.refresh

    def sealed_meanwhile(self: WorkingCopy) -> Snapshot:
        monkeypatch.setattr(WorkingCopy, "refresh", refresh)
        sweep(cleaner, stale_s=-1, run_id="r")
        return refresh(self)

    monkeypatch.setattr(WorkingCopy, "refresh", sealed_meanwhile)
    again = WorkingCopy(one.root, store)
    lanes.claim(again, "second")
    assert again.link.lane != lane


def test_a_sweep_leaves_what_is_uploaded_after_its_entry(
    machine: Attach, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer knows of the sweep and uploads; a third commits while the sweep lists: the upload is newer than the sweep."""
    one, writer, third = machine("one"), machine("writer"), machine("third")
    listing = ObjectStore.entries

    def entries(self: ObjectStore, prefix: str = "", *, after: str | None = None) -> Any:
        if prefix == "catalog" and not uploaded:
            uploaded.append("catalog/segments/part-2.parquet")
            store.put(uploaded[0], b"of the writer")
            commit(third, third.refresh(), "runs", row("runs", run_id="r"))
        return listing(self, prefix, after=after)

    uploaded: list[str] = []
    writer.refresh()
    monkeypatch.setattr(ObjectStore, "entries", entries)
    assert sweep(one, stale_s=1e9, run_id="r").keys == ()
    assert store.size(uploaded[0]) is not None


def test_a_bucket_that_went_back_is_noticed(machine: Attach, store: ObjectStore) -> None:
    one, other = machine("one"), machine("other")
    state = commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    state = commit(one, state, "segments", row("segments", uid="b", start=0))
    store.delete("catalog/_log/00000002.json")
    with pytest.raises(OtherHistory, match="commit 2"):
        one.refresh()
    newer = commit(other, other.refresh(), "segments", row("segments", uid="c", start=0))
    assert newer.number == 2
    with pytest.raises(OtherHistory, match="commit 2"):
        lanes.claim(one, "run")


def test_a_recovery_leaves_what_another_process_copies(machine: Attach) -> None:
    one, other = machine("one"), machine("other")
    state = commit(other, other.refresh(), "segments", row("segments", uid="a", start=0))
    (part,) = state.parts("segments")
    one.refresh()
    (
        one.root / snapshot.key_of(1)
    ).unlink()  # a reader has copied the part and not yet kept the state
    corpus, disk = CorpusLayout(one.root), LocalStorage(one.root)
    with (
        held_with_others(one.root / COPYING, lambda: None),
        writing(corpus, disk, always_recovers=True),
    ):
        assert (one.root / part.path).exists()
    (one.root / snapshot.key_of(1)).unlink()  # the end of a session brings it up to date
    with writing(corpus, disk, always_recovers=True):
        assert not (one.root / part.path).exists()


def test_files_of_a_lane_that_was_left_are_removed(machine: Attach, store: ObjectStore) -> None:
    one = machine("one")
    parent, path = lanes.claim(one, "run"), lane_path(one)
    store.put(path, b"of a stopped run")
    with pytest.raises(LaneLost):
        commit(one, parent, "artifacts", media(one, path, b"rows"))
    again = WorkingCopy(one.root, store)
    lanes.claim(again, "next")
    assert (again.link.lane, again.link.left) == ("lane-2", ("lane-1",))
    with writing(CorpusLayout(one.root), LocalStorage(one.root), always_recovers=True):
        assert not (one.root / path).exists()


def test_a_folder_made_before_the_corpus_takes_that_of_another_machine(
    machine: Attach, store: ObjectStore, tmp_path: Path
) -> None:
    """As a dry run leaves it: a link without a corpus."""
    early = attach(tmp_path / "early", str(store.uri), store, may_be_absent=True)
    assert (early.link.corpus_uid, store.list("")) == ("", [])
    machine("one")
    later = attach(tmp_path / "early", str(store.uri), store)
    assert later.link.corpus_uid == "uid-one"
    assert later.refresh().number == 0


def test_two_commands_may_make_one_working_copy(machine: Attach, tmp_path: Path) -> None:
    """The second of them finds what the first has made while the store was asked."""
    root, uri = tmp_path / "shared", str(machine("one").store.uri)

    class Slow(ObjectStore):
        def get(self, key: str, *, max_bytes: int) -> bytes:
            lanes.claim(attach(root, uri, ObjectStore(uri)), "first")
            return super().get(key, max_bytes=max_bytes)

    copy = attach(root, uri, Slow(uri))
    assert (copy.link.lane, copy.link.corpus_uid) == ("lane-1", "uid-one")


def test_a_stop_while_a_working_copy_is_made_is_completed(
    machine: Attach, store: ObjectStore
) -> None:
    one = machine("one")
    (one.root / "corpus.json").unlink()
    assert attach(one.root, str(store.uri), store).link.corpus_uid == "uid-one"
    assert (one.root / "corpus.json").is_file()


def test_logs_are_sent_once(
    machine: Attach, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = machine("one")
    LocalStorage(one.root).put("ledger/run-1.jsonl", b"{}")
    lanes.finish(one)
    sent: list[str] = []
    put_file = ObjectStore.put_file

    def sending(self: ObjectStore, key: str, path: Path) -> None:
        sent.append(key)
        put_file(self, key, path)

    monkeypatch.setattr(ObjectStore, "put_file", sending)
    LocalStorage(one.root).put("ledger/run-2.jsonl", b"{}")
    lanes.finish(one)
    assert sent == ["ledger/run-2.jsonl"]


@pytest.mark.parametrize(
    "path",
    [
        ".remote.json",
        "reviews/a.json",
        "corpus.json",
        "manifests/erased.json",
        "catalog/_snapshots/00000001.json",
        "datasets/toy/a/meta/info.json",
        "datasets/toy/a/data/../../../../.remote.json",
    ],
)
def test_only_files_of_a_corpus_are_copied(machine: Attach, store: ObjectStore, path: str) -> None:
    one = machine("one")
    before = (one.root / ".remote.json").read_bytes()
    with suppress(ConfigError):
        store.put(path, b"evil")
    digest = hashlib.sha256(b"evil").hexdigest()
    with pytest.raises(OutsideCorpus, match="not a"):
        one.fetch_files([CommittedFile(path, 4, digest)])
    assert (one.root / ".remote.json").read_bytes() == before


def test_logs_lose_what_was_erased_while_they_were_sent(
    machine: Attach, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machine("one"), machine("two")
    name, uid = "ledger/run-1.jsonl", str(UUID(int=7))
    LocalStorage(one.root).put(name, json.dumps({"uid": uid}).encode() + b"\n")
    put_file = ObjectStore.put_file

    def slow(self: ObjectStore, key: str, path: Path) -> None:
        if key == name:
            monkeypatch.undo()
            commit(two, two.refresh(), "tombstones", row("tombstones", uid=uid, files=[]))
        put_file(self, key, path)

    monkeypatch.setattr(ObjectStore, "put_file", slow)
    with writing(CorpusLayout(one.root), LocalStorage(one.root)):
        pass
    assert store.get(name, max_bytes=100) == b""


def test_a_catalog_file_that_is_gone_is_copied_again(machine: Attach) -> None:
    one = machine("one")
    state = commit(one, one.refresh(), "segments", row("segments", uid="a", start=0))
    (part,) = state.parts("segments")
    (one.root / part.path).unlink()
    assert uids(one.refresh(), one) == ["a"]


def test_a_pull_that_is_not_finished_commits_nothing(
    machine: Attach, store: ObjectStore, tmp_path: Path
) -> None:
    machine("one").refresh()
    pulled = attach(tmp_path / "pulled", str(store.uri), store, is_pull=True)
    with pytest.raises(ConfigError, match="has not finished"):
        commit(pulled, pulled.refresh(), "segments", row("segments", uid="a", start=0))
    with pytest.raises(ConfigError, match="has not finished"):
        lanes.claim(pulled, "run")


HOSTILE_FILES: dict[str, dict[str, Any]] = {
    "no path": {"path": None},
    "no size": {"num_bytes": None},
    "no digest": {"sha256": None},
    "the link": {"path": ".remote.json"},
    "a snapshot": {"path": "catalog/_snapshots/99999999.json"},
}


@pytest.mark.parametrize("case", HOSTILE_FILES)
def test_a_row_that_names_no_file_of_a_dataset_is_refused(machine: Attach, case: str) -> None:
    one = machine("one")
    good: dict[str, Any] = {
        "uid": "u",
        "kind": "data",
        "path": lane_path(one),
        "num_bytes": 1,
        "sha256": "0" * 64,
    }
    link = (one.root / LINK).read_bytes()
    bad = row("artifacts", **(good | HOSTILE_FILES[case]))
    part = write_part(LocalStorage(one.root), one.root, "artifacts", [bad])
    with pytest.raises(ConfigError):
        one.fetch(replace(one.refresh(), tables={"artifacts": (part,)}))
    assert (one.root / LINK).read_bytes() == link


def test_an_object_larger_than_committed_is_not_copied(machine: Attach, store: ObjectStore) -> None:
    one = machine("one")
    state = commit(one, lanes.claim(one, "run"), "artifacts", media(one, lane_path(one), b"rows"))
    store.put(lane_path(one), b"rows and more")
    with pytest.raises(SourceError, match="expected at most 4"):
        one.fetch(state)


def test_a_start_uses_a_checkpoint_that_is_newer_than_its_state(
    machine: Attach, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_log, "CHECKPOINT_EVERY", 5)
    one, other = machine("one"), machine("other")
    state = one.refresh()
    other.refresh()
    for number in range(12):
        state = commit(one, state, "segments", row("segments", uid=f"u{number}", start=0))
    asked: list[str] = []
    get = ObjectStore.get

    def asking(self: ObjectStore, key: str, *, max_bytes: int) -> bytes:
        asked.append(key)
        return get(self, key, max_bytes=max_bytes)

    monkeypatch.setattr(ObjectStore, "get", asking)
    assert other.refresh().number == 12
    numbers = sorted({int(key[-7:-5]) for key in asked if "_log" in key})
    assert numbers[:3] == [11, 12, 13]


def test_a_working_copy_keeps_the_states_that_something_needs(
    machine: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest, those of manifests, those that a command may have open. Every other is in the bucket, and comes when it is asked for."""
    one, other = machine("one"), machine("other")
    state = one.refresh()
    for number in range(1, 15):
        state = commit(one, state, "segments", row("segments", uid=f"u{number}", start=0))
        other.refresh()
        if number == 3:
            (other.root / "manifests/m").mkdir(parents=True)
            (other.root / "manifests/m/manifest.json").touch()
    monkeypatch.setattr(snapshot_list, "load_facts", lambda folder: SimpleNamespace(snapshot=3))
    other.refresh()
    assert snapshot.numbers(other.root) == [*range(1, 15)]  # all are young
    for number in range(1, 15):
        path, at_s = other.root / snapshot.key_of(number), 1e9 + 3600 * number
        os.utime(path, (at_s, at_s))
    merged = write_part(
        LocalStorage(one.root), one.root, "segments", [row("segments", uid="u", start=0)]
    )
    state = publishing.publish_tables(
        LocalStorage(one.root), one.root, state, {"segments": [merged]}, "compact"
    )
    other.refresh()
    kept = snapshot.numbers(other.root)
    assert kept == [3, *range(6, 16)]
    (only_of_5,) = set(snapshot.load(one.root, 5).parts("segments")) - set(
        snapshot.load(one.root, 4).parts("segments")
    )
    assert (other.root / only_of_5.path).exists()  # 6 to 14 name it too
    other.keep_state(5)
    assert uids(snapshot.load(other.root, 5), other) == [f"u{n}" for n in range(1, 6)]
    with pytest.raises(ConfigError, match="no snapshot 99"):
        other.keep_state(99)


def test_catalog_files_that_only_old_states_name_go_with_them(machine: Attach) -> None:
    one = machine("one")
    state, old = one.refresh(), list[Part]()
    for number in range(1, 14):
        part = write_part(
            LocalStorage(one.root),
            one.root,
            "segments",
            [row("segments", uid=f"u{number}", start=0)],
        )
        state = publishing.publish_tables(
            LocalStorage(one.root), one.root, state, {"segments": [part]}, "r"
        )
        old += state.parts("segments")
    pending = write_part(
        LocalStorage(one.root), one.root, "segments", [row("segments", uid="pending", start=0)]
    )
    for number in range(1, 14):
        os.utime(one.root / snapshot.key_of(number), (1e9 + 3600 * number,) * 2)
    lanes.claim(machine("other"), "run")
    one.refresh()
    assert snapshot.numbers(one.root) == [*range(5, 15)]
    assert [(one.root / part.path).exists() for part in old] == [False] * 4 + [True] * 9
    assert (one.root / pending.path).exists()  # of a writer at work here
    one.keep_state(2)
    assert uids(snapshot.load(one.root, 2), one) == ["u2"]


def test_a_bucket_without_its_corpus_is_told(machine: Attach, store: ObjectStore) -> None:
    """It was emptied, or restored to a time before the corpus."""
    copy = machine("one")
    store.delete_all(list(store.list("")))
    with pytest.raises(ConfigError, match="the corpus is gone"):
        copy.refresh()
