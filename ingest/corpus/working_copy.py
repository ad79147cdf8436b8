"""A corpus in a bucket as one machine works on it: a local corpus whose commits go to the bucket's commit log first.

The working copy is an ordinary corpus folder with the file `.remote.json`, which names the bucket. Its catalog is brought up to date from the
log (`refresh`), so every command that reads SQL works as on a local corpus. Media of episodes are copied when they are asked for (`fetch`).

A commit uploads what it names, then creates the next entry of the log, then becomes a local snapshot. Rows of episodes and videos go into a
lane: LeRobot datasets of this working copy alone, so that two machines never number the same dataset. Objects are only created, so a late
request of a process that died changes nothing that was committed. Where a stopped run left other bytes under a name, the session goes on
in a new lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import commit_log, snapshot
from ingest.corpus.column_checks import check_fetched
from ingest.corpus.commit_log import (
    Change,
    CommitLog,
    Conflict,
    LaneLost,
    LogEntry,
    change_between,
    following,
)
from ingest.corpus.committed_files import CommittedFile, committed_files
from ingest.corpus.erasure import erase_copies
from ingest.corpus.kept_states import collect_states, remove_older_states
from ingest.corpus.known_files import is_known
from ingest.corpus.layout import LINK, MARKER, MARKER_LIMITS, CorpusLayout
from ingest.corpus.manifest_folders import manifest_names
from ingest.corpus.remote_link import Link, place_of, read_link
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.tombstones import tombstones
from ingest.storage.local import LocalStorage
from ingest.storage.lock_file import held_with_others
from ingest.storage.open_store import probe
from schemas.catalog import TABLES
from schemas.errors import (
    Code,
    ConfigError,
    InvariantError,
    PipelineError,
    SourceError,
    UnknownOutcome,
)
from schemas.json_text import parse_json
from schemas.manifest import (
    ERASED_FILE,
    FACTS_FILE,
    NEWEST_FILE,
    REDACTION_FILE,
    ROWS_FILE,
    VERSION_NAME,
    load_facts,
)
from schemas.manifest import FOLDER as MANIFESTS
from schemas.parquet_file import read_table
from schemas.paths import within

ERASING = ".erasing"  # what the folder has of erased episodes is not all removed
COPYING = ".copying"  # lock: who copies files here holds it with others, who removes unnamed files holds it alone
T = TypeVar("T")
AT_ONCE = 16  # transfers
MOST_MANIFEST_BYTES = 4 << 30
MOST_PACK_BYTES = 64 << 30  # of latents; a user may ask for larger ones than 256 MB
LOGS = ("ledger", "quarantine")
MOST_TRIES = 8  # of one object whose answers get lost
# Rows say under which number they were committed. A commit that moves to a later number writes them again.
NUMBERED = ("verdicts", "tiers", "policies", "duplicates", "dedups")


class SharedStore(commit_log.LogStore, Protocol):
    """What a working copy needs of a bucket. `ingest.storage.object_store.ObjectStore` does it."""

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> str: ...
    def put_file(self, key: str, path: Path) -> None: ...
    def create_copy(self, source_key: str, target_key: str) -> bool: ...
    def size(self, key: str) -> int | None: ...
    def sha256(self, key: str) -> str: ...
    def copy(self, source_key: str, target_key: str) -> None: ...
    def delete(self, key: str) -> None: ...
    def delete_all(self, keys: Sequence[str]) -> None: ...
    def entries(self, prefix: str) -> Iterable[Mapping[str, Any]]: ...


class WorkingCopy:
    """One per command and corpus. The command that writes holds the writer lock of the folder."""

    def __init__(self, root: Path, store: SharedStore) -> None:
        link = read_link(root)
        if link is None:
            raise InvariantError(f"{root} is not a working copy")
        self.root, self.store, self.link = root, store, link
        self.log = CommitLog(store=store)
        self._disk = LocalStorage(root)

    # --- reading ------------------------------------------------------------------------------------------------------

    def refresh(self) -> Snapshot:
        """The newest snapshot of the bucket, with its catalog here.

        Raises:
            ConfigError: the bucket holds another corpus, or a newer format.
            TransientError: the store does not answer.
        """
        self._check_uid()
        with self._copying():
            current = snapshot.load(self.root)
            state = self.log.latest(current)
            while True:
                try:
                    # All parts are looked for: a folder that a backup restored may lack some.
                    self._keep(state, Snapshot(), last=current, is_new=state is not current)
                    break
                except SourceError as error:  # an erasure that followed may have deleted it
                    newer = self.log.latest(state)
                    if error.code is not Code.MISSING_FILE or newer is state:
                        raise
                    state = newer
        if state is not current:
            self._collect()
        return state

    def keep_state(self, number: int) -> None:
        """Make a state of any commit a snapshot of the folder, which a later `refresh` may remove.

        Raises:
            ConfigError: there is no such commit.
            TransientError: the store does not answer.
        """
        if number in snapshot.numbers(self.root):
            return
        with self._copying():
            state = self.log.state(number, snapshot.load(self.root))
            self._get_parts(part for table in TABLES for part in state.parts(table))
            self._disk.sync()
            self._disk.put(snapshot.key_of(number), snapshot.text_of(state).encode())

    def _collect(self) -> None:
        """Remove snapshots that nothing here needs, unless another process copies files now."""

        def sweep() -> None:
            collect_states(self.root, self._disk)

        with held_with_others(self.root / COPYING, sweep):
            pass

    def _copying(self) -> AbstractContextManager[None]:
        """While the block runs, recovery removes no file that is copied and not yet named by a snapshot of the folder."""
        return held_with_others(self.root / COPYING, sweep=lambda: None)

    def _check_uid(self) -> None:
        self._make_corpus()
        marker = _marker_of(self.store)
        if marker is None:
            raise ConfigError(
                f"the corpus is gone (no {MARKER}): it was deleted, or the bucket was restored to a time before it",
                remedy="restore the bucket, or remove the working copy",
                where=f"{self.link.uri}; its working copy is {self.root}",
            )
        if _uid_in(marker) != self.link.corpus_uid:
            raise ConfigError(
                "this address holds another corpus than the working copy was made of",
                remedy="remove the working copy, and run the command again",
                where=str(self.root),
            )

    def _keep(
        self,
        state: Snapshot,
        before: Snapshot,
        *,
        last: Snapshot | None = None,
        is_new: bool = True,
    ) -> None:
        """Make a state a snapshot of the folder, with the catalog files that one before it lacks.

        Args:
            last: the newest snapshot of the folder, where that is another one than `before`.
        """
        last = before if last is None else last
        known = {part.path for table in TABLES for part in before.parts(table)}
        new = (p for table in TABLES for p in state.parts(table) if p.path not in known)
        self._get_parts(new)
        has_erased = state.content("tombstones") != last.content("tombstones")
        if has_erased:
            self._disk.put(ERASING, b"", is_durable=True)
        if is_new:
            self._disk.sync()
            text = snapshot.text_of(state)
            self._disk.put(snapshot.key_of(state.number), text.encode(), is_durable=True)
        if has_erased or (self.root / ERASING).exists():
            self.erase_copies(state)

    def erase_copies(self, state: Snapshot) -> None:
        """Remove what the folder has of erased episodes, and states that have them. Older states come again without them."""
        erase_copies(CorpusLayout(self.root), self._disk, tombstones(self.root, state))
        remove_older_states(self.root, self._disk, state)
        self._disk.sync()
        self._disk.remove(self.root / ERASING)

    def _get_parts(self, parts: Iterable[Part]) -> None:
        self.get_files(CommittedFile(part.path, part.num_bytes, part.sha256) for part in parts)

    def get_files(self, files: Iterable[CommittedFile]) -> int:
        """Copy files that are not here yet. The number of those that were copied. What a corpus names is a stranger's: nothing else is written.

        Raises:
            OutsideCorpus: one is no data, video or latents of a dataset, and no catalog file; none was copied.
            DamagedCopy: an object has other bytes than were committed.
            SourceError: it is not there.
        """
        files = list(dict.fromkeys(files))
        check_fetched(file.path for file in files)
        missing = [file for file in files if not self._has(file)]
        if missing:
            for folder in sorted({within(self.root, file.path).parent for file in missing}):
                self._disk.make_dir(folder)
            each_at_once(self._get_file, missing)
        return len(missing)

    def _has(self, file: CommittedFile) -> bool:
        path = within(self.root, file.path)
        return path.is_file() and (file.is_pack or path.stat().st_size == file.num_bytes)

    def _get_file(self, file: CommittedFile) -> None:
        most = MOST_PACK_BYTES if file.num_bytes is None else file.num_bytes
        sha256 = self.store.get_file(file.path, within(self.root, file.path), max_bytes=most)
        if sha256 != file.sha256 and not file.is_pack:
            self._disk.remove(within(self.root, file.path))
            raise DamagedCopy(
                "the object has other bytes than were committed",
                remedy="restore the object from a copy of the corpus",
                where=f"{self.link.uri}/{file.path}",
            )

    def fetch(self, current: Snapshot, *, without_images: bool = False) -> int:
        """Copy every file of every episode, and latents. The number of files that were copied.

        Args:
            without_images: neither videos nor latents of images.
        """
        with self._copying():
            files = committed_files(self.root, current.tables, without_images=without_images)
            return self.get_files(files)

    def fetch_files(self, files: Sequence[CommittedFile]) -> int:
        """`get_files`, while recovery removes none of them."""
        missing = [file for file in files if not self._has(file)]
        if not missing:
            return 0
        with self._copying():
            return self.get_files(missing)

    def fetch_manifests(self) -> None:
        """Copy published manifests, and the states that they were built from. Other objects below `manifests/` are left there."""
        for key in self.store.list(MANIFESTS):
            path = within(self.root, key)
            if is_known(key) and (path.name == NEWEST_FILE or not path.exists()):
                self._disk.make_dir(path.parent)
                self.store.get_file(key, path, max_bytes=MOST_MANIFEST_BYTES)
        for name in manifest_names(self.root):
            with suppress(ConfigError):  # a damaged page is for those who open the manifest
                self.keep_state(load_facts(within(self.root, f"{MANIFESTS}/{name}")).snapshot)

    def share_manifest(self, folder: Path, built_from: int) -> None:
        """Upload a manifest that was published here. Its page comes last. It loses what was erased since the state that it was built from.

        Raises:
            Conflict: another machine has published another one of this name.
            UnknownOutcome: the store does not answer. Build it again: nothing is computed anew.
        """
        before = snapshot.load(self.root, built_from).content("tombstones")
        page = (folder / FACTS_FILE).relative_to(self.root).as_posix()
        is_version = VERSION_NAME.fullmatch(folder.name) is not None
        paths = sorted(folder.iterdir(), key=lambda each: (each.name == FACTS_FILE, each.name))
        # A version is named by its content. Pages of two machines differ in numbers of runs and snapshots.
        for path in () if is_version and self.store.size(page) is not None else paths:
            key = path.relative_to(self.root).as_posix()
            self._share(key, self._disk.get(key, max_bytes=MOST_MANIFEST_BYTES))
        if (newest := folder.parent / NEWEST_FILE).exists():
            self.store.put_file(newest.relative_to(self.root).as_posix(), newest)
        if self.refresh().content("tombstones") != before:
            self.share_redactions()

    def share_redactions(self) -> None:
        """Replace manifests in the bucket that name erased episodes by those of this folder, which do not: the rows last.

        Again where an erasure has landed meanwhile: what was put may have undone its work.

        Raises:
            Conflict: others erase too fast.
        """
        for _ in range(MOST_TRIES):
            before = snapshot.load(self.root).content("tombstones")
            self._put_redactions()
            if self.refresh().content("tombstones") == before:
                return
        raise Conflict(
            f"erasures were committed meanwhile, {MOST_TRIES} times",
            remedy="run the same command again",
            where=self.link.uri,
        )

    def _put_redactions(self) -> None:
        folders = [path.parent for path in self.root.glob(f"{MANIFESTS}/**/{REDACTION_FILE}")]
        names = (REDACTION_FILE, FACTS_FILE, ROWS_FILE)
        paths = [folder / name for folder in sorted(folders) for name in names]
        for path in (self.root / MANIFESTS / ERASED_FILE, *paths):
            key = path.relative_to(self.root).as_posix()
            if not path.is_file():
                continue
            data = self._disk.get(key, max_bytes=MOST_MANIFEST_BYTES)
            if not self._has_bytes(key, data):
                self.store.put(key, data)

    def _share(self, key: str, data: bytes) -> None:
        for _ in range(MOST_TRIES):
            with suppress(UnknownOutcome):
                if self.store.create(key, data) or self._has_bytes(key, data):
                    return
                raise Conflict(
                    "another machine has published another manifest of this name",
                    remedy="choose another name",
                    where=f"{self.link.uri}/{key}",
                )
        raise UnknownOutcome(
            "the store does not say whether it took the manifest",
            remedy="run the same command again when the store answers",
            where=f"{self.link.uri}/{key}",
        )

    # --- writing ------------------------------------------------------------------------------------------------------

    def claim(self, run_id: str) -> Snapshot:
        """Begin a session that adds episodes: take the lane of this folder, or a new one. Returns the state after the claim.

        No request of a session before can land after this: the entry takes the number that it would have created.

        Raises:
            TransientError: the store does not answer.
        """
        self._check_writes()
        self._make_corpus()
        place = place_of(self.root)
        own = self.link.lane if self.link.place == place else ""
        state = before = self.refresh()
        if own and any(e.kind == "seal" and e.lane == own for e in self.log.after(self.link.token)):
            own = ""
        while True:
            number = state.number + 1
            entry = LogEntry(
                number=number,
                run_id=run_id,
                kind="claim",
                lane=own or f"lane-{number}",
                token=number,
                parent=state.commit_id,
            )
            standing = self.log.append(entry)
            state = following(state, standing)
            if standing.commit_id == entry.commit_id:
                break
            if standing.kind == "seal" and standing.lane == own:
                own = ""
        self._keep(state, before)
        left = () if entry.lane == self.link.lane else self.link.lanes
        self._relink(lane=entry.lane, token=number, place=place, left=left or self.link.left)
        return state

    def _relink(self, **changes: Any) -> None:
        self.link = replace(self.link, **changes)
        self._disk.put(LINK, self.link.data, is_durable=True)

    def _check_writes(self) -> None:
        """
        Raises:
            ConfigError: the folder is a copy that `eicorpus pull` has not finished.
        """
        if self.link.is_pull:
            raise ConfigError(
                "a copy that `eicorpus pull` has not finished",
                remedy="run the same `eicorpus pull` again",
                where=str(self.root),
            )

    def _make_corpus(self) -> None:
        """Make the corpus in the bucket, if it is not there yet: by the marker of this folder, or that of another job that was first.

        Raises:
            ConfigError: other objects are at this address, or the store cannot hold a corpus.
        """
        if self.link.corpus_uid:
            return
        probe(self.store)
        marker = self._disk.get(MARKER, max_bytes=MARKER_LIMITS.max_bytes)
        stored = _marker_made(self.store, self.link.uri, marker)
        self._disk.put(MARKER, stored, is_durable=True)
        self._relink(corpus_uid=_uid_in(stored))

    def behind(self, current: Snapshot) -> Snapshot:
        """The state now, before a commit on top of `current` is made. The same object where there is no new commit.

        Raises:
            LaneLost: another session has the lane of this one.
        """
        state = current
        for entry in self.log.after(current.number):
            self._check_lane(entry)
            state = following(state, entry)
        if state is not current:
            self._keep(state, current)
        return state

    def commit(
        self,
        parent: Snapshot,
        tables: Mapping[str, Sequence[Part]],
        run_id: str,
        *,
        copies: Mapping[str, str] = MappingProxyType({}),
    ) -> Snapshot:
        """Upload what the new tables name and make it the next commit, after those that others made since `parent`.

        Args:
            copies: files that are in the bucket under another key and not here, by their path.

        Raises:
            LaneLost: another session has the lane of this one.
            Conflict: another commit has rows of the same episodes, or replaced what this one replaces.
            UnknownOutcome: the store does not say whether the commit was made; the next start finds out.
        """
        self._check_writes()
        self._make_corpus()
        state = parent
        entry = LogEntry(
            number=parent.number + 1,
            run_id=run_id,
            change=change_between(parent, tables),
            lane=self.link.lane,
            token=self.link.token,
            parent=parent.commit_id,
        )
        media = committed_files(self.root, entry.change.added)
        each_at_once(lambda file: self._place(file, copies.get(file.path)), media)
        entry = self._uploaded(entry)
        while True:
            standing = self.log.append(entry)
            is_ours = standing.commit_id == entry.commit_id
            if not is_ours:
                self._check_lane(standing)
                self._check_disjoint(entry.change, standing)
            state = following(state, standing)
            if is_ours:
                break
            is_swept = standing.kind == "sweep"
            if is_swept and any(not self._is_of_lane(file.path) for file in media):
                raise Conflict(
                    "a sweep of uncommitted objects began meanwhile",
                    remedy="run the same command again",
                    where=self.link.uri,
                )
            entry.change.applied(state.tables)  # refused here rather than by every reader
            change = self._renumbered(entry.change, entry.number, state.number + 1)
            entry = replace(entry, number=state.number + 1, change=change, parent=state.commit_id)
            entry = self._uploaded(entry, after_sweep=is_swept)
        if state.number % commit_log.CHECKPOINT_EVERY == 0:
            self.log.write_checkpoint(state)
        self._keep(state, parent)
        for file in media:  # the bucket has it: `fetch` copies it again
            self._disk.remove(within(self.root, file.path))
        return state

    def _check_lane(self, entry: LogEntry) -> None:
        """
        Raises:
            LaneLost: the entry is of another session on this lane.
        """
        is_ours = entry.token == self.link.token and entry.kind != "seal"
        if self.link.lane and entry.lane == self.link.lane and not is_ours:
            raise LaneLost(
                f"another process has taken over {self.link.lane} of this corpus",
                remedy="end the other process, and run the same command again",
                where=str(self.root),
            )

    def _check_disjoint(self, change: Change, other: LogEntry) -> None:
        """
        Raises:
            Conflict: both add rows of one episode to one table.
        """
        try:
            self._get_parts(part for _, part in other.change.parts)
        except SourceError as error:
            if error.code is not Code.MISSING_FILE:
                raise
            raise Conflict(
                "what another writer committed was erased since",
                remedy="run the same command again; no data is lost",
                where=self.link.uri,
            ) from error
        self._check_none_erased(change, other)
        for table in sorted({*change.added} & {*other.change.added}):
            if "uid" not in TABLES[table].names:
                continue
            ours, theirs = (self._uids(each.added[table]) for each in (change, other.change))
            if len(both := ours & theirs):
                raise Conflict(
                    f"another writer has committed {len(both)} of these episodes first ({table})",
                    remedy="run the same command again; no data is lost",
                    where=self.link.uri,
                )

    def _check_none_erased(self, change: Change, other: LogEntry) -> None:
        """
        Raises:
            Conflict: rows of the change are of episodes that the other entry erases.
        """
        erased = self._uids(other.change.added.get("tombstones", ()))
        for table in sorted(change.added) if erased else ():
            if "uid" not in TABLES[table].names or table == "tombstones":
                continue
            if len(both := erased & self._uids(change.added[table])):
                for _, part in change.parts:  # ours alone, and another entry has its number
                    self.store.delete(part.path)
                raise Conflict(
                    f"{len(both)} of these episodes were erased meanwhile ({table})",
                    remedy="run the same command again",
                    where=self.link.uri,
                )

    def _uids(self, parts: Iterable[Part]) -> set[str]:
        tables = [read_table(part.file(self.root), ["uid"])["uid"] for part in parts]
        return {uid for each in tables for uid in pc.unique(each).to_pylist()} - {"", None}

    def _renumbered(self, change: Change, before: int, number: int) -> Change:
        """The same rows, committed under another number."""
        if not {*change.added} & {*NUMBERED}:
            return change
        added = dict(change.added)
        for table in NUMBERED:
            if table in added:
                added[table] = tuple(
                    self._part_renumbered(table, part, before, number) for part in added[table]
                )
        return replace(change, added=added)

    def _part_renumbered(self, table: str, part: Part, before: int, number: int) -> Part:
        rows = read_table(part.file(self.root), TABLES[table].names)
        column = rows["snapshot"]
        moved = pc.if_else(pc.equal(column, before), pa.scalar(number, pa.int64()), column)
        index = rows.schema.get_field_index("snapshot")
        rows = rows.set_column(index, rows.schema.field(index), moved).cast(TABLES[table])
        return snapshot.write_tables(self._disk, self.root, table, [rows])

    def _uploaded(self, entry: LogEntry, *, after_sweep: bool = False) -> LogEntry:
        """The entry with all catalog files that it names durable in the store, under names of its own.

        Args:
            after_sweep: what was uploaded before may be deleted.
        """
        suffix = f"{entry.commit_id[:12]}-{entry.number}"
        change, moved = commit_log.named(entry.change, suffix, all_anew=after_sweep)
        for old, part in moved.items():
            source = within(self.root, old)
            self._disk.hard_link_or_copy(source, within(self.root, part.path))
            self._disk.remove(source)
        each_at_once(self._put_part, list(moved.values()))
        return replace(entry, change=change)

    def _put_part(self, part: Part) -> None:
        self.store.put_file(part.path, within(self.root, part.path))

    def _place(self, file: CommittedFile, source: str | None) -> None:
        """Make an object, which no request can replace any more.

        Args:
            source: the key of an object with these bytes. None: they are in the local file.

        Raises:
            Conflict: as `_refuse`, or the source is gone.
            UnknownOutcome: the store does not answer.
        """
        if file.is_pack:  # its name is of its run: no other process makes it
            if self.store.size(file.path) is None:
                self.store.put_file(file.path, within(self.root, file.path))
            return
        if source is None:
            data = self._disk.get(file.path, max_bytes=file.num_bytes or 0)
            make = partial(self.store.create, file.path, data)
        else:
            make = partial(self._copied, source, file.path)
        for _ in range(MOST_TRIES):
            try:
                if make() or self._is_stored(file):
                    return
            except UnknownOutcome:
                continue
            self._refuse(file.path)
        raise UnknownOutcome(
            "the store does not say whether it took a file",
            remedy="run the same command again when the store answers",
            where=f"{self.link.uri}/{file.path}",
        )

    def _copied(self, source: str, key: str) -> bool:
        try:
            return self.store.create_copy(source, key)
        except SourceError as error:
            raise Conflict(
                "a staged video was removed from the bucket before it was committed",
                remedy="run the same command again; no data is lost",
                where=f"{self.link.uri}/{source}",
            ) from error

    def _is_stored(self, file: CommittedFile) -> bool:
        """Whether an object has the bytes of a file. False for one that a sweep has deleted by now."""
        try:
            if self.store.size(file.path) != file.num_bytes:
                return False
            return self.store.sha256(file.path) == file.sha256
        except SourceError:
            return False

    def _has_bytes(self, key: str, data: bytes) -> bool:
        """Whether an object has these bytes. False for one that a sweep has deleted by now."""
        try:
            return self.store.get(key, max_bytes=len(data) + 1) == data
        except SourceError:
            return False

    def _refuse(self, key: str) -> None:
        """
        Raises:
            LaneLost: what lies there is of a run on this lane that was stopped. The next session gets another lane.
            Conflict: it is of another command.
        """
        if self._is_of_lane(key):
            self._relink(lane="", token=0, left=self.link.lanes)
            raise LaneLost(
                "a stopped run left other bytes under this name; the next session uses a new lane",
                remedy="run the same command again",
                where=f"{self.link.uri}/{key}",
            )
        raise Conflict(
            "other bytes are under this name, which no commit of this corpus names",
            remedy="wait for the command that put them there, or delete the object, and run the same command again",
            where=f"{self.link.uri}/{key}",
        )

    def _is_of_lane(self, path: str) -> bool:
        """Whether this session alone writes objects of this name: data and videos of its lane, which begin with no number that is committed."""
        dataset, _, rest = path.partition(f".{self.link.lane}/")
        return bool(self.link.lane and rest) and "/latents/" not in path and dataset.count("/") == 2

    def finish(self) -> bool:
        """At the end of a session: what is made from the catalog, for those who read the bucket without eicorpus, and the logs of runs.

        Returns:
            Whether an erasure landed meanwhile: `meta/` is to be made again, and this done again.
        """
        if self.link.corpus_uid:
            self.refresh()  # logs and `meta/` lose what was erased meanwhile
        self._collect()
        before = snapshot.load(self.root).content("tombstones")
        meta = [
            path
            for path in sorted(self.root.glob("datasets/*/*/meta/*"))
            if self.link.lane and path.parents[1].name.endswith(f".{self.link.lane}")
        ]
        logs = [*self.root.glob("ledger/*.jsonl"), *self.root.glob("quarantine/*.jsonl")]
        sizes = {e["key"]: e["size"] for room in LOGS for e in self.store.entries(room)}
        for path in (*meta, *logs):
            key = path.relative_to(self.root).as_posix()
            # Logs only grow. A file of `meta/` may change and keep its size.
            if not path.name.startswith(".") and sizes.get(key) != path.stat().st_size:
                self.store.put_file(key, path)
        return bool(self.link.corpus_uid) and self.refresh().content("tombstones") != before


def attach(
    root: Path,
    uri: str,
    store: SharedStore,
    *,
    may_be_absent: bool = False,
    is_pull: bool = False,
) -> WorkingCopy:
    """The working copy at `root` of the corpus in a bucket. Made where it is absent, without its catalog. Nothing is written to the bucket.

    Args:
        may_be_absent: the corpus may not be there yet: its first commit makes it. `layout.open_or_create` makes its marker here.
        is_pull: see `Link`.

    Raises:
        ConfigError: no corpus is there, something else is, or `root` is something else.
        TransientError: the store does not answer.
    """
    link = read_link(root)
    if link is not None and (link.uri != uri or link.is_pull != is_pull):
        raise ConfigError(
            f"is a working copy of {link.uri}", remedy="use another folder", where=str(root)
        )
    if link is not None and link.corpus_uid and (root / MARKER).is_file():
        return WorkingCopy(root, store)
    marker = _marker_of(store)
    if marker is None:
        if not may_be_absent:
            raise ConfigError(
                f"not a corpus (no {MARKER})",
                remedy="correct the address, or make the corpus with `eicorpus ingest --out`",
                where=uri,
            )
        _refuse_others(store, uri)
    disk = LocalStorage(root)
    disk.make_dir(root)
    link = read_link(root) or link  # another command may have made it while the store was asked
    if link is None:
        if any(not entry.name.startswith(".") for entry in root.iterdir()):
            raise ConfigError(
                "the folder is not empty, and no working copy",
                remedy="use an empty or a new folder",
                where=str(root),
            )
        link = Link(uri=uri, corpus_uid="", is_pull=is_pull)
        disk.put(LINK, link.data, is_durable=True)
    if marker is not None:  # last: a stop before it is completed by the next command
        disk.put(LINK, replace(link, corpus_uid=_uid_in(marker)).data, is_durable=True)
        disk.put(MARKER, marker, is_durable=True)
    return WorkingCopy(root, store)


def _marker_of(store: SharedStore) -> bytes | None:
    try:
        return store.get(MARKER, max_bytes=MARKER_LIMITS.max_bytes)
    except SourceError as error:
        if error.code is not Code.MISSING_FILE:
            raise
        return None


def _refuse_others(store: SharedStore, uri: str) -> None:
    """
    Raises:
        ConfigError: objects that are no corpus are at this address.
    """
    others = [key for key in store.list("") if not key.startswith(".")]  # `.probe-…` of another job
    if others and store.size(MARKER) is None:
        raise ConfigError(
            f"objects are here, such as {others[0]}, and no {MARKER}",
            remedy="choose an address below which nothing is",
            where=uri,
        )


def _marker_made(store: SharedStore, uri: str, own: bytes) -> bytes:
    """`corpus.json` of the bucket: `own`, or that of another job that was first."""
    for _ in range(MOST_TRIES):
        marker = _marker_of(store)
        if marker is not None:
            return marker
        _refuse_others(store, uri)
        with suppress(UnknownOutcome):
            store.create(MARKER, own)
    raise UnknownOutcome(
        "the store does not say whether the corpus was made",
        remedy="run the same command again when the store answers",
        where=uri,
    )


def _uid_in(marker: bytes) -> str:
    try:
        return str(parse_json(marker, limits=MARKER_LIMITS)["uid"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot be read: {error!r}", where=MARKER) from error


class DamagedCopy(PipelineError):
    """An object of a bucket is not what was committed, or is gone."""

    exit_code = 1


def each_at_once(transfer: Callable[[T], None], items: Sequence[T]) -> None:
    """Several at a time. The first error is raised when those under way have ended; the others do not begin."""
    if AT_ONCE == 1 or len(items) == 1:
        for item in items:
            transfer(item)
        return
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for done in as_completed([pool.submit(transfer, item) for item in items]):
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
