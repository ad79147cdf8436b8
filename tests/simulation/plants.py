"""Mistakes of the protocol, planted one at a time: schedules must find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from ingest.corpus import commit_log
from ingest.corpus.commit_log import Change, CommitLog, Conflict, LogEntry
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.remote_staging import RemoteStaging
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.staging import STAGED
from ingest.corpus.working_copy import WorkingCopy
from ingest.maintenance import sweep as sweeping
from ingest.storage.local import LocalStorage
from schemas.errors import SourceError, UnknownOutcome
from schemas.outcome import Outcome


def _claims_without_an_entry(self: WorkingCopy, run_id: str) -> Snapshot:
    """No fencing: a session begins without taking the number that the one before may still create."""
    state = self.refresh()
    lane = self.link.lane or f"lane-{abs(hash(self.link.uri)) % 10**6 + 1}"
    self.link = replace(self.link, lane=lane, token=1)
    self._disk.put(".remote.json", self.link.data, is_durable=True)
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


def _put_over(self: WorkingCopy, file: CommittedFile, source: str | None) -> None:
    """Media are put, whatever lies there: a late request of a dead process replaces what was committed."""
    data = (
        self.store.get(source, max_bytes=1 << 20)
        if source
        else (self.root / file.path).read_bytes()
    )
    self.store.put(file.path, data)


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


def _does_not_look(self: WorkingCopy, change: Change, other: LogEntry) -> None:
    """Rows of an episode that another writer has committed are added again."""


def _keeps_the_number(self: WorkingCopy, change: Change, before: int, number: int) -> Change:
    """A commit that moves to a later number keeps rows that say the earlier one."""
    return change


def _says_nothing(
    copy: WorkingCopy, state: Snapshot, entries: list[LogEntry], new: LogEntry
) -> Snapshot:
    """A sweep that goes by a listing, without a word to writers that have uploaded and not committed."""
    return state


def _ignores_seals(self: WorkingCopy, entry: LogEntry) -> None:
    """A session goes on although its lane was sealed or claimed."""


@contextmanager
def _commit_before_upload() -> Iterator[None]:
    """The entry is made first, and media follow."""
    real = WorkingCopy.commit

    def commit(self: WorkingCopy, *words: Any, **copies: Any) -> Snapshot:
        waiting: list[tuple[CommittedFile, str | None]] = []
        with mock.patch.object(WorkingCopy, "_place", lambda self, *file: waiting.append(file)):
            state = real(self, *words, **copies)
        for file in waiting:
            self._place(*file)
        return state

    with mock.patch.object(WorkingCopy, "commit", commit):
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
    "no_fencing": _patch(WorkingCopy, "claim", _claims_without_an_entry),
    "no_read_back": _patch(CommitLog, "append", _believes),
    "sweep_by_listing": _patch(sweeping, "_append", _says_nothing),
    "commit_before_upload": _commit_before_upload,
    "media_put_over": _patch(WorkingCopy, "_place", _put_over),
    "rows_of_any_attempt": _two_mistakes,
    "no_look_for_the_same_episodes": _patch(WorkingCopy, "_check_disjoint", _does_not_look),
    "old_number_kept": _patch(WorkingCopy, "_renumbered", _keeps_the_number),
    "seals_ignored": _patch(WorkingCopy, "_check_lane", _ignores_seals),
}


def found_in(plant: str, seeds: Sequence[int], play: Callable[[int], Any]) -> int | None:
    """The first schedule that finds a mistake; None where none does."""
    with PLANTS[plant]():
        return next((seed for seed in seeds if play(seed).problem), None)
