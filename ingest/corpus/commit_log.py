"""The commit log of a corpus that several machines write to: numbered entries that are only ever created.

`catalog/_log/<n>.json` is the change from snapshot n - 1 to snapshot n. Creating it IS the commit: of two writers who try one number, one
wins, and the other applies the entry that stands there and tries the next. `catalog/_snapshots/<n>.json` is a checkpoint in the format of
`snapshot`: state n as a whole. Every hundredth commit writes one, so a start reads one checkpoint and at most some hundred entries.
Entries are never deleted: a reader with an old checkpoint must not take a hole for the end of the log.

An entry of kind `claim` gives a lane to a session. Its number is the session's fencing token: every commit of the session carries it. A
claim takes the number that a late request of the session before could still have created, so nothing of that session lands after it.
`seal` ends a lane for good, so that what was uploaded there and not committed can be deleted. `sweep` says that catalog files which were
uploaded before it and are not committed will be deleted: a writer that meets it uploads its own under new names. `erase` also says which
catalog files of every state before it are deleted, and which take their places: an older state is opened without what was erased.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from ingest.corpus import snapshot
from ingest.corpus.snapshot import DamagedSnapshot, Part, Snapshot
from schemas.catalog import FORMAT_VERSION, TABLES
from schemas.errors import (
    Code,
    ConfigError,
    InvariantError,
    SourceError,
    TransientError,
    UnknownOutcome,
)
from schemas.json_text import parse_json

FOLDER = "catalog/_log"
CHECKPOINT_EVERY = 100
AT_ONCE = 16  # requests for entries that are under way, so this many are in memory
KINDS = ("commit", "claim", "seal", "sweep", "erase")
MOST_ENTRIES = 1 << 20  # after a checkpoint; a store that has more is not ours
MOST_TRIES = 8  # of one create whose answers get lost
_LANE = re.compile(r"(lane-[1-9][0-9]{0,17})?")
_PART_NAME = re.compile(r"(catalog/[a-z_]+/part-[0-9a-f]{32})(-[0-9a-z-]+)?[.]parquet")
_KEY = re.compile(rf"{FOLDER}/([0-9]{{8,18}})[.]json")
_ID = re.compile(r"[0-9a-f]{32}")


class LogStore(Protocol):
    """What the log needs of a store of objects. The methods are those of `ingest.storage.store.Store`."""

    def get(self, key: str, *, max_bytes: int) -> bytes: ...
    def create(self, key: str, data: bytes) -> bool: ...
    def put(self, key: str, data: bytes, *, is_durable: bool = False) -> None: ...
    def list(self, prefix: str) -> Sequence[str]: ...


class Conflict(TransientError):
    """A change cannot be applied to what others have committed meanwhile."""


class LaneLost(Conflict):
    """Another session has claimed the lane of this one, or a sweep has sealed it. The session must not write any more."""


class OtherHistory(ConfigError):
    """A bucket went back to an earlier state, or two corpora were mixed in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Parts of a table that stand in the place of others, in front of those that were added since."""

    instead_of: tuple[str, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a commit does to the tables, whatever was committed before it."""

    added: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    replaced: Mapping[str, Replacement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := ({*self.added} | {*self.replaced}) - {*TABLES}:
            raise ValueError(f"no tables {sorted(unknown)}")

    @property
    def tables(self) -> set[str]:
        return {*self.added, *self.replaced}

    @property
    def parts(self) -> list[tuple[str, Part]]:
        """Every part that the change brings, with its table."""
        new = [(table, part) for table, parts in self.added.items() for part in parts]
        for table, r in self.replaced.items():
            new += [(table, part) for part in r.parts if part.path not in r.instead_of]
        return new

    def applied(self, tables: Mapping[str, Sequence[Part]]) -> dict[str, tuple[Part, ...]]:
        """The tables after the change.

        Raises:
            Conflict: a part that it replaces is not there.
        """
        after = {name: tuple(parts) for name, parts in tables.items()}
        for table, new in self.replaced.items():
            known = {part.path for part in after.get(table, ())}
            if missing := set(new.instead_of) - known:
                raise Conflict(
                    f"another writer has replaced {sorted(missing)[0]}",
                    remedy="run the same command again",
                )
            rest = [part for part in after.get(table, ()) if part.path not in new.instead_of]
            after[table] = (*new.parts, *rest)
        for table, parts in self.added.items():
            after[table] = (*after.get(table, ()), *parts)
        return after


def change_between(before: Snapshot, tables: Mapping[str, Sequence[Part]]) -> Change:
    """What makes `tables` of the tables of a snapshot: parts at the end are added, any other difference replaces all parts of a table."""
    added, replaced = {}, {}
    for table in TABLES:
        old, new = before.parts(table), tuple(tables.get(table, ()))
        if new[: len(old)] == old:
            if new[len(old) :]:
                added[table] = new[len(old) :]
        else:
            replaced[table] = Replacement(instead_of=tuple(part.path for part in old), parts=new)
    return Change(added=added, replaced=replaced)


def named(change: Change, suffix: str, *, all_anew: bool = False) -> tuple[Change, dict[str, Part]]:
    """The change with names that no other writer uses: those of content end in `suffix`. Also the parts that were renamed, by their old paths.

    Args:
        all_anew: parts that have such a name already get another.
    """
    moved: dict[str, Part] = {}

    def renamed(part: Part) -> Part:
        match = _PART_NAME.fullmatch(part.path)
        if match is None:
            raise InvariantError(f"{part.path} is not named by its content")
        if match[2] and not all_anew:
            return part
        moved[part.path] = replace(part, path=f"{match[1]}-{suffix}.parquet")
        return moved[part.path]

    replaced = {
        table: replace(r, parts=tuple(p if p.path in r.instead_of else renamed(p) for p in r.parts))
        for table, r in change.replaced.items()
    }
    added = {table: tuple(map(renamed, parts)) for table, parts in change.added.items()}
    return Change(added=added, replaced=replaced), moved


def is_committed_name(path: str) -> bool:
    """Whether a part has a name that a commit of a bucket gives."""
    match = _PART_NAME.fullmatch(path)
    return match is not None and bool(match[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedBeside:
    """A part that a state gets where it has any of the parts `beside`."""

    table: str
    part: Part
    beside: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise ValueError(f"no table {self.table}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What makes of any state before an erasure that state without what was erased.

    instead: catalog file -> what takes its place; None where no row is left. added: tombstones, beside the episodes whose places they hold.
    """

    instead: Mapping[str, Part | None]
    added: tuple[AddedBeside, ...]

    @property
    def parts(self) -> list[tuple[str, Part]]:
        """Every part that it brings, with its table."""
        new = [part for part in self.instead.values() if part is not None]
        new += [each.part for each in self.added]
        return [(part.path.split("/")[1], part) for part in new]

    def applied(self, tables: Mapping[str, Sequence[Part]]) -> dict[str, tuple[Part, ...]]:
        """The tables of a state without what was erased."""
        paths = {part.path for parts in tables.values() for part in parts}
        after = {
            table: tuple(
                new for part in parts if (new := self.instead.get(part.path, part)) is not None
            )
            for table, parts in tables.items()
        }
        for each in self.added:
            if not paths.isdisjoint(each.beside):
                after[each.table] = (*after.get(each.table, ()), each.part)
        return after


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One commit. `lane`: that of the session, with its token; "" and 0 for a command that has none."""

    number: int
    run_id: str
    change: Change = field(default_factory=Change)
    kind: str = "commit"  # one of KINDS
    lane: str = ""
    token: int = 0
    parent: str = ""  # commit id of the entry before; "" after a state that no log made
    commit_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    erasure: Erasure | None = None  # what an entry of kind `erase` does to every state before it

    def __post_init__(self) -> None:
        is_named = bool(_LANE.fullmatch(self.lane) and _ID.fullmatch(self.commit_id))
        is_linked = not self.parent or bool(_ID.fullmatch(self.parent))
        if not (is_named and is_linked) or self.kind not in KINDS or self.number < 1:
            raise ValueError(f"entry {self.number} is not one of a commit log")

    @property
    def data(self) -> bytes:
        """The object of the entry."""
        raw: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "number": self.number,
            "commit": self.commit_id,
            "parent": self.parent,
            "kind": self.kind,
            "run_id": self.run_id,
            "lane": self.lane,
            "token": self.token,
            "added": {t: [asdict(p) for p in parts] for t, parts in self.change.added.items()},
            "replaced": {
                t: {"instead_of": r.instead_of, "parts": [asdict(p) for p in r.parts]}
                for t, r in self.change.replaced.items()
            },
        }
        if self.erasure is not None:
            raw["erasure"] = {
                "instead": {p: part and asdict(part) for p, part in self.erasure.instead.items()},
                "added": [asdict(each) for each in self.erasure.added],
            }
        return json.dumps(raw, indent=1).encode()


def key_of(number: int) -> str:
    """Of the object of an entry."""
    return f"{FOLDER}/{number:08d}.json"


def number_of(key: str) -> int:
    """Of the entry that an object is; 0 where it is none."""
    match = _KEY.fullmatch(key)
    return int(match[1]) if match else 0


def _entry(raw: Mapping[str, Any], number: int) -> LogEntry:
    if int(raw["format_version"]) > FORMAT_VERSION:
        problem = f"format {raw['format_version']}; this eicorpus reads up to {FORMAT_VERSION}"
        raise ConfigError(problem, remedy="install a newer eicorpus", where=key_of(number))
    if int(raw["number"]) != number:
        raise ValueError(f"contains the number {raw['number']}")
    return LogEntry(
        number=number,
        run_id=str(raw["run_id"]),
        kind=str(raw["kind"]),
        lane=str(raw["lane"]),
        token=int(raw["token"]),
        commit_id=str(raw["commit"]),
        parent=str(raw["parent"]),
        erasure=_erasure(raw["erasure"]) if "erasure" in raw else None,
        change=Change(
            added={t: tuple(Part(**p) for p in parts) for t, parts in raw["added"].items()},
            replaced={
                t: Replacement(
                    instead_of=tuple(map(str, r["instead_of"])),
                    parts=tuple(Part(**p) for p in r["parts"]),
                )
                for t, r in raw["replaced"].items()
            },
        ),
    )


def _erasure(raw: Mapping[str, Any]) -> Erasure:
    return Erasure(
        instead={
            str(path): None if part is None else Part(**part)
            for path, part in raw["instead"].items()
        },
        added=tuple(
            AddedBeside(
                table=str(each["table"]),
                part=Part(**each["part"]),
                beside=tuple(map(str, each["beside"])),
            )
            for each in raw["added"]
        ),
    )


@dataclass(frozen=True, kw_only=True)
class CommitLog:
    """Reads and appends. Holds no state but the store: a writer passes the snapshot that it has."""

    store: LogStore

    def entry(self, number: int) -> LogEntry | None:
        """The commit of this number; None when it is not made yet.

        Raises:
            DamagedSnapshot: it cannot be read.
            ConfigError: a newer eicorpus wrote it.
            TransientError: the store does not answer.
        """
        key = key_of(number)
        try:
            data = self.store.get(key, max_bytes=snapshot.LIMITS.max_bytes)
        except SourceError as error:
            if error.code is Code.MISSING_FILE:
                return None
            raise _damaged(key, error) from error
        try:
            return _entry(parse_json(data, limits=snapshot.LIMITS), number)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(key, error) from error

    def after(self, number: int) -> Iterator[LogEntry]:
        """Every commit after `number`, in order. Each is read by its key, because a listing can be out of date.

        Several at a time, twice as many with each that is there: one request finds out that nothing is new.
        """
        if AT_ONCE == 1:
            yield from self._one_by_one(number)
            return
        if (first := self.entry(number + 1)) is None:
            return
        yield first
        waiting: deque[Future[LogEntry | None]] = deque()
        requested, ahead = number + 2, 1
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                while requested < number + MOST_ENTRIES:
                    while len(waiting) < ahead:
                        waiting.append(pool.submit(self.entry, requested))
                        requested += 1
                    entry = waiting.popleft().result()
                    if entry is None:
                        return
                    yield entry
                    ahead = min(2 * ahead, AT_ONCE)
            finally:
                for each in waiting:
                    each.cancel()
        raise _too_many(number)

    def _one_by_one(self, number: int) -> Iterator[LogEntry]:
        for following in range(number + 1, number + MOST_ENTRIES):
            entry = self.entry(following)
            if entry is None:
                return
            yield entry
        raise _too_many(number)

    def checkpoint(self, after: int = 0) -> Snapshot | None:
        """The newest state that is stored as a whole, if its number is above `after`."""
        known = snapshot.numbers_in(self.store.list(snapshot.FOLDER))
        is_newer = bool(known) and known[-1] > after
        return snapshot.load_from(self.store, known[-1]) if is_newer else None

    def latest(self, known: Snapshot | None = None) -> Snapshot:
        """The state now, from a state that the caller has or from a newer checkpoint. Raises as `entry`.

        Raises:
            OtherHistory: the store does not hold the commit that made the caller's state.
        """
        state = Snapshot() if known is None else known
        self._check_history(state)
        if state.number == 0 or self.entry(state.number + 1) is not None:
            state = self.checkpoint(after=state.number) or state
        for entry in self.after(state.number):
            state = following(state, entry)
        return state

    def state(self, number: int, current: Snapshot) -> Snapshot:
        """The state after a commit, however old, without what was erased since.

        Args:
            current: the state now, or one that is not much older.

        Raises:
            ConfigError: there is no such commit.
        """
        known = [n for n in snapshot.numbers_in(self.store.list(snapshot.FOLDER)) if n <= number]
        state = snapshot.load_from(self.store, known[-1]) if known else Snapshot()
        for entry in self.after(state.number):
            if entry.number <= number:
                state = following(state, entry)
            elif state.parts("tombstones") == current.parts("tombstones"):
                break  # an erasure adds one
            elif entry.erasure is not None:
                state = replace(state, tables=entry.erasure.applied(state.tables))
        if state.number != number:
            raise ConfigError(
                f"no snapshot {number}; the newest is {current.number}",
                remedy="list snapshots with `eicorpus snapshot list CORPUS`",
                where=snapshot.FOLDER,
            )
        return state

    def _check_history(self, state: Snapshot) -> None:
        if not state.commit_id:
            return
        entry = self.entry(state.number)
        if entry is None or entry.commit_id != state.commit_id:
            raise OtherHistory(
                f"commit {state.number} is not the one that the working copy was made of: objects were deleted or restored",
                remedy="remove the working copy, and run the command again",
                where=key_of(state.number),
            )

    def append(self, entry: LogEntry) -> LogEntry:
        """Create an entry. Returns the one that stands under its number afterwards: this one, or that of another writer.

        Raises:
            UnknownOutcome: no answer says which, in `MOST_TRIES` tries. The session must end: the entry may still land.
        """
        for _ in range(MOST_TRIES):
            try:
                if self.store.create(key_of(entry.number), entry.data):
                    return entry
            except UnknownOutcome:
                pass
            try:
                standing = self.entry(entry.number)
            except DamagedSnapshot:
                raise
            except TransientError:
                standing = None
            if standing is not None:
                return standing
        raise UnknownOutcome(
            f"the store does not say whether commit {entry.number} was made",
            remedy="run the same command again when the store answers",
            where=key_of(entry.number),
        )

    def write_checkpoint(self, state: Snapshot) -> None:
        """Store a state as a whole. Any writer may: all of them would write the same bytes."""
        self.store.put(snapshot.key_of(state.number), snapshot.text_of(state).encode())


def following(state: Snapshot, entry: LogEntry) -> Snapshot:
    """The state after one more commit.

    Raises:
        InvariantError: the entry is not the next one.
        DamagedSnapshot: it does not fit the state, which its writer had checked.
    """
    if entry.number != state.number + 1:
        raise InvariantError(f"commit {entry.number} does not follow snapshot {state.number}")
    if state.commit_id and entry.parent != state.commit_id:
        raise OtherHistory(
            f"commit {entry.number} follows another commit {state.number} than the one that is there",
            remedy="remove the working copy, and run the command again",
            where=key_of(entry.number),
        )
    try:
        tables = entry.change.applied(state.tables)
    except Conflict as error:
        raise _damaged(key_of(entry.number), error) from error
    return replace(
        state,
        number=entry.number,
        run_id=entry.run_id,
        commit_id=entry.commit_id,
        tables=tables,
    )


def _too_many(number: int) -> DamagedSnapshot:
    return DamagedSnapshot(
        f"more than {MOST_ENTRIES} entries after {number}",
        remedy="no corpus has so many commits after a checkpoint; check who wrote them",
        where=FOLDER,
    )


def _damaged(key: str, error: Exception) -> DamagedSnapshot:
    return DamagedSnapshot(
        f"damaged ({type(error).__name__}: {error})",
        remedy="restore the object from a copy of the corpus",
        where=key,
    )
