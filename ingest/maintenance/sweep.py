"""`eicorpus gc` of a corpus in a bucket: objects that no commit names and none will name.

Age alone proves nothing: a process may sleep for days between its upload and its commit. So the log says it first. A `sweep` entry makes every
writer that uploaded catalog files before it upload them again under new names. A `seal` ends a lane that had no commit for long, and the
session that comes back to it gets another one. What was uploaded before these entries and is not named by then can go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ingest.corpus import commit_log, remote_staging, snapshot
from ingest.corpus.commit_log import LogEntry, following
from ingest.corpus.committed_files import committed_files
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.tombstones import tombstones
from ingest.corpus.working_copy import WorkingCopy
from schemas.catalog import TABLES

MEDIA = (
    "data",
    "videos",
)  # of a lane; latents are named by their episode, so another writer may be about to name them
DELETED_AT_ONCE = 1000  # by one request to S3
RUN_KEPT_S = (
    30 * 86400.0
)  # what nodes of a run prove themselves by, and new ones look for as long as it lasts
_LATENTS = re.compile(r"(datasets/[^/]+/[^/]+)/latents/.*episode_([0-9]{6,18})[.][^/]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What was deleted, or would be. `sealed`: lanes without a commit for long."""

    keys: tuple[str, ...]
    num_bytes: int
    sealed: tuple[str, ...]


def sweep(
    copy: WorkingCopy,
    *,
    stale_s: float,
    run_id: str,
    dry_run: bool = False,
    now_s: float = 0.0,
) -> Swept:
    """Delete what no commit names.

    Args:
        stale_s: a lane whose last entry is older than this is sealed.
        dry_run: say what a sweep at this moment would find; change nothing.
        now_s: the moment of a dry run, by the clock of this machine. A sweep goes by the store's.

    Raises:
        Conflict: other writers commit too fast for an entry of ours.
        TransientError: the store does not answer. Run again: what was deleted was not needed.
    """
    state = copy.refresh()
    log = _LogContent()
    for entry in copy.log.after(_first_number(copy) - 1):
        log.add(entry)
    if not dry_run:
        state = _append(copy, state, log, LogEntry(number=1, run_id=run_id, kind="sweep"))
    written_s = {e["key"]: e["modified_s"] for e in copy.store.entries(commit_log.FOLDER)}
    # Of the entry alone: what others commit while we list was uploaded by writers who know of the sweep.
    now_s = max(written_s.get(commit_log.key_of(state.number), 0.0), now_s if dry_run else 0.0)
    sealed = _stale_lanes(log, written_s, now_s - stale_s)
    for lane, token in sealed.items() if not dry_run else ():
        seal = LogEntry(number=1, run_id=run_id, kind="seal", lane=lane, token=token)
        state = _append(copy, state, log, seal)
    ended = {*log.sealed, *sealed}
    listed = [e for room in ("catalog", "datasets") for e in copy.store.entries(room)]
    for entry in copy.log.after(state.number):
        log.add(entry)
    state = copy.refresh()
    named = _named(copy, state, log)
    erased_rows = list(tombstones(copy.root, state))
    erased = {(row.dataset_path, row.episode_index) for row in erased_rows}
    orphans = [
        each
        for each in listed
        if each["key"] not in named
        and (dry_run or each["modified_s"] < now_s)
        and (_is_deletable(each["key"], ended) or _is_of_erased(each["key"], erased))
    ]
    ended_uids = set(state.read(copy.root, "episodes", ["uid"])["uid"].to_pylist())
    ended_uids.update(row.uid for row in erased_rows)
    orphans += _left_in_staging(copy, ended_uids, now_s, now_s - stale_s)
    keys = [each["key"] for each in orphans] if not dry_run else []
    for first in range(0, len(keys), DELETED_AT_ONCE):
        copy.store.delete_all(keys[first : first + DELETED_AT_ONCE])
    return Swept(
        keys=tuple(each["key"] for each in orphans),
        num_bytes=sum(each["size"] for each in orphans),
        sealed=tuple(sorted(sealed)),
    )


def _first_number(copy: WorkingCopy) -> int:
    keys = copy.store.list(commit_log.FOLDER)
    return min((number for key in keys if (number := commit_log.number_of(key))), default=1)


@dataclass(slots=True, kw_only=True)
class _LogContent:
    """What a sweep needs of all entries. Entries have the sizes and digests of parts too, which are not kept."""

    parts: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)  # parts that an erasure has replaced
    last: dict[str, tuple[int, int]] = field(default_factory=dict)  # lane: number, token
    sealed: set[str] = field(default_factory=set)

    def add(self, entry: LogEntry) -> None:
        self.parts.update(part.path for _, part in entry.change.parts)
        if entry.erasure is not None:
            self.parts.update(part.path for _, part in entry.erasure.parts)
            self.erased.update(entry.erasure.instead)
        if entry.lane:
            self.last[entry.lane] = entry.number, entry.token
        if entry.kind == "seal":
            self.sealed.add(entry.lane)


def _append(copy: WorkingCopy, state: Snapshot, log: _LogContent, new: LogEntry) -> Snapshot:
    """The state after an entry of ours, whatever others commit meanwhile. All of them join `log`."""
    while True:
        entry = replace(new, number=state.number + 1, parent=state.commit_id)
        standing = copy.log.append(entry)
        state = following(state, standing)
        log.add(standing)
        if standing.commit_id == entry.commit_id:
            return state


def _stale_lanes(log: _LogContent, written_s: dict[str, float], before_s: float) -> dict[str, int]:
    """Lane -> the token of its last session, of those that are not sealed and had no entry since `before_s`."""
    return {
        lane: token
        for lane, (number, token) in log.last.items()
        if lane not in log.sealed and written_s.get(commit_log.key_of(number), before_s) < before_s
    }


def _named(copy: WorkingCopy, state: Snapshot, log: _LogContent) -> set[str]:
    """Every key that a commit or a checkpoint names."""
    named = {file.path for file in committed_files(copy.root, state.tables)}
    named |= {part.path for table in TABLES for part in state.parts(table)}
    named |= log.parts
    checkpoints = snapshot.numbers_in(copy.store.list(snapshot.FOLDER))
    with ThreadPoolExecutor(commit_log.AT_ONCE) as pool:
        for paths in pool.map(lambda number: _parts_at(copy, number), checkpoints):
            named.update(paths)
    return named - log.erased


def _parts_at(copy: WorkingCopy, number: int) -> Iterable[str]:
    state = snapshot.load_from(copy.store, number)
    return [part.path for table in TABLES for part in state.parts(table)]


def _is_of_erased(key: str, erased: set[tuple[str | None, int | None]]) -> bool:
    """Whether it is latents in the place of an erased episode: a command that encoded it meanwhile may have uploaded them."""
    match = _LATENTS.fullmatch(key)
    return match is not None and (match[1], int(match[2])) in erased


def _left_in_staging(
    copy: WorkingCopy, ended_uids: Set[str | None], now_s: float, before_s: float
) -> list[dict[str, Any]]:
    """What workers uploaded of episodes that are committed or erased, or long ago. Who still needs it plans the work again."""
    return [
        dict(each)
        for each in copy.store.entries(remote_staging.FOLDER)
        if each["modified_s"]
        < (before_s if remote_staging.uid_in(each["key"]) else now_s - RUN_KEPT_S)
        or (each["modified_s"] < now_s and remote_staging.uid_in(each["key"]) in ended_uids)
    ]


def _is_deletable(key: str, ended: set[str]) -> bool:
    parts = key.split("/")
    if parts[0] == "catalog":
        return len(parts) == 3 and parts[1] in TABLES
    is_media = len(parts) > 4 and parts[3] in MEDIA
    return is_media and any(parts[2].endswith(f".{lane}") for lane in ended)
