"""Reviews: accepted into a journal at any time, also beside a writer, and published in the table `reviews` by whoever writes next.

A submission is one file `reviews/<sha256>.json`, complete and durable before its name appears, and never changed. The writer adds the
rows of all such files under one snapshot and deletes the files. A stop in between leaves files whose review_ids the snapshot has: the
next writer adds none of them again. Reviews of an erased episode are dropped. They are no part of an episode's content digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus import snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.storage.local import HALF_SUFFIX, LocalStorage
from ingest.storage.lock_file import held_with_others
from ingest.storage.write_refusal import refused_write
from schemas.catalog_rows import as_dict
from schemas.errors import ConfigError, SourceError
from schemas.json_text import JsonLimits, parse_json
from schemas.review import Review, utc_time

FOLDER = "reviews"
LOCK = f"{FOLDER}/.submitters"
MOST_OF_SUBMISSION = 1_000  # reviews
_LIMITS = JsonLimits(max_bytes=64 << 20, max_elements=MOST_OF_SUBMISSION * 16)
_FILE = re.compile(rf"{FOLDER}/[0-9a-f]{{64}}\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The answer to one submitted review: it is on the disk."""

    review_id: str
    is_pending: bool  # False: a snapshot has it


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReview:
    """A review, and whether it waits for the next writer."""

    review: Review
    is_pending: bool


def submit(corpus: CorpusLayout, reviews: Sequence[Review]) -> tuple[Receipt, ...]:
    """Store reviews durably in the journal. Needs no writer lock; a repeated review_id adds nothing.

    Raises:
        ConfigError: too many at once, an unknown or erased episode, a place beyond its end, or a review_id of another review; nothing is stored.
        TransientError: the disk is full.
    """
    if len(reviews) > MOST_OF_SUBMISSION:
        problem = f"{len(reviews)} reviews in one submission; expected at most {MOST_OF_SUBMISSION}"
        raise ConfigError(problem, where=FOLDER)
    current = snapshot.load(corpus.root)
    _check_places(corpus, current, reviews)
    disk = LocalStorage(corpus.root)
    try:
        disk.make_dir(corpus.root / FOLDER)
        with held_with_others(corpus.root / LOCK, partial(_remove_halves, corpus, disk)):
            stored = {each.review.review_id: each for each in read(corpus, current)}
            new = _unknown(reviews, stored)
            if new:
                text = json.dumps([_as_json(each) for each in new], ensure_ascii=False).encode()
                disk.create(f"{FOLDER}/{hashlib.sha256(text).hexdigest()}.json", text)
    except OSError as error:
        raise refused_write(error, corpus.root / FOLDER) from error
    waiting = {each.review_id for each in new}
    return tuple(
        Receipt(
            review_id=each.review_id,
            is_pending=each.review_id in waiting or stored[each.review_id].is_pending,
        )
        for each in reviews
    )


def read(corpus: CorpusLayout, current: Snapshot, uid: str | None = None) -> list[StoredReview]:
    """Reviews of a snapshot and pending ones, of one episode or of all, by time.

    Raises:
        ConfigError: the journal or the table is damaged.
    """
    # The journal first: a writer that publishes in between would else hide what it moves.
    pending = [each for key in _keys(corpus) for each in _submission(corpus, key)]
    out = {each.review_id: StoredReview(review=each, is_pending=True) for each in pending[::-1]}
    for row in published(corpus, current, uid):
        out[row.review_id] = StoredReview(review=row, is_pending=False)
    kept = (each for each in out.values() if uid is None or each.review.uid == uid)
    return sorted(kept, key=lambda each: (each.review.at, each.review.review_id))


def published(corpus: CorpusLayout, current: Snapshot, uid: str | None = None) -> list[Review]:
    """The rows of the table.

    Raises:
        DamagedCatalog: a row breaks the rules of a review.
    """
    only = None if uid is None else pc.field("uid") == uid
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
    text = json.dumps([_as_json(each) for each in sorted(rows, key=lambda each: each.review_id)])
    return hashlib.sha256(text.encode()).hexdigest()


def has_pending(corpus: CorpusLayout) -> bool:
    """Whether a submission waits for the next writer."""
    return bool(_keys(corpus))


def publish_pending(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Move the journal into the catalog. The caller holds the writer lock.

    Raises:
        ConfigError: a file of the journal is damaged.
    """
    keys = _keys(corpus)
    if not keys:
        return
    current = snapshot.load(corpus.root)
    known = set(current.read(corpus.root, "reviews", ["review_id"])["review_id"].to_pylist())
    pending = [each for key in keys for each in _submission(corpus, key)]
    alive = _lengths(corpus, current, {each.uid for each in pending}).keys()
    rows: dict[str, Review] = {}
    for each in sorted(pending, key=lambda each: (each.at, each.review_id)):
        if each.review_id not in known and each.uid in alive:
            rows.setdefault(each.review_id, each)
    if rows:
        part = snapshot.write_part(disk, corpus.root, Review, rows.values())
        run_id = f"reviews.{part.sha256[:16]}"
        snapshot.publish(disk, corpus.root, current, {Review.TABLE: part}, run_id)
    store = disk.at(corpus.root)
    for key in keys:
        store.delete(key)


def sweep_submissions(corpus: CorpusLayout, disk: LocalStorage) -> None:
    """Remove what killed submitters left, unless one is at work: the next submission then does it."""
    if (corpus.root / FOLDER).is_dir():
        with held_with_others(corpus.root / LOCK, partial(_remove_halves, corpus, disk)):
            pass


def _remove_halves(corpus: CorpusLayout, disk: LocalStorage) -> None:
    for path in sorted((corpus.root / FOLDER).glob(f".*{HALF_SUFFIX}")):
        disk.remove(path)


def _keys(corpus: CorpusLayout) -> list[str]:
    if not (corpus.root / FOLDER).is_dir():
        return []
    return [key for key in LocalStorage(corpus.root).list(FOLDER) if _FILE.fullmatch(key)]


def _submission(corpus: CorpusLayout, key: str) -> list[Review]:
    """The reviews of one file; none when a writer has just published it.

    Raises:
        ConfigError: it is not what `submit` writes.
    """
    try:
        data = LocalStorage(corpus.root).get(key, max_bytes=_LIMITS.max_bytes)
    except SourceError as error:
        if not (corpus.root / key).exists():
            return []
        raise _damaged(corpus, key, error.message) from error
    if hashlib.sha256(data).hexdigest() != key.removeprefix(f"{FOLDER}/").removesuffix(".json"):
        raise _damaged(corpus, key, "its bytes do not have the sha256 of its name")
    try:
        return [
            Review(**{**row, "at": utc_time(row["at"])}) for row in parse_json(data, limits=_LIMITS)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(corpus, key, str(error)) from error


def _damaged(corpus: CorpusLayout, key: str, problem: str) -> ConfigError:
    remedy = "restore the file, or move it out of the corpus and submit its reviews again"
    return ConfigError(f"pending reviews cannot be read: {problem}", remedy=remedy, where=key)


def _as_json(review: Review) -> dict[str, Any]:
    return {**as_dict(review), "at": review.at.isoformat()}


def _unknown(reviews: Iterable[Review], stored: dict[str, StoredReview]) -> list[Review]:
    """Those that are not stored yet, each once.

    Raises:
        ConfigError: another review has the review_id.
    """
    new: dict[str, Review] = {}
    for each in reviews:
        other = new.get(each.review_id)
        if other is None and each.review_id in stored:
            other = stored[each.review_id].review
        if other is None:
            new[each.review_id] = each
        elif _content(other) != _content(each):
            raise ConfigError(
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
        raise ConfigError(problem, where=f"review {each.review_id}")


def _lengths(corpus: CorpusLayout, current: Snapshot, uids: set[str]) -> dict[str, int]:
    only = pc.field("uid").isin(pa.array(sorted(uids), pa.string()))
    rows = current.read(corpus.root, "episodes", ["uid", "length"], only=only)
    return dict(zip(rows["uid"].to_pylist(), rows["length"].to_pylist(), strict=True))
