"""Reviews: rows that cannot be broken, a journal that loses and doubles nothing, and what erasing, verifying and old corpora make of them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from ingest.catalog.catalog import Catalog
from ingest.corpus import publishing, review_journal, reviews, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.review_journal import FOLDER
from ingest.corpus.reviews import NoSuchPlace, OtherReview, read, submit
from ingest.corpus.writer import writing
from ingest.maintenance.compact import compact, plan_merges
from ingest.maintenance.erase import forget
from ingest.storage import lock_file, unsynced
from ingest.storage.file_system import FileSystem
from ingest.storage.local import LocalStorage
from ingest.verify.corpus import verify
from ingest.verify.digest import digest
from schemas.catalog import TABLES
from schemas.errors import ConfigError, TransientError
from schemas.review import MAX_TEXT, Review, utc_time
from tests.curation.lifecycle_corpus import build, uids
from tests.faults.runs import tree

AT = datetime(2026, 2, 3, 4, 5, tzinfo=UTC)
HOSTILE = (
    "<img src=x onerror=alert(1)>\u202e'; DROP TABLE reviews; --\n\x1b[31m\x00\U0001f600=cmd()"
)


def review(number: int, uid: str = "u", **fields: Any) -> Review:
    """The same number is the same review."""
    row = {
        "review_id": str(UUID(int=number)),
        "uid": uid,
        "start": None,
        "end": None,
        "kind": "note",
        "value": "odd",
        "author": "Ada",
        "at": AT + timedelta(seconds=number),
        "snapshot": 0,
        "supersedes": None,
    }
    return Review(**row | fields)


BROKEN: dict[str, list[Any]] = {
    "review_id": ["", "not a uuid", str(UUID(int=1)).upper().replace("0", "A"), 3],
    "supersedes": ["", "x", str(UUID(int=1))],
    "uid": ["", None, "u" * 101],
    "kind": ["", "Note", "delete"],
    "author": ["", "a\nb", "a" * 101, "\u202e", None],
    "at": [None, "2026-01-01", datetime(2026, 1, 1), AT.astimezone(timezone(timedelta(hours=1)))],  # noqa: DTZ001
    "snapshot": [-1, 1.0, True, None],
    "start": [0, -1],
    "value": ["", "  \n", None, "x" * (MAX_TEXT + 1), "\ud800"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BROKEN.items() for value in values]
)
def test_a_broken_review_cannot_be_made(name: str, value: Any) -> None:
    assert replace(review(1)) == review(1)
    with pytest.raises(ValueError, match=name):
        review(1, **{name: value})


@pytest.mark.parametrize("place", [(3, 3), (4, 3), (-1, 3), (0, 1 << 27), (0.0, 3)])
def test_a_place_is_timesteps_in_order(place: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="start and end"):
        review(1, start=place[0], end=place[1])


def test_a_tier_is_one_of_the_four() -> None:
    assert review(1, kind="tier_override", value="low").value == "low"
    with pytest.raises(ValueError, match="high, low"):
        review(1, kind="tier_override", value="best")


def test_a_time_needs_its_offset() -> None:
    assert utc_time("2026-02-03T05:05:00+01:00") == AT
    for text in ("2026-02-03T05:05:00", "yesterday", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(ValueError, match=r"at: |isoformat"):
            utc_time(text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("reviews"))


@pytest.fixture
def corpus(built: Path, tmp_path: Path) -> CorpusLayout:
    return CorpusLayout(shutil.copytree(built, tmp_path / "corpus"))


def published(corpus: CorpusLayout) -> list[Review]:
    return reviews.published(corpus, snapshot.load(corpus.root))


def write(corpus: CorpusLayout) -> None:
    """Any command that writes."""
    with writing(corpus, LocalStorage(corpus.root)):
        pass


def journal(corpus: CorpusLayout) -> list[str]:
    return [
        path for path in tree(corpus.root) if path.startswith(f"{FOLDER}/") and ".sub" not in path
    ]


def findings(corpus: CorpusLayout) -> list[str]:
    return [str(each) for each in verify(corpus.root)]


def test_a_review_is_pending_then_published_and_a_repeat_adds_nothing(corpus: CorpusLayout) -> None:
    uid = uids(corpus.root)["a"]
    before = snapshot.load(corpus.root)
    content = digest(corpus.root)
    one = review(1, uid, value=HOSTILE, start=0, end=2)
    assert [receipt.is_pending for receipt in submit(corpus, [one, one])] == [True, True]
    assert [receipt.is_pending for receipt in submit(corpus, [replace(one, at=AT)])] == [True]
    assert len(journal(corpus)) == 1
    assert snapshot.load(corpus.root) == before
    [stored] = read(corpus, before, uid)
    assert (stored.review, stored.is_pending) == (one, True)
    assert read(corpus, before, uids(corpus.root)["c"]) == []
    assert not findings(corpus)
    write(corpus)
    current = snapshot.load(corpus.root)
    assert current.number == before.number + 1
    assert published(corpus) == [one]
    assert journal(corpus) == []
    assert [receipt.is_pending for receipt in submit(corpus, [one])] == [False]
    write(corpus)
    assert snapshot.load(corpus.root) == current
    with Catalog.open(corpus.root) as catalog:
        assert catalog.arrow("SELECT value FROM reviews")["value"].to_pylist() == [HOSTILE]
    assert digest(corpus.root) == content
    assert not findings(corpus)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"uid": "unknown"}, "no episode"),
        ({"start": 0, "end": 1 << 20}, "of an episode of"),
        ({"snapshot": 99}, "the latest is"),
        ({"review_id": str(UUID(int=2)), "value": "other"}, "belongs to another review"),
    ],
)
def test_what_cannot_hold_is_refused_whole(
    fields: dict[str, Any], message: str, corpus: CorpusLayout
) -> None:
    uid = uids(corpus.root)["a"]
    submit(corpus, [review(2, uid)])
    before = journal(corpus)
    with pytest.raises(ConfigError, match=message):
        submit(corpus, [review(3, uid), review(4, **{"uid": uid} | fields)])
    assert journal(corpus) == before


def test_many_are_checked_before_the_first_is_stored(
    corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_journal, "MOST_OF_FILE", 2)
    uid = uids(corpus.root)["a"]
    with pytest.raises(NoSuchPlace):
        submit(corpus, [*(review(number, uid) for number in range(1, 6)), review(6, "unknown")])
    assert journal(corpus) == []
    submit(corpus, [review(number, uid) for number in range(1, 6)])
    assert len(journal(corpus)) == 3
    write(corpus)
    assert published(corpus) == [review(number, uid) for number in range(1, 6)]


def test_a_full_disk_says_what_is_stored_and_a_repeat_stores_the_rest(
    corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_journal, "MOST_OF_FILE", 2)
    uid = uids(corpus.root)["a"]
    rows = [review(number, uid) for number in range(1, 6)]
    create, room = LocalStorage.create, iter([True, True, False])

    def until_full(self: LocalStorage, key: str, data: bytes) -> bool:
        if not next(room):
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(self, key, data)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "create", until_full)
        with pytest.raises(TransientError, match="4 of 5 new reviews are stored"):
            submit(corpus, rows)
    later = [replace(each, at=each.at + timedelta(hours=1)) for each in rows]
    assert [each.is_new for each in submit(corpus, later)] == [False] * 4 + [True]
    write(corpus)
    assert published(corpus) == [*rows[:4], later[4]]


class Beside:
    """Runs something in another thread from within a call, until it ends or waits for the journal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
        self._patch, self._work = monkeypatch, work
        self._pool = ThreadPoolExecutor(1)
        self._future: Future[object] | None = None
        self._can_go_on = threading.Event()
        is_alone = lock_file._is_alone

        def noticed(handle: int) -> bool:
            answer = is_alone(handle)
            if not answer:
                self._can_go_on.set()
            return answer

        monkeypatch.setattr(lock_file, "_is_alone", noticed)

    def before(self, owner: Any, name: str) -> None:
        """The first call of a function in this thread comes after it."""
        function, own = getattr(owner, name), threading.get_ident()

        def late(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == own and self._future is None:
                self._future = self._pool.submit(self._work)
                self._future.add_done_callback(lambda _: self._can_go_on.set())
                assert self._can_go_on.wait(60)
            return function(*args, **kwargs)

        self._patch.setattr(owner, name, late)

    def end(self) -> object:
        assert self._future is not None
        return self._future.result(60)


STEPS = [
    (review_journal, "held"),
    (review_journal, "read_all"),
    (snapshot, "load"),
    (review_journal, "store"),
]


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_a_review_id_is_one_review_whenever_a_writer_publishes(
    owner: Any, name: str, corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = uids(corpus.root)["a"]
    submit(corpus, [review(1, uid)])
    beside = Beside(monkeypatch, lambda: write(corpus))
    beside.before(owner, name)
    if name == "store":
        submit(corpus, [review(2, uid)])
    else:
        with pytest.raises(OtherReview):
            submit(corpus, [review(1, uid, value="other"), review(2, uid)])
    beside.end()
    write(corpus)
    assert published(corpus) == [review(1, uid), *([review(2, uid)] if name == "store" else [])]
    assert journal(corpus) == []


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
def test_of_two_reviews_with_one_id_the_second_is_refused(
    owner: Any, name: str, corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = uids(corpus.root)["a"]
    beside = Beside(monkeypatch, lambda: submit(corpus, [review(1, uid, value="beside")]))
    beside.before(owner, name)
    refusals = 0
    for work in (lambda: submit(corpus, [review(1, uid)]), beside.end):
        try:
            work()
        except OtherReview:
            refusals += 1
    assert refusals == 1
    assert len(read(corpus)) == 1


def test_an_episode_that_is_erased_while_a_review_is_stored_keeps_none(
    corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, disk = uids(corpus.root)["a"], LocalStorage(corpus.root)

    def erase() -> None:
        with writing(corpus, disk, block_recovers=True):
            forget(corpus, disk, [uid], reason="", run_id="erasure", erased_at=AT)

    submit(corpus, [review(1, uid)])  # so that the writer waits for the journal
    beside = Beside(monkeypatch, erase)
    beside.before(review_journal, "store")
    submit(corpus, [review(2, uid, value="late secret")])
    beside.end()
    assert journal(corpus) == []
    assert published(corpus) == []


@pytest.mark.parametrize("name", ["keys", "read_all", "load"])
@pytest.mark.parametrize("is_pinned", [False, True])
def test_a_reader_sees_a_review_whenever_it_is_published(
    is_pinned: bool, name: str, corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = uids(corpus.root)["a"]
    submit(corpus, [review(1, uid)])
    current = snapshot.load(corpus.root) if is_pinned else None
    beside = Beside(monkeypatch, lambda: write(corpus))
    beside.before(snapshot if name == "load" else review_journal, name)
    [stored] = read(corpus, current, uid)
    beside.end()
    assert (stored.review, stored.is_pending) == (review(1, uid), is_pinned)


def test_who_holds_the_journal_for_long_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        lock_file.held_alone(path),
        pytest.raises(TransientError, match="has held this lock"),
        lock_file.held_alone(path, wait_s=0.0),
    ):
        pass


def test_the_number_of_pending_reviews_is_that_of_the_list(corpus: CorpusLayout) -> None:
    uid, first = uids(corpus.root)["a"], snapshot.load(corpus.root)
    states = [first]
    assert reviews.num_pending(corpus, first) == 0
    for number in range(1, 5):
        submit(corpus, [review(2 * number, uid), review(2 * number + 1, uid)])
        if number % 2:
            write(corpus)
        states.append(snapshot.load(corpus.root))
        for current in states:
            listed = sum(each.is_pending for each in read(corpus, current))
            assert reviews.num_pending(corpus, current) == listed
    assert reviews.num_pending(corpus, first) == 8


def test_a_pending_file_is_read_once(corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    uid, names = uids(corpus.root)["a"], list[str]()
    parse = review_journal._read

    def counted(corpus: CorpusLayout, key: str) -> list[Review]:
        names.append(key)
        return parse(corpus, key)

    monkeypatch.setattr(review_journal, "_read", counted)
    for number in range(1, 6):
        submit(corpus, [review(number, uid)])
        assert len(read(corpus, uid=uid)) == number
    assert sorted(names) == journal(corpus)
    monkeypatch.setattr(review_journal, "MAX_KEPT", 2)
    for _ in range(2):
        assert len(read(corpus)) == 5
    assert len(names) == 5 + 3  # past the bound, files are read each time
    write(corpus)
    assert [each.is_pending for each in read(corpus)] == [False] * 5
    assert review_journal._kept[(corpus.root / FOLDER).resolve()] == {}


def test_the_disk_is_synchronised_before_the_journal_is_held(corpus: CorpusLayout) -> None:
    events = list[str]()

    class Watched(FileSystem):
        def syncfs(self, handle: int) -> None:
            with lock_file.held_alone(corpus.root / review_journal.LOCK, wait_s=0.0):
                events.append("syncfs")
            super().syncfs(handle)

    submit(corpus, [review(1, uids(corpus.root)["a"])])
    disk = LocalStorage(corpus.root, Watched())
    disk.make_dir(corpus.root / "tmp")
    for number in range(unsynced.FEW + 1):
        disk.write(corpus.root / "tmp" / str(number), b"x")
    reviews.publish_pending(corpus, disk)
    assert events == ["syncfs"]
    assert len(published(corpus)) == 1


def test_two_submit_at_once_beside_a_writer(corpus: CorpusLayout) -> None:
    uid = uids(corpus.root)["a"]
    batches = [[review(number, uid) for number in range(i, i + 12)] for i in range(1, 60, 6)]
    with writing(corpus, LocalStorage(corpus.root)), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda batch: submit(corpus, batch), batches))
        assert published(corpus) == []
    # Batches overlap: two may store the same review at the same time, and one of the two is published.
    assert sorted(int(UUID(row.review_id)) for row in published(corpus)) == list(range(1, 67))
    assert journal(corpus) == []


def killed(work: Callable[[], object]) -> None:
    """Run it in a child that must end by SIGKILL."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("at", ["publish_pending", "write_part", "publish", "delete"])
def test_a_kill_loses_no_review_and_doubles_none(
    at: str, corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = uids(corpus.root)["a"]
    submit(corpus, [review(1, uid)])
    submit(corpus, [review(2, uid)])
    place = {"delete": LocalStorage, "publish": publishing, "publish_pending": None}.get(
        at, snapshot
    )
    with monkeypatch.context() as patched:
        if place is None:
            patched.setattr("ingest.corpus.writer.publish_pending", die)
        else:
            patched.setattr(place, at, die)
        killed(lambda: write(corpus))
    seen = read(corpus, snapshot.load(corpus.root), uid)
    assert [each.review for each in seen] == [review(1, uid), review(2, uid)]
    write(corpus)
    assert published(corpus) == [review(1, uid), review(2, uid)]
    assert journal(corpus) == []
    assert not findings(corpus)


def test_a_killed_submission_leaves_nothing(
    corpus: CorpusLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = uids(corpus.root)["a"]
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "_named", die)
        killed(lambda: submit(corpus, [review(1, uid)]))
    assert [path for path in journal(corpus) if path.endswith(".part")]
    assert not findings(corpus)  # it could be a submission at work
    with writing(corpus, LocalStorage(corpus.root), always_recovers=True):
        pass
    assert journal(corpus) == []
    assert published(corpus) == []


def test_reviews_of_an_erased_episode_go_from_table_and_journal(corpus: CorpusLayout) -> None:
    names = uids(corpus.root)
    submit(corpus, [review(1, names["a"], value="first secret"), review(2, names["c"])])
    write(corpus)
    disk = LocalStorage(corpus.root)
    with writing(corpus, disk, block_recovers=True):
        submit(corpus, [review(3, names["a"], value="late secret")])
        forget(corpus, disk, [names["a"]], reason="", run_id="erasure", erased_at=AT)
    assert published(corpus) == [review(2, names["c"])]
    assert journal(corpus) == []
    with pytest.raises(ConfigError, match="no episode"):
        submit(corpus, [review(4, names["a"])])
    for path in snapshot.numbers(corpus.root):
        kept = reviews.published(corpus, snapshot.load(corpus.root, path))
        assert all(row.uid != names["a"] for row in kept)
    assert not findings(corpus)


def test_compact_keeps_every_review(corpus: CorpusLayout) -> None:
    names = uids(corpus.root)
    both = [review(1, names["a"]), review(2, names["c"])]
    for each in both:
        submit(corpus, [each])
        write(corpus)
    current = snapshot.load(corpus.root)
    merges = plan_merges(corpus.root, current)
    after = compact(corpus, LocalStorage(corpus.root), current, merges, "compaction")
    assert len(after.parts("reviews")) == 1
    assert published(corpus) == both


def test_verify_sees_damage(corpus: CorpusLayout) -> None:
    uid = uids(corpus.root)["a"]
    submit(corpus, [review(1, uid)])
    [name] = journal(corpus)
    text = (corpus.root / name).read_text()
    (corpus.root / name).write_text(text.replace("Ada", "Eve"))
    assert "sha256" in "".join(findings(corpus))
    with pytest.raises(ConfigError, match="pending reviews cannot be read"):
        write(corpus)
    (corpus.root / name).write_text(text)
    write(corpus)
    row = json.loads(text)[0] | {"at": AT}
    for bad in (row, row | {"review_id": str(UUID(int=9)), "kind": "nonsense"}):
        current = snapshot.load(corpus.root)
        piece = pa.Table.from_pylist([bad | {"uid": uid}], schema=TABLES["reviews"])
        disk = LocalStorage(corpus.root)
        part = snapshot.write_tables(disk, corpus.root, "reviews", [piece])
        publishing.publish(disk, corpus.root, current, {"reviews": part}, "damage")
        assert "reviews" in "".join(findings(corpus))


def test_a_corpus_without_the_table_has_no_reviews(corpus: CorpusLayout) -> None:
    """As an older eicorpus wrote it."""
    current = snapshot.load(corpus.root)
    path = corpus.root / snapshot.key_of(current.number)
    raw = json.loads(path.read_text())
    del raw["tables"]["reviews"]
    path.write_text(json.dumps(raw))
    old = snapshot.load(corpus.root)
    assert read(corpus, old) == []
    uid = uids(corpus.root)["a"]
    submit(corpus, [review(1, uid)])
    write(corpus)
    assert published(corpus) == [review(1, uid)]
