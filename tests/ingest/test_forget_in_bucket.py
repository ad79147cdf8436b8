"""`eicorpus forget` of a corpus in a bucket: no object says anything of the episode, whoever stops or commits meanwhile."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.synthetic import write_part
from ingest.corpus import bucket_commit, commit_log, lanes, publishing, snapshot
from ingest.corpus.commit_log import CommitLog, Conflict, LaneLost, LogEntry
from ingest.corpus.erasure_page import FOLDER, unfinished_erasures
from ingest.corpus.layout import CorpusLayout, open_or_create
from ingest.corpus.shared_manifests import fetch_manifests, share_manifest
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.working_copy import WorkingCopy, attach
from ingest.corpus.writer import complete, writing
from ingest.executors.inline import InlineExecutor
from ingest.maintenance.erase_bucket import finish_erasures, forget_in_bucket
from ingest.maintenance.sweep import sweep
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.verify.corpus import verify
from schemas.errors import ConfigError, TransientError
from tests.curation.lifecycle_corpus import (
    LATENT,
    annotate,
    filled,
    merge,
    publish_manifest,
    rows_of,
    uids,
)
from tests.faults.runs import run
from tests.faults.toy import write_toy

AT = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
EPISODES = dict.fromkeys("ace", "fine")


class Stopped(Exception):
    """The process died."""


class Dying(ObjectStore):
    """Changes `left` objects, and then none. `names`: every key that it has changed."""

    left = 1 << 30
    names: list[str]

    def _change(self, key: str) -> None:
        if self.left <= 0:
            raise Stopped
        self.left -= 1
        self.names.append(key)

    def put(self, key: str, data: bytes, *, is_durable: bool = False) -> None:
        self._change(key)
        super().put(key, data, is_durable=is_durable)

    def create(self, key: str, data: bytes) -> bool:
        self._change(key)
        return super().create(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self._change(key)
        super().put_file(key, path)

    def copy(self, source_key: str, target_key: str) -> None:
        self._change(target_key)
        super().copy(source_key, target_key)

    def delete(self, key: str) -> None:
        self._change(key)
        super().delete(key)


@dataclass
class World:
    """A bucket, and machines by name."""

    folder: Path
    uri: str
    needles: list[bytes] = field(default_factory=list)
    uid: str = ""

    @property
    def store(self) -> Dying:
        store = Dying(self.uri)
        store.names = []
        return store

    def machine(self, name: str, store: Dying | None = None) -> WorkingCopy:
        return attach(
            self.folder / name, self.uri, store or self.store, may_be_absent=name == "one"
        )

    def forget(
        self, name: str = "one", *, of: str = "c", run_id: str = "erasure", left: int = 1 << 30
    ) -> tuple[Snapshot, Dying]:
        store = self.store
        store.left = left
        copy = self.machine(name, store)
        copy.refresh()
        disk = LocalStorage(copy.root)
        uid = self.uid if of == "c" else uids(copy.root)[of]
        with writing(CorpusLayout(copy.root), disk, block_recovers=True):
            _, state = forget_in_bucket(
                copy, disk, [uid], reason="asked", run_id=run_id, erased_at=AT
            )
        return state, store

    def objects(self) -> dict[str, bytes]:
        return {key: self.store.get(key, max_bytes=1 << 26) for key in self.store.list("")}

    def told(self) -> dict[str, list[bytes]]:
        """Object -> the needles that are in it, but for tombstones."""
        found = {}
        for key, data in self.objects().items():
            if "/tombstones/" not in key and (
                there := [n for n in self.needles if n in said(key, data)]
            ):
                found[key] = there
        return found


def said(key: str, data: bytes) -> bytes:
    """The bytes of an object; of Parquet also what they say when unpacked."""
    if key.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data))
        data += repr((table.schema.metadata, table.to_pylist())).encode()
    return data


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three episodes in the lane of one machine, with rows in every table, compacted once, a manifest and logs."""
    world = World(folder=tmp_path, uri=f"memory://{abs(hash(request.node.nodeid))}/c")
    monkeypatch.setattr(commit_log, "CHECKPOINT_EVERY", 4)
    one = world.machine("one")
    disk = LocalStorage(one.root)
    open_or_create(one.root, uid="corpus", recipe_digest="", disk=disk)
    lanes.claim(one, "first")
    run(write_toy(tmp_path / "raw", EPISODES), one.root, run_id="first")
    one.refresh()
    annotate(one.root, uids(one.root), "curation-1")
    merge(one.root, disk, "compact")
    folder = publish_manifest(one.root)
    share_manifest(one, folder, snapshot.load(one.root).number)
    (one.root / "ledger").mkdir(exist_ok=True)
    world.uid = uids(one.root)["c"]
    (one.root / "ledger/first.jsonl").write_text(
        f"{json.dumps({'uid': world.uid, 'state': 'committed'})}\n{json.dumps({'uid': 'x'})}\n"
    )
    with writing(CorpusLayout(one.root), disk, always_recovers=True):
        pass
    [row] = [row for row in rows_of(one.root, "episodes") if row["uid"] == world.uid]
    files = [row for row in rows_of(one.root, "artifacts") if row["uid"] == world.uid]
    [video] = [world.store.get(f["path"], max_bytes=1 << 26) for f in files if f["kind"] == "video"]
    world.store.put(f"staging/{world.uid}.d/of-a-late-worker.mp4", video)
    words = ["do c", "secret words of c", row["content_sha256"], *(f["sha256"] for f in files)]
    world.needles = [world.uid.encode(), *(word.encode() for word in words), video[-400:-300]]
    world.needles.append(LATENT % row["episode_index"])
    there = b"".join(said(*each) for each in world.objects().items())
    assert all(needle in there for needle in world.needles)
    return world


def check(world: World, *, machine: str = "later", episodes: int = 2) -> WorkingCopy:
    """Nothing tells of the episode, nothing is left of the work, and the corpus is whole on another machine."""
    assert world.told() == {}
    assert world.store.list(FOLDER) == []
    assert world.store.list("staging") == []
    copy = world.machine(machine)
    complete(copy, copy.refresh())
    assert verify(copy.root, deep=True) == []
    assert len(rows_of(copy.root, "episodes")) == episodes
    return copy


def test_no_object_says_anything_of_the_episode_but_its_tombstone(world: World) -> None:
    one = world.machine("one")
    newest = one.refresh().number
    before = {}
    for number in range(1, newest + 1):
        one.keep_state(number)
        before[number] = {row["uid"] for row in rows_of(one.root, "verdicts", number)}
    state, _ = world.forget()
    assert state.number == newest + 2  # the lane is sealed first
    later = check(world)
    for number in range(1, newest + 1):
        later.keep_state(number)
        there_now = {row["uid"] for row in rows_of(later.root, "verdicts", number)}
        assert there_now == before[number] - {world.uid}, number
        buried = [row["uid"] for row in rows_of(later.root, "tombstones", number)]
        assert buried == ([world.uid] if world.uid in before[number] else []), number
    fetch_manifests(later)
    rows = pq.read_table(later.root / "manifests/m/manifest.parquet").to_pylist()
    assert len(rows) == 2
    for path in (world.folder / "one").rglob("*"):
        if path.is_file() and "tombstones" not in path.parts:
            heard = said(path.name, path.read_bytes())
            assert [n for n in world.needles if n in heard] == [], path


def test_a_second_erasure_in_the_same_dataset(world: World) -> None:
    world.forget()
    world.forget("two", of="a", run_id="again")
    later = check(world, episodes=1)
    for number in range(1, later.refresh().number + 1):
        later.keep_state(number)
        assert world.uid not in {row["uid"] for row in rows_of(later.root, "episodes", number)}
        pinned = [row for row in rows_of(later.root, "artifacts", number) if row["kind"] == "tasks"]
        assert len(pinned) == bool(rows_of(later.root, "tombstones", number)), number


def test_what_was_forgotten_before_is_forgotten(world: World) -> None:
    state, _ = world.forget()
    again, _ = world.forget("two", run_id="again")
    assert again.number == state.number
    copy = world.machine("two")
    with pytest.raises(ConfigError, match="no episode"):
        forget_in_bucket(copy, LocalStorage(copy.root), ["x"], reason="", run_id="r", erased_at=AT)


@pytest.mark.slow
def test_a_stop_after_any_change_is_finished_by_another_machine(
    world: World, tmp_path: Path
) -> None:
    """Each change of an object is the last of a process once. All begin with the same bucket."""
    begin = world.objects()
    _, whole = world.forget("whole")
    changes = len(whole.names)
    assert changes > 20
    entry = next(
        n for n, key in enumerate(whole.names) if key.startswith("catalog/_log/") and n > 2
    )
    for left in (*range(0, entry, 4), *range(entry, changes, 2)):
        for key in world.store.list(""):
            world.store.delete(key)
        for key, data in begin.items():
            world.store.put(key, data)
        with pytest.raises(Stopped):
            world.forget(f"stopped-{left}", left=left)
        world.forget(f"other-{left}", run_id=f"other-{left}")
        assert world.told() == {}, left
        if left in (entry, entry + 1, changes - 1) or left % 8 == 0:
            copy = world.machine(f"later-{left}")
            complete(copy, copy.refresh())
            assert verify(copy.root) == [], left


def test_a_commit_of_another_machine_meanwhile_stays_and_is_erased_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the number of the erasure, with a row of the episode: the erasure is worked out anew."""
    append, done = CommitLog.append, list[LogEntry]()

    def slower(self: CommitLog, entry: LogEntry) -> LogEntry:
        if entry.kind == "erase" and not done:
            done.append(entry)
            measured(world.machine("other"), [world.uid, "u2"])
        return append(self, entry)

    monkeypatch.setattr(CommitLog, "append", slower)
    world.forget()
    assert len(done) == 1
    assert world.told() == {}
    later = world.machine("later")
    later.refresh()
    assert "u2" in {row["uid"] for row in rows_of(later.root, "measurements")}


def measured(copy: WorkingCopy, of: list[str], parent: Snapshot | None = None) -> Snapshot:
    parent = copy.refresh() if parent is None else parent
    rows = [filled("measurements", {"uid": uid, "name": "n", "version": 1}) for uid in of]
    part = write_part(LocalStorage(copy.root), copy.root, "measurements", rows)
    return publishing.publish(
        LocalStorage(copy.root), copy.root, parent, {"measurements": part}, "m"
    )


def test_rows_of_an_erased_episode_do_not_come_back(world: World) -> None:
    """Another machine has worked on the episode since before the erasure; so has a session that would add episodes to its lane."""
    other, one = world.machine("other"), world.machine("one")
    before = other.refresh()
    parent = lanes.claim(one, "again")
    world.forget("cleaner")
    with pytest.raises(Conflict, match="erased"):
        measured(other, [world.uid], before)
    with pytest.raises(LaneLost):
        bucket_commit.behind(one, parent)
    lanes.finish(one)  # neither its logs nor its `meta/` come back
    check(world)


def test_an_episode_that_was_committed_and_erased_meanwhile_is_left_out(
    world: World, tmp_path: Path
) -> None:
    """A session has planned it before another machine committed it."""
    raw = write_toy(tmp_path / "more", {"g": "fine", "y": "fine"})
    slow = world.machine("slow")
    lanes.claim(slow, "slow")

    class Meanwhile(InlineExecutor):
        def run(self, next_work: Any, body: Any) -> Iterator[Any]:
            fast = world.machine("fast")
            lanes.claim(fast, "fast")
            run(write_toy(tmp_path / "only", {"g": "fine"}), fast.root, run_id="fast")
            world.forget("cleaner", of="g", run_id="of g")
            yield from super().run(next_work, body)

    run(raw, slow.root, run_id="slow", executor=Meanwhile())
    later = world.machine("later")
    later.refresh()
    ids = [row["episode_id"] for row in rows_of(later.root, "episodes")]
    assert sorted(ids) == ["a", "c", "e", "y"]


def test_other_machines_lose_their_copies(world: World) -> None:
    other = world.machine("other")
    complete(other, other.refresh())
    fetch_manifests(other)
    world.forget("cleaner")
    other.refresh()
    fetch_manifests(other)
    for path in other.root.rglob("*"):
        if path.is_file() and "tombstones" not in path.parts:
            heard = said(path.name, path.read_bytes())
            assert [n for n in world.needles if n in heard] == [], path
    complete(other, other.refresh())
    assert verify(other.root) == []


def test_a_sweep_keeps_the_places_and_removes_what_came_late(world: World) -> None:
    latents = [
        key for key in world.store.list("datasets") if "/latents/" in key and "000001" in key
    ]
    data = world.store.get(latents[0], max_bytes=1 << 20)
    parts = world.store.list("catalog/episodes")
    old = {key: world.store.get(key, max_bytes=1 << 20) for key in parts}
    world.forget()
    world.store.put(latents[0], data)  # of a command that had encoded the episode
    gone = [key for key in parts if world.store.size(key) is None]
    for key in gone:
        world.store.put(key, old[key])  # a request that was carried out late
    assert gone
    assert world.told()
    one = world.machine("one")
    sweep(one, stale_s=1e9, run_id="sweep")
    check(world)


def test_an_erasure_that_can_still_be_committed_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: CommitLog, entry: LogEntry) -> LogEntry:
        if entry.kind == "erase":
            raise TransientError("no answer")
        return append(self, entry)

    append = CommitLog.append
    monkeypatch.setattr(CommitLog, "append", lost)
    with pytest.raises(TransientError):
        world.forget()
    monkeypatch.undo()
    staged = world.store.list(FOLDER)
    assert staged
    other = world.machine("other")
    other.refresh()
    disk = LocalStorage(other.root)
    assert finish_erasures(other, disk) == []
    assert world.store.list(FOLDER) == staged
    measured(other, ["u2"])  # takes its number
    assert unfinished_erasures(other) == []
    finish_erasures(other, disk)
    assert world.store.list(FOLDER) == []
    assert world.told()


def test_a_page_of_a_stranger_writes_nowhere(world: World) -> None:
    world.forget()
    one = world.machine("one")
    one.refresh()
    [number] = [e.number for e in one.log.after(0) if e.kind == "erase"]
    commit_id = one.log.entry(number).commit_id  # type: ignore[union-attr]
    page: dict[str, Any] = {"number": number, "run_id": "erasure", "packs": []}
    page["files"] = {"000000.parquet": "corpus.json"}
    world.store.put(f"{FOLDER}/{commit_id}/page.json", json.dumps(page).encode())
    with pytest.raises(ConfigError, match=r"corpus\.json"):
        finish_erasures(one, LocalStorage(one.root))


@pytest.mark.parametrize(
    "pack", ["reviews/a.json", ".remote.json", "datasets/toy/a/latents/e/p.tar"]
)
def test_a_page_of_a_stranger_removes_nothing(world: World, pack: str) -> None:
    world.forget()
    one = world.machine("one")
    one.refresh()
    [number] = [e.number for e in one.log.after(0) if e.kind == "erase"]
    commit_id = one.log.entry(number).commit_id  # type: ignore[union-attr]
    page: dict[str, Any] = {"number": number, "run_id": "erasure", "packs": [pack], "files": {}}
    world.store.put(f"{FOLDER}/{commit_id}/page.json", json.dumps(page).encode())
    kept = one.root / pack
    kept.parent.mkdir(parents=True, exist_ok=True)
    before = kept.read_bytes() if kept.exists() else b"a review"
    kept.write_bytes(before)
    with pytest.raises(ConfigError, match="has the pack"):
        finish_erasures(one, LocalStorage(one.root))
    assert kept.read_bytes() == before


@pytest.mark.parametrize("room", ["ledger/", "manifests/m/manifest.parquet"])
def test_a_slow_erasure_does_not_undo_one_that_ends_meanwhile(world: World, room: str) -> None:
    """It has read an object, another erases an episode of it, and then it puts what it has made of what it read."""
    other = world.machine("other")
    other.refresh()
    second = uids(other.root)["a"]
    line = f"{json.dumps({'uid': second})}\n{json.dumps({'uid': world.uid})}\n"
    world.store.put("ledger/first.jsonl", line.encode())
    done = list[str]()

    class Slow(Dying):
        def _change(self, key: str) -> None:
            if key.startswith(room) and not done:
                done.append(key)
                world.forget("other", of="a", run_id="meanwhile")
            super()._change(key)

    slow = Slow(world.uri)
    slow.names = []
    one = world.machine("slow", slow)
    one.refresh()
    disk = LocalStorage(one.root)
    with writing(CorpusLayout(one.root), disk, block_recovers=True):
        forget_in_bucket(one, disk, [world.uid], reason="", run_id="slow", erased_at=AT)
    assert done
    world.needles.append(second.encode())
    check(world, episodes=1)
