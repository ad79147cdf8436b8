"""Sessions that add episodes to a corpus in a bucket, each in a lane: LeRobot datasets of its working copy alone, so that two machines never number
the same dataset.

A lane is claimed by an entry of the commit log. The session before is fenced by it: its next commit meets the entry, and ends.
"""

from __future__ import annotations

from ingest.corpus import snapshot
from ingest.corpus.commit_log import LaneLost, LogEntry, following
from ingest.corpus.remote_link import place_of
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.working_copy import WorkingCopy

LOGS = ("ledger", "quarantine")


def claim(copy: WorkingCopy, run_id: str) -> Snapshot:
    """Begin a session that adds episodes: take the lane of this folder, or a new one. Returns the state after the claim.

    No request of a session before can land after this: the entry takes the number that it would have created.

    Raises:
        TransientError: the store does not answer.
    """
    copy.check_writes()
    copy.make_corpus()
    place = place_of(copy.root)
    own = copy.link.lane if copy.link.place == place else ""
    state = before = copy.refresh()
    if own and any(e.kind == "seal" and e.lane == own for e in copy.log.after(copy.link.token)):
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
        standing = copy.log.append(entry)
        state = following(state, standing)
        if standing.commit_id == entry.commit_id:
            break
        if standing.kind == "seal" and standing.lane == own:
            own = ""
    copy.keep(state, before)
    left = () if entry.lane == copy.link.lane else copy.link.lanes
    copy.relink(lane=entry.lane, token=number, place=place, left=left or copy.link.left)
    return state


def check_lane(copy: WorkingCopy, entry: LogEntry) -> None:
    """
    Raises:
        LaneLost: the entry is of another session on this lane.
    """
    is_ours = entry.token == copy.link.token and entry.kind != "seal"
    if copy.link.lane and entry.lane == copy.link.lane and not is_ours:
        raise LaneLost(
            f"another process has taken over {copy.link.lane} of this corpus",
            remedy="end the other process, and run the same command again",
            where=str(copy.root),
        )


def is_of_lane(copy: WorkingCopy, path: str) -> bool:
    """Whether this session alone writes objects of this name: data and videos of its lane, which begin with no number that is committed."""
    dataset, _, rest = path.partition(f".{copy.link.lane}/")
    return bool(copy.link.lane and rest) and "/latents/" not in path and dataset.count("/") == 2


def finish(copy: WorkingCopy) -> bool:
    """At the end of a session: what is made from the catalog, for those who read the bucket without eicorpus, and the logs of runs.

    Returns:
        Whether an erasure landed meanwhile: `meta/` is to be made again, and this done again.
    """
    if copy.link.corpus_uid:
        copy.refresh()  # logs and `meta/` lose what was erased meanwhile
    copy.collect_states()
    before = snapshot.load(copy.root).content("tombstones")
    meta = [
        path
        for path in sorted(copy.root.glob("datasets/*/*/meta/*"))
        if copy.link.lane and path.parents[1].name.endswith(f".{copy.link.lane}")
    ]
    logs = [*copy.root.glob("ledger/*.jsonl"), *copy.root.glob("quarantine/*.jsonl")]
    sizes = {e["key"]: e["size"] for room in LOGS for e in copy.store.entries(room)}
    for path in (*meta, *logs):
        key = path.relative_to(copy.root).as_posix()
        # Logs only grow. A file of `meta/` may change and keep its size.
        if not path.name.startswith(".") and sizes.get(key) != path.stat().st_size:
            copy.store.put_file(key, path)
    return bool(copy.link.corpus_uid) and copy.refresh().content("tombstones") != before
