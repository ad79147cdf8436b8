"""A commit to a corpus in a bucket: it uploads what it names, creates the next entry of the commit log, and becomes a local snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from ingest.corpus import commit_log, concurrent_commits, lanes, media_upload
from ingest.corpus.commit_log import Conflict, LogEntry, change_between, following
from ingest.corpus.committed_files import committed_files
from ingest.corpus.snapshot import Part, Snapshot
from ingest.corpus.transfers import each_at_once
from ingest.corpus.working_copy import WorkingCopy
from schemas.paths import within


def behind(copy: WorkingCopy, current: Snapshot) -> Snapshot:
    """The state now, before a commit on top of `current` is made. The same object where there is no new commit.

    Raises:
        LaneLost: another session has the lane of this one.
    """
    state = current
    for entry in copy.log.after(current.number):
        lanes.check_lane(copy, entry)
        state = following(state, entry)
    if state is not current:
        copy.keep(state, current)
    return state


def commit(
    copy: WorkingCopy,
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
    copy.check_writes()
    copy.make_corpus()
    state = parent
    entry = LogEntry(
        number=parent.number + 1,
        run_id=run_id,
        change=change_between(parent, tables),
        lane=copy.link.lane,
        token=copy.link.token,
        parent=parent.commit_id,
    )
    media = committed_files(copy.root, entry.change.added)
    each_at_once(lambda file: media_upload.place(copy, file, copies.get(file.path)), media)
    entry = _uploaded(copy, entry)
    while True:
        standing = copy.log.append(entry)
        is_ours = standing.commit_id == entry.commit_id
        if not is_ours:
            lanes.check_lane(copy, standing)
            concurrent_commits.check_disjoint(copy, entry.change, standing)
        state = following(state, standing)
        if is_ours:
            break
        is_swept = standing.kind == "sweep"
        if is_swept and any(not lanes.is_of_lane(copy, file.path) for file in media):
            raise Conflict(
                "a sweep of uncommitted objects began meanwhile",
                remedy="run the same command again",
                where=copy.link.uri,
            )
        entry.change.applied(state.tables)  # refused here rather than by every reader
        change = concurrent_commits.renumbered(copy, entry.change, entry.number, state.number + 1)
        entry = replace(entry, number=state.number + 1, change=change, parent=state.commit_id)
        entry = _uploaded(copy, entry, after_sweep=is_swept)
    if state.number % commit_log.CHECKPOINT_EVERY == 0:
        copy.log.write_checkpoint(state)
    copy.keep(state, parent)
    for file in media:  # the bucket has it: `fetch` copies it again
        copy.disk.remove(within(copy.root, file.path))
    return state


def _uploaded(copy: WorkingCopy, entry: LogEntry, *, after_sweep: bool = False) -> LogEntry:
    """The entry with all catalog files that it names durable in the store, under names of its own.

    Args:
        after_sweep: what was uploaded before may be deleted.
    """
    suffix = f"{entry.commit_id[:12]}-{entry.number}"
    change, moved = commit_log.named(entry.change, suffix, all_anew=after_sweep)
    for old, part in moved.items():
        source = within(copy.root, old)
        copy.disk.hard_link_or_copy(source, within(copy.root, part.path))
        copy.disk.remove(source)
    each_at_once(partial(_put_part, copy), list(moved.values()))
    return replace(entry, change=change)


def _put_part(copy: WorkingCopy, part: Part) -> None:
    copy.store.put_file(part.path, within(copy.root, part.path))
