"""Workers that share no file system with the driver hand their episodes over in the bucket of the corpus."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest

from ingest.corpus import remote_staging, snapshot
from ingest.corpus.commit_log import Conflict
from ingest.corpus.remote_link import read_link
from ingest.corpus.remote_staging import RemoteStaging
from ingest.corpus.staging import STAGED, write_staged
from ingest.corpus.transfers import each_at_once
from ingest.corpus.working_copy import attach
from ingest.corpus.writer import complete
from ingest.executors.inline import InlineExecutor
from ingest.executors.node_proof import TRIES, SharedView, difference, is_answered
from ingest.maintenance.sweep import sweep
from ingest.pipeline import process as worker
from ingest.pipeline import run as loop
from ingest.pipeline.plan import Request
from ingest.recipe import Limits, Recipe
from ingest.storage import process_folder as folders
from ingest.storage.local import LocalStorage
from ingest.storage.object_store import ObjectStore
from ingest.storage.open_store import probe_copies
from ingest.verify.digest import digest
from jobs.stages.ingest import IngestResult, run_ingest
from schemas.catalog_rows import EpisodeFacts
from schemas.errors import ConfigError, TransientError, UnknownOutcome
from schemas.outcome import Outcome, StagedEpisode, State
from tests.faults.runs import TOY, run
from tests.faults.toy import write_toy


class Far(InlineExecutor):
    """Workers of another machine, in this process."""

    name = "far"

    def share(self, view: Any, is_doubtful: Any) -> None:
        self.view = view

    def expect(self, num_work: int) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def store(request: pytest.FixtureRequest) -> ObjectStore:
    return ObjectStore(f"memory://{abs(hash(request.node.nodeid))}/c")


def outcome_of(video: bytes, uid: str = "u") -> Outcome:
    facts = EpisodeFacts(**dict.fromkeys(EpisodeFacts.__slots__) | {"uid": uid})
    staged = StagedEpisode(
        group="datasets/s/b",
        robot_type="r",
        features={},
        spec=[],
        episode=facts,
        segments=[],
        measurements=[],
        stats={},
        videos=[
            {
                "camera": "c",
                "name": "c.mp4",
                "num_bytes": len(video),
                "sha256": hashlib.sha256(video).hexdigest(),
                "num_frames": 1,
                "stats": {},
            }
        ],
    )
    return Outcome(uid=uid, state=State.STAGED, num_frames=1, staged=staged)


def staged(folder: Path, video: bytes) -> Outcome:
    outcome = outcome_of(video)
    folder.mkdir()
    (folder / "c.mp4").write_bytes(video)
    write_staged(folder, pa.table({"a": [1]}), outcome, LocalStorage(folder.parent))
    return outcome


def test_what_a_worker_hands_over_another_one_finds(store: ObjectStore, tmp_path: Path) -> None:
    remote = RemoteStaging(store, "u.digest")
    assert remote.before() is None
    outcome = staged(tmp_path / "one", b"video")
    assert remote.upload(tmp_path / "one", outcome) == outcome
    assert remote.before() == outcome
    remote.fetch_rows(tmp_path / "rows", outcome, LocalStorage(tmp_path))
    assert (tmp_path / "rows" / STAGED).read_bytes() == (tmp_path / "one" / STAGED).read_bytes()
    remote.remove(outcome)
    assert store.list("") == []


def test_of_two_attempts_the_first_counts(store: ObjectStore, tmp_path: Path) -> None:
    """Also where the bytes differ, as those of another version of a library may."""
    remote = RemoteStaging(store, "u.digest")
    first = remote.upload(tmp_path / "one", staged(tmp_path / "one", b"video"))
    other = staged(tmp_path / "two", b"other video")
    assert remote.upload(tmp_path / "two", other) == first != other


def test_an_attempt_whose_videos_are_gone_is_replaced(store: ObjectStore, tmp_path: Path) -> None:
    remote = RemoteStaging(store, "u.digest")
    first = remote.upload(tmp_path / "one", staged(tmp_path / "one", b"video"))
    store.delete(remote.video(first.staged.videos[0]))  # type: ignore[union-attr]
    assert remote.before() is None
    other = staged(tmp_path / "two", b"other video")
    assert remote.upload(tmp_path / "two", other) == other == remote.before()
    with pytest.raises(Conflict):
        remote.fetch_rows(tmp_path / "rows", first, LocalStorage(tmp_path))


@pytest.mark.parametrize("bytes_of", [b"", b"no arrow", b"ARROW1\0\0"])
def test_damaged_rows_are_replaced(store: ObjectStore, tmp_path: Path, bytes_of: bytes) -> None:
    remote = RemoteStaging(store, "u.digest")
    store.put(f"staging/u.digest/{STAGED}", bytes_of)
    outcome = staged(tmp_path / "one", b"video")
    with pytest.raises(Conflict):
        remote.fetch_rows(tmp_path / "rows", outcome, LocalStorage(tmp_path))
    assert remote.upload(tmp_path / "one", outcome) == outcome


class Mute(ObjectStore):
    """A store whose answers to the first creates and copies get lost."""

    lost = 0

    def create(self, key: str, data: bytes) -> bool:
        return self._unheard(lambda: super(Mute, self).create(key, data))

    def create_copy(self, source_key: str, target_key: str) -> bool:
        return self._unheard(lambda: super(Mute, self).create_copy(source_key, target_key))

    def _unheard(self, act: Callable[[], bool]) -> bool:
        done = act()
        if self.lost:
            self.lost -= 1
            raise UnknownOutcome("no answer")
        return done


def test_a_lost_answer_is_read_back(store: ObjectStore, tmp_path: Path) -> None:
    mute = Mute(store.uri)
    mute.lost = 1
    outcome = staged(tmp_path / "one", b"video")
    assert RemoteStaging(mute, "u.digest").upload(tmp_path / "one", outcome) == outcome
    mute.lost = remote_staging.MOST_TRIES
    with pytest.raises(TransientError):
        RemoteStaging(mute, "v.digest").upload(tmp_path / "one", outcome)


class Careless(ObjectStore):
    def create_copy(self, source_key: str, target_key: str) -> bool:
        self.copy(source_key, target_key)
        return True


def test_a_store_whose_copies_replace_is_refused(store: ObjectStore) -> None:
    probe_copies(store, "staging")
    with pytest.raises(ConfigError, match="by a copy"):
        probe_copies(Careless(store.uri), "staging")
    assert store.list("") == []


def test_a_probe_that_a_sweep_removes_is_tried_again(store: ObjectStore) -> None:
    class Swept(ObjectStore):
        def create_copy(self, source_key: str, target_key: str) -> bool:
            self.delete(source_key)
            return super().create_copy(source_key, target_key)

    with pytest.raises(TransientError, match="has removed"):
        probe_copies(Swept(store.uri), "staging")


# --- whole runs -------------------------------------------------------------------------------------------------------

KINDS = {"a": "good", "b": "quarantine", "c": "good", "d": "short", "e": "good"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", KINDS)


@pytest.fixture
def out(tmp_path: Path, store: ObjectStore) -> Iterator[Path]:
    worker._store_of.cache_clear()
    folder = tmp_path / "copy"
    attach(folder, str(store.uri), store, may_be_absent=True)
    yield folder
    worker._store_of.cache_clear()


def ingest(raw: Path, out: Path, executor: Any = None) -> IngestResult:
    request = Request(source=TOY, root=raw, options={}, recipe=Recipe())
    limits = Limits(max_quarantined_ratio=1.0)
    return run_ingest(request, out, executor or Far(), limits, pause=lambda s: None)


def left(store: ObjectStore) -> list[str]:
    return [key for key in store.list("staging") if not key.endswith(".lock")]


def videos(store: ObjectStore, out: Path) -> list[str]:
    """Paths of the committed videos. Each is in the bucket with the bytes that its row says."""
    current = snapshot.load(out)
    rows = current.read(out, "artifacts", ["kind", "path", "sha256"]).to_pylist()
    found = [row for row in rows if row["kind"] == "video"]
    for row in found:
        data = store.get(row["path"], max_bytes=1 << 20)
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
    return [row["path"] for row in found]


def test_workers_without_the_folder_of_the_driver_give_the_same_corpus(
    raw: Path, out: Path, store: ObjectStore, tmp_path: Path
) -> None:
    done = ingest(raw, out)
    assert (done.tally.committed, done.tally.quarantined, done.tally.filtered) == (3, 1, 1)
    assert len(videos(store, out)) == 3
    assert left(store) == []
    assert not [path for path in (out / "staging").iterdir() if not path.name.startswith(".")]
    assert not [*out.rglob("*.mp4")]
    run(raw, tmp_path / "local")
    complete(attach(out, str(store.uri), store), snapshot.load(out))
    assert digest(out) == digest(tmp_path / "local")


def test_what_was_handed_over_before_a_stop_is_not_made_again(
    raw: Path, out: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = loop.Committer.flush

    def stopped(self: Any, extra: Any = ()) -> Any:
        raise TransientError("the store does not answer")

    monkeypatch.setattr(loop.Committer, "flush", stopped)
    with pytest.raises(TransientError):
        ingest(raw, out)
    assert len([key for key in left(store) if key.endswith(STAGED)]) == 3
    monkeypatch.setattr(loop.Committer, "flush", commit)
    monkeypatch.setattr(worker, "adapter_for", lambda name: pytest.fail("made again"))
    (raw / "episodes.json").write_text('{"a": "good", "c": "good", "e": "good"}')
    assert ingest(raw, out).tally.committed == 3
    assert len(videos(store, out)) == 3
    assert left(store) == []


@pytest.mark.parametrize("what", [STAGED, ".mp4"])
def test_what_gc_takes_away_before_the_commit_is_made_again(
    raw: Path, out: Path, store: ObjectStore, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, taken = loop.Committer.flush, []

    def late(self: Any, extra: Any = ()) -> Any:
        if not taken and self.pending:
            taken.extend(key for key in left(store) if key.endswith(what))
            store.delete_all(taken)
        return flush(self, extra)

    monkeypatch.setattr(loop.Committer, "flush", late)
    assert ingest(raw, out).tally.committed == 3
    assert len(taken) == 3
    assert len(videos(store, out)) == 3


def test_outcomes_that_wait_need_no_memory(
    raw: Path, out: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MAX_IN_MEMORY", 0)

    class Backwards(Far):
        def run(self, next_work: Any, body: Any) -> Any:
            ended = [*super().run(next_work, body)]
            yield from reversed(ended)

    assert ingest(raw, out, Backwards()).tally.committed == 3
    assert len(videos(store, out)) == 3


def test_lost_answers_to_copies_are_looked_up(
    raw: Path, out: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = Mute(store.uri)

    class Unsure(Far):
        def share(self, view: Any, is_doubtful: Any) -> None:
            mute.lost = 5  # from here on

    monkeypatch.setattr("ingest.corpus.publishing.store_of", lambda uri: mute)
    assert ingest(raw, out, Unsure()).tally.committed == 3
    assert len(videos(store, out)) == 3


def test_a_copy_replaces_nothing_that_a_stopped_run_left(
    raw: Path, out: Path, store: ObjectStore
) -> None:
    """Its late request may have made the object, and a commit that nobody knows of yet may name it."""
    ingest(raw, out)
    [*_, last] = sorted(videos(store, out))
    following = last.replace("_000002.", "_000003.")
    store.put(following, b"of a stopped run")
    (raw / "episodes.json").write_text('{"a": "good", "c": "good", "e": "good", "f": "good"}')
    assert ingest(raw, out).tally.committed == 4  # the new one in another lane
    assert store.get(following, max_bytes=100) == b"of a stopped run"
    assert len(videos(store, out)) == 4


def test_gc_removes_what_is_left_of_committed_episodes_and_what_is_old(
    raw: Path, out: Path, store: ObjectStore
) -> None:
    ingest(raw, out)
    uid = snapshot.load(out).read(out, "episodes", ["uid"])["uid"][0].as_py()
    for key in (f"staging/{uid}.d/x.mp4", "staging/other.d/x.mp4", "staging/.nodes.1/nonce"):
        store.put(key, b"x")
    copy = attach(out, str(store.uri), store)
    swept = sweep(copy, stale_s=1000, run_id="gc")
    assert [key for key in swept.keys if key.startswith("staging/")] == [f"staging/{uid}.d/x.mp4"]
    sweep(copy, stale_s=-1, run_id="gc")
    assert left(store) == ["staging/.nodes.1/nonce"]  # a run of weeks may still need it


def test_a_dry_run_of_gc_goes_by_the_clock(raw: Path, out: Path, store: ObjectStore) -> None:
    """The last commit may be of last week."""
    ingest(raw, out)
    store.put("staging/other.d/x.mp4", b"x")
    copy = attach(out, str(store.uri), store)
    options: dict[str, Any] = {"stale_s": 3600.0, "run_id": "gc", "dry_run": True}
    assert sweep(copy, **options).keys == ()
    later = sweep(copy, now_s=time.time() + 7200, **options)
    assert (len(later.sealed), later.keys) == (1, ("staging/other.d/x.mp4",))


def test_a_stranger_in_the_bucket_is_no_staged_episode(store: ObjectStore, tmp_path: Path) -> None:
    """Of another uid, of no state of staging, or with names that lead elsewhere: the work is done again."""
    remote, outcome = RemoteStaging(store, "u.digest"), staged(tmp_path / "one", b"video")
    assert outcome.staged is not None
    other = replace(outcome.staged, episode=replace(outcome.staged.episode, uid="w"))
    video = {**outcome.staged.videos[0], "camera": "../../x"}
    for number, wrong in enumerate(
        [
            replace(outcome, uid="w"),
            replace(outcome, staged=other),
            replace(outcome, state=State.COMMITTED, staged=None),
            replace(outcome, staged=replace(outcome.staged, group="datasets/../x")),
            replace(outcome, staged=replace(outcome.staged, videos=[video])),
            replace(outcome, staged=replace(outcome.staged, videos=["c"])),
        ]
    ):
        folder = tmp_path / f"wrong-{number}"
        folder.mkdir()
        write_staged(folder, pa.table({"a": [1]}), wrong, LocalStorage(tmp_path))
        store.put(f"staging/u.digest/{STAGED}", (folder / STAGED).read_bytes())
        assert remote.before() is None, wrong
        with pytest.raises(Conflict):
            remote.fetch_rows(tmp_path / "rows", wrong, LocalStorage(tmp_path))
    assert remote.upload(tmp_path / "one", outcome) == outcome


def test_a_failed_upload_leaves_nothing_on_the_node(
    raw: Path, out: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: RemoteStaging, folder: Path, outcome: Outcome) -> Outcome:
        raise TransientError("the store does not answer")

    monkeypatch.setattr(RemoteStaging, "upload", silent)
    assert ingest(raw, out).tally.failed == 3
    assert not [*(out / "staging").rglob("*.mp4")]


def test_of_many_transfers_none_begins_after_an_error() -> None:
    begun: list[int] = []

    def transfer(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise TransientError("the store does not answer")
        time.sleep(0.01)

    with pytest.raises(TransientError):
        each_at_once(transfer, range(2000))
    assert len(begun) < 1000


@pytest.mark.parametrize("lost", [1, TRIES - 1])
def test_an_answer_of_a_node_is_sent_again(store: ObjectStore, lost: int, tmp_path: Path) -> None:
    class Losing(ObjectStore):
        def create(self, key: str, data: bytes) -> bool:
            nonlocal lost
            if lost:
                lost -= 1
                raise UnknownOutcome("the request got lost")
            return super().create(key, data)

    view = SharedView(
        folder=str(tmp_path), nonce="7", bucket=str(store.uri), key="staging/.nodes.1"
    )
    store.put("staging/.nodes.1/nonce", b"7")
    with mock.patch("ingest.corpus.publishing.store_of", return_value=Losing(store.uri)):
        assert difference(view, "node") == ""
        assert is_answered(view, "node")


def test_a_folder_of_an_ended_process_is_removed_and_its_last_words_stay(tmp_path: Path) -> None:
    folders._folder_of.cache_clear()
    own = folders.process_folder(tmp_path)
    assert folders.process_folder(tmp_path) == own
    dead = tmp_path / f"{folders.PREFIX}dead"
    dead.mkdir()
    (dead / "watch.1").write_text("crash")
    (dead / "half").mkdir()
    (dead / "half" / "video.mp4").write_bytes(b"x" * 100)
    Path(f"{dead}.lock").touch()
    os.utime(f"{dead}.lock", (0, 0))  # it worked for days
    folders._folder_of(tmp_path, -1)  # of another process
    assert own.is_dir()
    assert [path.name for path in dead.iterdir()] == ["watch.1"]
    folders.KEPT_S, before = -1.0, folders.KEPT_S
    try:
        folders._folder_of(tmp_path, -2)
    finally:
        folders.KEPT_S = before
    assert own.is_dir()
    assert not dead.exists()
    assert not Path(f"{dead}.lock").exists()


def test_the_link_decides_who_uploads(raw: Path, tmp_path: Path) -> None:
    """A corpus of this machine alone: workers of a cluster use its folder."""
    assert run(raw, tmp_path / "local", executor=Far()).committed == 3
    assert read_link(tmp_path / "local") is None


def test_another_outcome_of_the_same_name_is_not_committed(
    store: ObjectStore, tmp_path: Path
) -> None:
    remote = RemoteStaging(store, "u.digest")
    outcome = remote.upload(tmp_path / "one", staged(tmp_path / "one", b"video"))
    with pytest.raises(Conflict):
        remote.fetch_rows(tmp_path / "rows", replace(outcome, num_frames=2), LocalStorage(tmp_path))
