"""Data, videos and latents on their way into a bucket, before the commit that names them.

Objects are only created, so a late request of a process that died changes nothing that was committed. Where a stopped run left other bytes
under a name, the session goes on in a new lane.
"""

from __future__ import annotations

from functools import partial

from ingest.corpus import lanes
from ingest.corpus.commit_log import Conflict, LaneLost
from ingest.corpus.committed_files import CommittedFile
from ingest.corpus.shared_store import MOST_TRIES
from ingest.corpus.working_copy import WorkingCopy
from schemas.errors import SourceError, UnknownOutcome
from schemas.paths import within


def place(copy: WorkingCopy, file: CommittedFile, source: str | None) -> None:
    """Make an object, which no request can replace any more.

    Args:
        source: the key of an object with these bytes. None: they are in the local file.

    Raises:
        Conflict: as `_refuse`, or the source is gone.
        UnknownOutcome: the store does not answer.
    """
    if file.is_pack:  # its name is of its run: no other process makes it
        if copy.store.size(file.path) is None:
            copy.store.put_file(file.path, within(copy.root, file.path))
        return
    if source is None:
        data = copy.disk.get(file.path, max_bytes=file.num_bytes or 0)
        make = partial(copy.store.create, file.path, data)
    else:
        make = partial(_copied, copy, source, file.path)
    for _ in range(MOST_TRIES):
        try:
            if make() or _is_stored(copy, file):
                return
        except UnknownOutcome:
            continue
        _refuse(copy, file.path)
    raise UnknownOutcome(
        "the store does not say whether it took a file",
        remedy="run the same command again when the store answers",
        where=f"{copy.link.uri}/{file.path}",
    )


def _copied(copy: WorkingCopy, source: str, key: str) -> bool:
    try:
        return copy.store.create_copy(source, key)
    except SourceError as error:
        raise Conflict(
            "a staged video was removed from the bucket before it was committed",
            remedy="run the same command again; no data is lost",
            where=f"{copy.link.uri}/{source}",
        ) from error


def _is_stored(copy: WorkingCopy, file: CommittedFile) -> bool:
    """Whether an object has the bytes of a file. False for one that a sweep has deleted by now."""
    try:
        if copy.store.size(file.path) != file.num_bytes:
            return False
        return copy.store.sha256(file.path) == file.sha256
    except SourceError:
        return False


def _refuse(copy: WorkingCopy, key: str) -> None:
    """
    Raises:
        LaneLost: what lies there is of a run on this lane that was stopped. The next session gets another lane.
        Conflict: it is of another command.
    """
    if lanes.is_of_lane(copy, key):
        copy.relink(lane="", token=0, left=copy.link.lanes)
        raise LaneLost(
            "a stopped run left other bytes under this name; the next session uses a new lane",
            remedy="run the same command again",
            where=f"{copy.link.uri}/{key}",
        )
    raise Conflict(
        "other bytes are under this name, which no commit of this corpus names",
        remedy="wait for the command that put them there, or delete the object, and run the same command again",
        where=f"{copy.link.uri}/{key}",
    )
