"""`eicorpus gc` of a corpus in a bucket: objects that no commit names and none will name.

Age alone proves nothing: a process may sleep for days between its upload and its commit. So the log says it first. A `sweep` entry makes every
writer that uploaded catalog files before it upload them again under new names. A `seal` ends a lane that had no commit for long, and the
session that comes back to it gets another one. What was uploaded before these entries and is not named by then can go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ingest.corpus import commit_log, remote_staging, snapshot
from ingest.corpus.commit_log import LogEntry, following
from ingest.corpus.committed_files import committed_files
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.working_copy import WorkingCopy
from schemas.catalog import TABLES

MEDIA = (
    "data",
    "videos",
)  # of a lane; latents are named by their episode, so another writer may be about to name them


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What was deleted, or would be. `sealed`: lanes without a commit for long."""

    keys: tuple[str, ...]
    num_bytes: int
    sealed: tuple[str, ...]


def sweep(copy: WorkingCopy, *, stale_s: float, run_id: str, dry_run: bool = False) -> Swept:
    """Delete what no commit names.

    Args:
        stale_s: a lane whose last entry is older than this is sealed.
        dry_run: say what a sweep at this moment would find; change nothing.

    Raises:
        Conflict: other writers commit too fast for an entry of ours.
        TransientError: the store does not answer. Run again: what was deleted was not needed.
    """
    state = copy.refresh()
    entries = list(copy.log.after(_first_number(copy) - 1))
    if not dry_run:
        state = _append(copy, state, entries, LogEntry(number=1, run_id=run_id, kind="sweep"))
    written_s = {e["key"]: e["modified_s"] for e in copy.store.entries(commit_log.FOLDER)}
    # Of the entry alone: what others commit while we list was uploaded by writers who know of the sweep.
    now_s = written_s.get(commit_log.key_of(state.number), 0.0)
    sealed = _stale_lanes(entries, written_s, now_s - stale_s)
    for lane, token in sealed.items() if not dry_run else ():
        seal = LogEntry(number=1, run_id=run_id, kind="seal", lane=lane, token=token)
        state = _append(copy, state, entries, seal)
    ended = {e.lane for e in entries if e.kind == "seal"} | {*sealed}
    listed = [e for room in ("catalog", "datasets") for e in copy.store.entries(room)]
    entries += copy.log.after(state.number)
    named = _named(copy, copy.refresh(), entries)
    orphans = [
        each
        for each in listed
        if each["key"] not in named
        and (dry_run or each["modified_s"] < now_s)
        and _is_deletable(each["key"], ended)
    ]
    orphans += _left_in_staging(copy, now_s, stale_s)
    for each in orphans if not dry_run else ():
        copy.store.delete(each["key"])
    return Swept(
        keys=tuple(each["key"] for each in orphans),
        num_bytes=sum(each["size"] for each in orphans),
        sealed=tuple(sorted(sealed)),
    )


def _first_number(copy: WorkingCopy) -> int:
    keys = copy.store.list(commit_log.FOLDER)
    return min((number for key in keys if (number := commit_log.number_of(key))), default=1)


def _append(copy: WorkingCopy, state: Snapshot, entries: list[LogEntry], new: LogEntry) -> Snapshot:
    """The state after an entry of ours, whatever others commit meanwhile. All of them join `entries`."""
    while True:
        entry = replace(new, number=state.number + 1, parent=state.commit_id)
        standing = copy.log.append(entry)
        state = following(state, standing)
        entries.append(standing)
        if standing.commit_id == entry.commit_id:
            return state


def _stale_lanes(
    entries: list[LogEntry], written_s: dict[str, float], before_s: float
) -> dict[str, int]:
    """Lane -> the token of its last session, of those that are not sealed and had no entry since `before_s`."""
    last: dict[str, LogEntry] = {}
    for entry in entries:
        if entry.lane:
            last[entry.lane] = entry
    return {
        lane: entry.token
        for lane, entry in last.items()
        if entry.kind != "seal"
        and written_s.get(commit_log.key_of(entry.number), before_s) < before_s
    }


def _named(copy: WorkingCopy, state: Snapshot, entries: list[LogEntry]) -> set[str]:
    """Every key that a commit or a checkpoint names."""
    named = {file.path for file in committed_files(copy.root, state.tables)}
    named |= {part.path for table in TABLES for part in state.parts(table)}
    named |= {part.path for entry in entries for _, part in entry.change.parts}
    for number in snapshot.numbers_in(copy.store.list(snapshot.FOLDER)):
        named |= {p.path for t in TABLES for p in snapshot.load_from(copy.store, number).parts(t)}
    return named


def _left_in_staging(copy: WorkingCopy, now_s: float, stale_s: float) -> list[dict[str, Any]]:
    """What workers uploaded of episodes that are committed, or long ago. Who still needs it plans the work again."""
    staged = [dict(each) for each in copy.store.entries(remote_staging.FOLDER)]
    if not staged:
        return []
    current = snapshot.load(copy.root)
    committed = set(current.read(copy.root, "episodes", ["uid"])["uid"].to_pylist())
    return [
        each
        for each in staged
        if each["modified_s"] < now_s - stale_s
        or (each["modified_s"] < now_s and remote_staging.uid_in(each["key"]) in committed)
    ]


def _is_deletable(key: str, ended: set[str]) -> bool:
    parts = key.split("/")
    if parts[0] == "catalog":
        return len(parts) == 3 and parts[1] in TABLES
    is_media = len(parts) > 4 and parts[3] in MEDIA
    return is_media and any(parts[2].endswith(f".{lane}") for lane in ended)
