"""Mistakes of the protocol, planted one at a time: schedules must find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import get_ident
from typing import Any
from unittest import mock
from zlib import crc32

from ingest.corpus import (
    bucket_commit,
    commit_log,
    concurrent_commits,
    lanes,
    media_upload,
    shared_manifests,
    working_copy,
)
from ingest.corpus.bucket_copies import BucketCopies
from ingest.corpus.commit import Committer
from ingest.corpus.commit_log import Change, CommitLog, Conflict, LogEntry
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.remote_staging import RemoteStaging
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.staging import STAGED
from ingest.corpus.working_copy import WorkingCopy
from ingest.maintenance import sweep as sweeping
from ingest.storage.local import LocalStorage
from schemas.errors import SourceError, UnknownOutcome
from schemas.manifest import FACTS_FILE
from schemas.outcome import Outcome
from tests.simulation.store import SimStore


def _claims_without_an_entry(copy: WorkingCopy, run_id: str) -> Snapshot:
    """No fencing: a session begins without taking the number that the one before may still create."""
    state = copy.refresh()
    lane = copy.link.lane or f"lane-{crc32(copy.link.uri.encode()) % 10**6 + 1}"
    copy.link = replace(copy.link, lane=lane, token=1)
    copy.disk.put(".remote.json", copy.link.data, is_durable=True)
    return state


def _believes(self: CommitLog, entry: LogEntry) -> LogEntry:
    """No read-back: a create without an answer is taken for a commit."""
    try:
        if self.store.create(commit_log.key_of(entry.number), entry.data):
            return entry
    except UnknownOutcome:
        return entry
    standing = self.entry(entry.number)
    assert standing is not None
    return standing


def _put_over(copy: WorkingCopy, file: CommittedFile, source: str | None) -> None:
    """Media are put, whatever lies there: a late request of a dead process replaces what was committed."""
    data = (
        copy.store.get(source, max_bytes=1 << 20)
        if source
        else (copy.root / file.path).read_bytes()
    )
    copy.store.put(file.path, data)


def _any_attempt(self: RemoteStaging, folder: Path, outcome: Outcome, disk: LocalStorage) -> None:
    """The rows that lie in the bucket are taken for those of the attempt whose outcome came."""
    try:
        data = self.store.get(f"{self.folder}/{STAGED}", max_bytes=1 << 20)
    except SourceError as error:
        raise Conflict("gone") from error
    disk.make_dir(folder)
    disk.write(folder / STAGED, data)


def _believes_staged(self: RemoteStaging, folder: Path, outcome: Outcome) -> Outcome:
    """The second of two attempts at an episode takes its own outcome for the one that counts."""
    for video in outcome.staged.videos if outcome.staged else ():
        self.store.put_file(self.video(video), folder / video["name"])
    for _ in range(8):
        with suppress(UnknownOutcome):
            self.store.create(f"{self.folder}/{STAGED}", (folder / STAGED).read_bytes())
            break
    return outcome


def _does_not_look(copy: WorkingCopy, change: Change, other: LogEntry) -> None:
    """Rows of an episode that another writer has committed are added again."""


def _keeps_the_number(copy: WorkingCopy, change: Change, before: int, number: int) -> Change:
    """A commit that moves to a later number keeps rows that say the earlier one."""
    return change


def _says_nothing(
    copy: WorkingCopy, state: Snapshot, entries: list[LogEntry], new: LogEntry
) -> Snapshot:
    """A sweep that goes by a listing, without a word to writers that have uploaded and not committed."""
    return state


def _ignores_seals(copy: WorkingCopy, entry: LogEntry) -> None:
    """A session goes on although its lane was sealed or claimed."""


def _one_lane(copy: WorkingCopy, run_id: str) -> Snapshot:
    """All working copies write to the same datasets."""
    copy.relink(lane="lane-1", token=1)
    state = _CLAIM(copy, run_id)
    copy.relink(lane="lane-1")
    return state


_CLAIM, _APPEND, _CHANGE_APPLIED = lanes.claim, sweeping._append, Change.applied
_UPLOADED = bucket_commit._uploaded
_COMMITTED_SINCE = Committer._committed_since


def _seals_in_silence(
    copy: WorkingCopy, state: Snapshot, entries: list[LogEntry], new: LogEntry
) -> Snapshot:
    """Lanes are swept by their age, and their writers are not told."""
    return state if new.kind == "seal" else _APPEND(copy, state, entries, new)


def _keeps_its_names(copy: WorkingCopy, entry: LogEntry, *, after_sweep: bool = False) -> LogEntry:
    """A writer that meets a sweep commits what it had uploaded before."""
    return _UPLOADED(copy, entry)


def _forgets_what_came_between(self: Committer, before: Snapshot) -> Set[str]:
    """What others commit while a batch is committed is not left out of the next ones."""
    is_after_own = self.parent.run_id == self.run_id
    return set() if is_after_own else _COMMITTED_SINCE(self, before)


def _takes_what_lies_there(copy: WorkingCopy, file: CommittedFile) -> bool:
    """An object that is there already is taken for the one that was to be made."""
    return True


def _replaces_blindly(self: Change, tables: Any) -> dict[str, tuple[Part, ...]]:
    """Parts are replaced whether or not they are still there."""
    gone = {
        table: replace(new, instead_of=tuple(each for each in new.instead_of if each in known))
        for table, new in self.replaced.items()
        for known in [{part.path for part in tables.get(table, ())}]
    }
    return _CHANGE_APPLIED(replace(self, replaced=gone), tables)


def _believes_bytes(self: BucketCopies, file: CommittedFile) -> None:
    """What was copied is not compared with what was committed."""
    self.store.get_file(file.path, self.root / file.path)


def _share_page_first(copy: WorkingCopy, folder: Path, built_from: int) -> None:
    """The page of a manifest is published before its rows."""
    for path in sorted(folder.iterdir(), key=lambda each: each.name != FACTS_FILE):
        key = path.relative_to(copy.root).as_posix()
        shared_manifests._share(copy, key, copy.disk.get(key, max_bytes=1 << 30))


def _share_over(copy: WorkingCopy, key: str, data: bytes) -> None:
    """A manifest of the same name is replaced."""
    copy.store.put(key, data)


@contextmanager
def _any_history() -> Iterator[None]:
    """Nobody asks whether a commit follows the one that it was made on."""

    def following(state: Snapshot, entry: LogEntry) -> Snapshot:
        return _FOLLOWING(replace(state, commit_id=""), entry)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(CommitLog, "_check_history"))
        for module in (commit_log, bucket_commit, lanes, sweeping):
            stack.enter_context(mock.patch.object(module, "following", following))
        yield


_FOLLOWING = commit_log.following


@contextmanager
def _no_conditions() -> Iterator[None]:
    """A store that ignores conditions, and no probe that notices it."""

    def create(self: SimStore, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    with (
        mock.patch.object(SimStore, "create", create),
        mock.patch.object(working_copy, "probe"),
    ):
        yield


@contextmanager
def _commit_before_upload() -> Iterator[None]:
    """The entry is made first, and media follow."""
    commit, place = bucket_commit.commit, media_upload.place
    waiting: dict[int, list[Any]] = {}  # of the thread that commits

    def commit_first(*words: Any, **copies: Any) -> Snapshot:
        waiting[get_ident()] = []
        state = commit(*words, **copies)
        for file in waiting.pop(get_ident()):
            place(*file)
        return state

    def place_later(*file: Any) -> None:
        waiting[get_ident()].append(file)

    with (
        mock.patch.object(bucket_commit, "commit", commit_first),
        mock.patch.object(media_upload, "place", place_later),
    ):
        yield


@contextmanager
def _two_mistakes() -> Iterator[None]:
    """Neither the worker nor the committer compares: rows of one attempt are committed with videos of another."""
    with (
        mock.patch.object(RemoteStaging, "fetch_rows", _any_attempt),
        mock.patch.object(RemoteStaging, "upload", _believes_staged),
    ):
        yield


def _patch(owner: Any, name: str, mistake: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: mock.patch.object(owner, name, mistake)


PLANTS: dict[str, Callable[[], Any]] = {
    "no_fencing": _patch(lanes, "claim", _claims_without_an_entry),
    "no_read_back": _patch(CommitLog, "append", _believes),
    "sweep_by_listing": _patch(sweeping, "_append", _says_nothing),
    "commit_before_upload": _commit_before_upload,
    "media_put_over": _patch(media_upload, "place", _put_over),
    "rows_of_any_attempt": _two_mistakes,
    "no_look_for_the_same_episodes": _patch(concurrent_commits, "check_disjoint", _does_not_look),
    "old_number_kept": _patch(concurrent_commits, "renumbered", _keeps_the_number),
    "seals_ignored": _patch(lanes, "check_lane", _ignores_seals),
    "one_lane": _patch(lanes, "claim", _one_lane),
    "seals_in_silence": _patch(sweeping, "_append", _seals_in_silence),
    "names_kept_after_a_sweep": _patch(bucket_commit, "_uploaded", _keeps_its_names),
    "media_not_compared": _patch(media_upload, "_is_stored", _takes_what_lies_there),
    "commits_between_forgotten": _patch(Committer, "_committed_since", _forgets_what_came_between),
    "replaced_blindly": _patch(Change, "applied", _replaces_blindly),
    "copies_not_compared": _patch(BucketCopies, "_get_file", _believes_bytes),
    "manifest_before_its_rows": _patch(shared_manifests, "share_manifest", _share_page_first),
    "manifest_put_over": _patch(shared_manifests, "_share", _share_over),
    "any_history": _any_history,
    "no_conditions": _no_conditions,
}


def found_in(plant: str, seeds: Sequence[int], play: Callable[[int], Any]) -> int | None:
    """The first schedule that finds a mistake, and nothing without it; None where none does."""
    for seed in seeds:
        with PLANTS[plant]():
            is_found = bool(play(seed).problem)
        if is_found and not play(seed).problem:
            return seed
    return None
