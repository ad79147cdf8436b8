"""Mistakes of the protocol, planted one at a time: schedules must find each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock
from zlib import crc32

from ingest.corpus import commit_log
from ingest.corpus.commit_log import Change, CommitLog, LogEntry
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.working_copy import WorkingCopy
from ingest.maintenance import sweep as sweeping
from schemas.errors import UnknownOutcome


def _claims_without_an_entry(self: WorkingCopy, run_id: str) -> Snapshot:
    """No fencing: a session begins without taking the number that the one before may still create."""
    state = self.refresh()
    lane = self.link.lane or f"lane-{crc32(self.link.uri.encode()) % 10**6 + 1}"
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


def _put_over(self: WorkingCopy, file: CommittedFile) -> None:
    """Media are put, whatever lies there: a late request of a dead process replaces what was committed."""
    self.store.put(file.path, (self.root / file.path).read_bytes())


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

    def commit(self: WorkingCopy, parent: Snapshot, tables: Any, run_id: str) -> Snapshot:
        waiting: list[CommittedFile] = []
        with mock.patch.object(WorkingCopy, "_place", lambda self, file: waiting.append(file)):
            state = real(self, parent, tables, run_id)
        for file in waiting:
            self._place(file)
        return state

    with mock.patch.object(WorkingCopy, "commit", commit):
        yield


def _patch(owner: Any, name: str, mistake: Callable[..., Any]) -> Callable[[], Any]:
    return lambda: mock.patch.object(owner, name, mistake)


PLANTS: dict[str, Callable[[], Any]] = {
    "no_fencing": _patch(WorkingCopy, "claim", _claims_without_an_entry),
    "no_read_back": _patch(CommitLog, "append", _believes),
    "sweep_by_listing": _patch(sweeping, "_append", _says_nothing),
    "commit_before_upload": _commit_before_upload,
    "media_put_over": _patch(WorkingCopy, "_place", _put_over),
    "no_look_for_the_same_episodes": _patch(WorkingCopy, "_check_disjoint", _does_not_look),
    "old_number_kept": _patch(WorkingCopy, "_renumbered", _keeps_the_number),
    "seals_ignored": _patch(WorkingCopy, "_check_lane", _ignores_seals),
}


def found_in(plant: str, seeds: Sequence[int], play: Callable[[int], Any]) -> int | None:
    """The first schedule that finds a mistake; None where none does."""
    with PLANTS[plant]():
        return next((seed for seed in seeds if play(seed).problem), None)
