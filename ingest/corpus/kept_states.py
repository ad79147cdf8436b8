"""Which snapshots a working copy keeps: the bucket has every state, so those that nothing here needs go, with the catalog files that only they name."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from ingest.corpus import commit_log, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.review_journal import keys, read_all
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.snapshot_list import manifests_by_snapshot, named_parts, snapshot_path
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from schemas.paths import within

NEWEST = 10
YOUNG_S = 3600.0  # for so long after the next one came, a command may still read its files


def collect_states(root: Path, disk: LocalStorage) -> list[int]:
    """Remove snapshots but the newest, the young, and those that a manifest or a review that waits was made on. The caller alone removes files
    here. Nothing is removed where a manifest or a review cannot be read. Returns the numbers that are no longer here.

    A stop leaves catalog files that no snapshot names, which recovery removes.
    """
    numbers = snapshot.numbers(root)
    older = list(pairwise(numbers))[: -NEWEST + 1]
    if not older:
        return []
    before_s = _published_s(root, numbers[-1]) - YOUNG_S
    removable = [number for number, following in older if _published_s(root, following) < before_s]
    if not removable:
        return []
    try:
        needed = {*manifests_by_snapshot(root), *_of_reviews(CorpusLayout(root))}
        removable = [number for number in removable if number not in needed]
        unneeded = _parts(root, removable)
        left = _parts(root, set(snapshot.numbers(root)) - {*removable})
    except ConfigError:
        return []
    remove_states(root, disk, removable, unneeded - left)
    return removable


def remove_states(
    root: Path, disk: LocalStorage, numbers: Iterable[int], parts: Iterable[str]
) -> None:
    """Snapshots go before their parts: whatever stops it, no snapshot names a part that is not there."""
    for number in numbers:
        disk.remove(snapshot_path(root, number))
    disk.sync()
    for path in parts:
        disk.remove(within(root, path))


def remove_older_states(root: Path, disk: LocalStorage, current: Snapshot) -> None:
    """All snapshots but this one, and every catalog file that it does not name and the bucket may have had. Of a writer at work here, files
    that were not uploaded stay: their names end in no commit."""
    older = [number for number in snapshot.numbers(root) if number != current.number]
    named = named_parts([current])
    paths = [path.relative_to(root).as_posix() for path in (root / "catalog").glob("*/*.parquet")]
    older_parts = _parts(root, older)
    removable = [
        path
        for path in paths
        if path not in named and (path in older_parts or commit_log.is_committed_name(path))
    ]
    remove_states(root, disk, older, removable)


def _published_s(root: Path, number: int) -> float:
    return snapshot_path(root, number).stat().st_mtime


def _parts(root: Path, numbers: Iterable[int]) -> set[str]:
    """One snapshot is in memory at a time."""
    return {path for n in numbers for path in named_parts([snapshot.load(root, n)])}


def _of_reviews(corpus: CorpusLayout) -> set[int]:
    return {each.snapshot for each in read_all(corpus, keys(corpus))}
