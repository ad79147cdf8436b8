"""Reviews: accepted into a journal at any time, also beside a writer, and published in the table `reviews` by the next writer.

The writer adds the rows of all files of the journal under one snapshot and deletes the files. A stop in between leaves files whose
review_ids the snapshot has: the next writer adds none of them again. Reviews of an erased episode are dropped. They are no part of an
episode's content digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import publishing, review_journal, snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.review_journal import FOLDER, as_json
from ingest.corpus.snapshot import Snapshot
from ingest.storage.local import LocalStorage
from ingest.storage.write_refusal import refused_write
from schemas.catalog_rows import as_dict
from schemas.errors import ConfigError
from schemas.review import Review


class OtherReview(ConfigError):
    """A review_id belongs to another review."""


class NoSuchPlace(ConfigError):
    """A review is of an episode, of timesteps or of a snapshot that the corpus does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The answer to one submitted review: it is on the disk."""

    review_id: str
    is_pending: bool  # False: a snapshot has it
    is_new: bool  # False: it was stored before


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReview:
    """A review, and whether it waits for the next writer."""

    review: Review
    is_pending: bool


def submit(
    corpus: CorpusLayout,
    reviews: Sequence[Review],
    wait_s: float = review_journal.LOCK_WAIT_S,
) -> tuple[Receipt, ...]:
    """Store reviews durably in the journal. Needs no writer lock; a repeated review_id adds nothing.

    All are checked before the first is stored. More than `review_journal.MOST_OF_FILE` are several files: the error of a full disk says
    how many are stored, and the same call again stores the rest.

    Raises:
        NoSuchPlace, OtherReview: nothing is stored.
        ConfigError: the journal is damaged or cannot be written.
        LockHeld: another process holds the journal for longer than `wait_s`; nothing is stored.
        TransientError: the disk is full.
    """
    disk = LocalStorage(corpus.root)
    num_stored, new = 0, list[Review]()
    try:
        with review_journal.held(corpus, disk, wait_s):
            pending = _by_id(_pending(corpus))
            current = snapshot.load(corpus.root)
            known = _by_id(_published_among(corpus, current, reviews))
            _check_places(corpus, current, reviews)
            new = _unknown(reviews, pending | known)
            for num_stored in review_journal.store(disk, new):  # noqa: B007
                pass
    except OSError as error:
        refusal = refused_write(error, corpus.root / FOLDER)
        if num_stored:
            stored = f"{num_stored} of {len(new)} new reviews are stored"
            refusal.message = f"{refusal.message}; {stored}"
        raise refusal from error
    waiting = {each.review_id for each in new}
    return tuple(
        Receipt(
            review_id=each.review_id,
            is_pending=each.review_id not in known,
            is_new=each.review_id in waiting,
        )
        for each in reviews
    )


def read(
    corpus: CorpusLayout, current: Snapshot | None = None, uid: str | None = None
) -> list[StoredReview]:
    """All reviews of the corpus, or those of one episode, by time. Pending are those that `current` does not have; default: the newest snapshot.

    Raises:
        ConfigError: the journal or the table is damaged.
    """
    # The journal first: what a writer moves out of it meanwhile is in the snapshot that is loaded then.
    rows = _by_id(_pending(corpus))
    newest = snapshot.load(corpus.root)
    published_now = published(corpus, newest, uid)
    if current is None or current.number == newest.number:
        published_then = published_now
    else:
        published_then = published(corpus, current, uid)
    known = {each.review_id for each in published_then}
    rows |= _by_id(published_now)
    kept = (each for each in rows.values() if uid is None or each.uid == uid)
    return [
        StoredReview(review=each, is_pending=each.review_id not in known)
        for each in sorted(kept, key=lambda each: (each.at, each.review_id))
    ]


def published(corpus: CorpusLayout, current: Snapshot, uid: str | None = None) -> list[Review]:
    """The rows of the table.

    Raises:
        DamagedCatalog: a row breaks the rules of a review.
    """
    return _rows(corpus, current, None if uid is None else pc.field("uid") == uid)


def _rows(corpus: CorpusLayout, current: Snapshot, only: pc.Expression | None) -> list[Review]:
    try:
        return current.rows(corpus.root, Review, only=only)
    except DamagedCatalog:
        raise
    except ValueError as error:
        problem = f"a row is not a review: {error}"
        remedy = "run `eicorpus verify`"
        raise DamagedCatalog(problem, remedy=remedy, where="table reviews") from error


def in_force(rows: Iterable[Review]) -> list[Review]:
    """Those that no other review of the same episode supersedes, oldest first."""
    rows = sorted(rows, key=lambda each: (each.at, each.review_id))
    superseded = {(each.uid, each.supersedes) for each in rows}
    return [each for each in rows if (each.uid, each.review_id) not in superseded]


def reviews_sha256(rows: Sequence[Review]) -> str:
    """Which reviews there are, in any order of writing; "" for none."""
    if not rows:
        return ""
    text = json.dumps([as_json(each) for each in sorted(rows, key=lambda each: each.review_id)])
    return hashlib.sha256(text.encode()).hexdigest()


def has_pending(corpus: CorpusLayout) -> bool:
    """Whether a submission waits for the next writer."""
    return bool(review_journal.keys(corpus))


def num_pending(corpus: CorpusLayout, current: Snapshot) -> int:
    """How many reviews `current` does not have, by their ids alone: of a million published ones none becomes an object.

    Raises:
        ConfigError: the journal or the table is damaged.
    """
    waiting = [each.review_id for each in _pending(corpus)]  # the journal first, as in `read`
    newest = snapshot.load(corpus.root)
    if not waiting and newest.content("reviews") == current.content("reviews"):
        return 0
    known, now = (
        each.read(corpus.root, "reviews", ["review_id"])["review_id"] for each in (current, newest)
    )
    every = pc.unique(pa.chunked_array([*now.chunks, pa.array(waiting, pa.string())]))
    return int(pc.sum(pc.invert(pc.is_in(every, value_set=known))).as_py() or 0)


def publish_pending(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Move the journal into the catalog. The caller holds the writer lock.

    Raises:
        ConfigError: a file of the journal is damaged.
        TransientError: another process holds the journal.
    """
    if not review_journal.keys(corpus):
        return
    disk.sync()  # what the writer has changed so far: it may take minutes, and reviewers wait for the journal
    with review_journal.held(corpus, disk):
        keys = review_journal.keys(corpus)
        current = snapshot.load(corpus.root)
        known = set(current.read(corpus.root, "reviews", ["review_id"])["review_id"].to_pylist())
        pending = review_journal.read_all(corpus, keys)
        alive = _lengths(corpus, current, {each.uid for each in pending}).keys()
        rows: dict[str, Review] = {}
        for each in sorted(pending, key=lambda each: (each.at, each.review_id)):
            if each.review_id not in known and each.uid in alive:
                rows.setdefault(each.review_id, each)
        if rows:
            part = snapshot.write_part(disk, corpus.root, Review, rows.values())
            run_id = f"reviews.{part.sha256[:16]}"
            publishing.publish(disk, corpus.root, current, {Review.TABLE: part}, run_id)
        store = disk.at(corpus.root)
        for key in keys:
            store.delete(key)


def sweep_submissions(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Remove what killed submitters left."""
    if (corpus.root / FOLDER).is_dir():
        with review_journal.held(corpus, disk):
            pass


def _pending(corpus: CorpusLayout) -> list[Review]:
    return review_journal.read_all(corpus, review_journal.keys(corpus))


def _by_id(reviews: Iterable[Review]) -> dict[str, Review]:
    return {each.review_id: each for each in reviews}


def _published_among(
    corpus: CorpusLayout, current: Snapshot, reviews: Iterable[Review]
) -> list[Review]:
    """Those of the table with the review_id of one of these."""
    ids = pa.array(sorted({each.review_id for each in reviews}), pa.string())
    return _rows(corpus, current, pc.field("review_id").isin(ids))


def _unknown(reviews: Iterable[Review], stored: dict[str, Review]) -> list[Review]:
    """Those that are not stored yet, each once.

    Raises:
        OtherReview: another review has the review_id.
    """
    new: dict[str, Review] = {}
    for each in reviews:
        other = new.get(each.review_id) or stored.get(each.review_id)
        if other is None:
            new[each.review_id] = each
        elif _content(other) != _content(each):
            raise OtherReview(
                f"review_id {each.review_id} belongs to another review",
                remedy="give every review a new UUID; repeat a UUID only with the same review",
                where=f"episode {each.uid}",
            )
    return list(new.values())


def _content(review: Review) -> dict[str, Any]:
    """A repeat may have a later time, and may come from a later snapshot."""
    return {
        name: value for name, value in as_dict(review).items() if name not in ("at", "snapshot")
    }


def _check_places(corpus: CorpusLayout, current: Snapshot, reviews: Iterable[Review]) -> None:
    lengths = _lengths(corpus, current, {each.uid for each in reviews})
    for each in reviews:
        if each.uid not in lengths:
            problem = f"snapshot {current.number} has no episode {each.uid!r}"
        elif each.end is not None and each.end > lengths[each.uid]:
            problem = f"timesteps {each.start} to {each.end} of an episode of {lengths[each.uid]}"
        elif each.snapshot > current.number:
            problem = f"made on snapshot {each.snapshot}; the latest is {current.number}"
        else:
            continue
        raise NoSuchPlace(problem, where=f"review {each.review_id}")


def _lengths(corpus: CorpusLayout, current: Snapshot, uids: set[str]) -> dict[str, int]:
    only = pc.field("uid").isin(pa.array(sorted(uids), pa.string()))
    rows = current.read(corpus.root, "episodes", ["uid", "length"], only=only)
    return dict(zip(rows["uid"].to_pylist(), rows["length"].to_pylist(), strict=True))
