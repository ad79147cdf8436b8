"""The commit log: numbered entries that are only created, checkpoints, fencing, and what a hostile bucket may not say."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from ingest.corpus import commit_log, snapshot
from ingest.corpus.commit_log import (
    AddedBeside,
    Change,
    CommitLog,
    Conflict,
    Erasure,
    LogEntry,
    Replacement,
    change_between,
    following,
    key_of,
    named,
)
from ingest.corpus.snapshot import DamagedSnapshot, Part, Snapshot
from ingest.storage.object_store import ObjectStore
from schemas.errors import ConfigError, InvariantError, TransientError, UnknownOutcome


def part(name: str, table: str = "segments") -> Part:
    sha256 = f"{int(name.encode().hex(), 16):064x}"
    return Part(
        path=f"catalog/{table}/part-{sha256[-32:]}.parquet", rows=1, num_bytes=1, sha256=sha256
    )


def adding(number: int, *names: str, **more: Any) -> LogEntry:
    change = Change(added={"segments": tuple(map(part, names))})
    return LogEntry(number=number, run_id="run", change=change, **more)


class Counting(ObjectStore):
    """Counts what is read, and answers some creates only after they were carried out, or not at all."""

    def __init__(self, uri: str, *, unknown: str = "") -> None:
        super().__init__(uri)
        self.read: list[str] = []
        self.unknown = list(
            unknown
        )  # per create: d done and no answer, l lost, anything else answered

    def get(self, key: str, *, max_bytes: int) -> bytes:
        self.read.append(key)
        return super().get(key, max_bytes=max_bytes)

    def create(self, key: str, data: bytes) -> bool:
        fate = self.unknown.pop(0) if self.unknown else ""
        made = super().create(key, data) if fate != "l" else False
        if fate in ("d", "l"):
            raise UnknownOutcome("no answer")
        return made


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Counting:
    return Counting(f"memory://{abs(hash(request.node.nodeid))}/c")


@pytest.fixture
def log(store: Counting) -> CommitLog:
    return CommitLog(store=store)


def names(state: Snapshot) -> list[str]:
    return [bytes.fromhex(each.sha256.lstrip("0")).decode() for each in state.parts("segments")]


def test_of_two_writers_of_one_number_one_wins_and_the_other_sees_it(log: CommitLog) -> None:
    ours, theirs = adding(1, "a"), adding(1, "b")
    assert log.append(ours) == ours
    assert log.append(theirs) == ours
    assert log.append(replace(theirs, number=2, parent=ours.commit_id)).number == 2
    assert names(log.latest()) == ["a", "b"]


def test_an_entry_comes_back_as_it_was_written(log: CommitLog) -> None:
    change = Change(
        added={"segments": (part("a"), replace(part("b"), content="0" * 64))},
        replaced={
            "runs": Replacement(instead_of=("catalog/runs/x.parquet",), parts=(part("c", "runs"),))
        },
    )
    entry = LogEntry(number=1, run_id="r", change=change, lane="lane-7", token=7, kind="claim")
    log.append(entry)
    assert log.entry(1) == entry
    assert log.entry(2) is None


@pytest.mark.parametrize("answers", ["d", "l", "ldl", "ddd", "lllllll"])
def test_a_lost_answer_is_read_back(store: Counting, log: CommitLog, answers: str) -> None:
    store.unknown = list(answers)
    entry = adding(1, "a")
    assert log.append(entry) == entry
    assert names(log.latest()) == ["a"]


def test_an_answer_that_never_comes_ends_the_session(store: Counting, log: CommitLog) -> None:
    store.unknown = ["l"] * 100
    with pytest.raises(UnknownOutcome, match="commit 1"):
        log.append(adding(1, "a"))


def test_a_lost_create_that_another_writer_was_faster_than_is_theirs(
    store: Counting, log: CommitLog
) -> None:
    theirs = adding(1, "b")
    log.append(theirs)
    store.unknown = ["l"]
    assert log.append(adding(1, "a")) == theirs


def test_a_start_reads_one_checkpoint_and_what_is_after_it(store: Counting, log: CommitLog) -> None:
    state = Snapshot()
    for number in range(1, 31):
        entry = adding(number, f"p{number:02d}", parent=state.commit_id)
        state = following(state, log.append(entry))
        if number in (10, 20):
            log.write_checkpoint(state)
    store.read.clear()
    assert names(log.latest()) == names(state)
    most = 31 + commit_log.AT_ONCE
    assert snapshot.key_of(20) in store.read
    assert {*store.read} <= {snapshot.key_of(20), *(key_of(n) for n in range(21, most))}
    store.read.clear()
    assert log.latest(known=state) == state
    assert store.read == [key_of(30), key_of(31), key_of(31)]


def test_a_change_moves_behind_what_others_added() -> None:
    base = Snapshot(tables={"segments": (part("a"), part("b"))})
    appended = change_between(base, {"segments": (part("a"), part("b"), part("c"))})
    assert (appended.added, appended.replaced) == ({"segments": (part("c"),)}, {})
    merged = change_between(base, {"segments": (part("m"),)})
    theirs = appended.applied(base.tables)
    assert merged.applied(theirs) == {"segments": (part("m"), part("c"))}
    with pytest.raises(Conflict, match="another writer has replaced"):
        merged.applied(merged.applied(base.tables))


def test_parts_that_stay_in_a_replacement_are_not_new() -> None:
    base = Snapshot(tables={"segments": (part("a"), part("b"))})
    change = change_between(base, {"segments": (part("b"), part("m"))})
    assert change.parts == [("segments", part("m"))]
    renamed, moved = named(change, "x1")
    assert list(moved) == [part("m").path]
    assert renamed.applied(base.tables)["segments"][0] == part("b")
    assert moved[part("m").path].path.endswith("-x1.parquet")
    again, none = named(renamed, "x2")
    assert (again, none) == (renamed, {})
    anew, both = named(renamed, "x2", all_anew=True)
    assert [p.path for p in both.values()] == [anew.parts[0][1].path]
    assert anew.parts[0][1].path.endswith("-x2.parquet")


def test_entries_follow_without_a_hole() -> None:
    with pytest.raises(InvariantError):
        following(Snapshot(), adding(2, "a"))


HOSTILE = {
    "lane": "lane-1/../../x",
    "kind": "undo",
    "commit": "../x",
    "number": 7,
    "token": "many",
    "added": {"segments": [{"path": "../../victim", "rows": 1, "num_bytes": 1, "sha256": "0"}]},
    "replaced": {"no_table": {"instead_of": [], "parts": []}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_entry_that_is_none_is_named(store: Counting, log: CommitLog, name: str) -> None:
    raw = json.loads(adding(1, "a").data) | {name: HOSTILE[name]}
    store.put(key_of(1), json.dumps(raw).encode())
    with pytest.raises(DamagedSnapshot, match="00000001"):
        log.latest()


def test_an_entry_of_a_newer_format_is_refused(store: Counting, log: CommitLog) -> None:
    raw = json.loads(adding(1, "a").data) | {"format_version": 99}
    store.put(key_of(1), json.dumps(raw).encode())
    with pytest.raises(ConfigError, match="install a newer eicorpus"):
        log.latest()


def test_a_hole_ends_the_log_and_is_not_jumped(store: Counting, log: CommitLog) -> None:
    """Entries are asked for one by one: nobody can commit 3 before 2."""
    log.append(adding(1, "a"))
    log.append(adding(3, "c"))
    assert names(log.latest()) == ["a"]


def test_a_store_that_does_not_answer_is_no_end_of_the_log(
    store: Counting, log: CommitLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(adding(1, "a"))

    def fails(self: Counting, key: str, *, max_bytes: int) -> bytes:
        raise TransientError("no answer")

    monkeypatch.setattr(Counting, "get", fails)
    with pytest.raises(TransientError):
        log.latest(known=Snapshot())


def test_numbers_of_keys() -> None:
    assert commit_log.number_of(key_of(17)) == 17
    assert commit_log.number_of("catalog/_log/x.json") == 0


def test_entries_are_read_several_at_a_time_and_in_order() -> None:
    class Slow(Counting):
        under_way = most = 0

        def get(self, key: str, *, max_bytes: int) -> bytes:
            with lock:
                self.under_way += 1
                self.most = max(self.most, self.under_way)
            barrier.wait(0.005)
            try:
                return super().get(key, max_bytes=max_bytes)
            finally:
                with lock:
                    self.under_way -= 1

    lock, barrier = threading.Lock(), threading.Event()
    store = Slow("memory://several/c")
    log = CommitLog(store=store)
    for number in range(1, 60):
        log.append(adding(number, f"p{number}"))
    assert [entry.number for entry in log.after(0)] == [*range(1, 60)]
    assert 1 < store.most <= commit_log.AT_ONCE


def test_one_request_finds_out_that_nothing_is_new(store: Counting, log: CommitLog) -> None:
    log.append(adding(1, "a"))
    store.read.clear()
    assert not list(log.after(1))
    assert store.read == [key_of(2)]


def test_the_state_of_any_commit_is_there(log: CommitLog) -> None:
    state, states = Snapshot(), {}
    for number in range(1, 8):
        entry = adding(number, f"p{number}", parent=state.commit_id)
        state = states[number] = following(state, log.append(entry))
        if number == 4:
            log.write_checkpoint(state)
    for number in range(1, 8):
        assert names(log.state(number, state)) == names(states[number])
    with pytest.raises(ConfigError, match="no snapshot 8; the newest is 7"):
        log.state(8, state)


def test_an_older_state_lacks_what_was_erased_since(log: CommitLog) -> None:
    """Two erasures, the second of a file that the first wrote, and one that left no row."""
    first = following(Snapshot(), log.append(adding(1, "a", "b")))
    state, old = first, [part("a"), part("b")]
    for number, (gone, new) in enumerate([("a", "c"), ("c", "d"), ("b", "")], 2):
        instead = (part(new),) if new else ()
        change = Change(
            added={"tombstones": (part(f"t{number}", "tombstones"),)},
            replaced={"segments": Replacement(instead_of=(part(gone).path,), parts=instead)},
        )
        entry = LogEntry(
            number=number,
            run_id="r",
            kind="erase",
            change=change,
            parent=state.commit_id,
            erasure=Erasure(
                instead={part(gone).path: instead[0] if instead else None},
                added=(
                    AddedBeside(
                        table="tombstones",
                        part=part(f"t{number}", "tombstones"),
                        beside=(part(gone).path,),
                    ),
                ),
            ),
        )
        state = following(state, log.append(entry))
    assert log.state(1, state).parts("segments") == (part("d"),)
    assert len(log.state(1, state).parts("tombstones")) == 3
    assert log.state(1, first).parts("segments") == tuple(old)  # a caller that knows of no erasure
    assert log.state(3, state).parts("segments") == (part("d"),)
