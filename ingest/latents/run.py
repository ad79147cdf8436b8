"""`eicorpus latents images`: files that are missing are made, pack by pack, in batches that are committed as they come.

A batch is one part of `latents` under a new snapshot, so a run that is stopped keeps what it has and the next one does the rest. Every
file is durable before a snapshot names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace

from ingest.corpus import publishing, snapshot
from ingest.corpus.latent_packs import named_packs
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.remote_link import read_link
from ingest.corpus.snapshot import Snapshot
from ingest.latents.backends import EncodeBackend
from ingest.latents.encode_file import EncodeResult, UnitResult
from ingest.latents.plan import LatentTodo, LatentUnit, Packing, units_of
from ingest.storage.local import LocalStorage
from schemas.committed_rows import LatentRow

# To a snapshot, until a run has made twenty times that: a snapshot names every part.
BATCH_FILES = 200
MAX_FAILURES = 20  # that are told in full


@dataclass(kw_only=True)
class LatentTally:
    """discovered = encoded + up_to_date + failed, in files: one camera of one episode each."""

    discovered: int
    up_to_date: int = 0
    encoded: int = 0
    failed: int = 0
    num_pictures: int = 0
    num_bytes: int = 0
    busy_s: float = 0.0  # of all encoders
    wait_s: float = 0.0  # in which they had no pictures
    write_wait_s: float = 0.0  # in which they waited for files to be written
    num_encoders: int = 1
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # the first few in full


def _newly_named(units: Iterator[LatentUnit], named: Set[str]) -> Iterator[LatentUnit]:
    """Units with packs that no row names: where files of a committed pack were lost, the same files are planned again."""
    for each in units:
        unit = each
        while unit.pack in named:
            unit = unit.again()
        yield unit


def encode_corpus(
    todo: LatentTodo,
    current: Snapshot,
    making: EncodeBackend,
    *,
    run_id: str,
    disk: LocalStorage,
    packing: Packing | None = None,
    progress: Callable[[LatentTally], None] = lambda tally: None,
) -> tuple[LatentTally, Snapshot]:
    """Make what `todo_of` found lacking. The caller holds the writer lock. `packing` None: each file under a name of its own.

    Raises:
        TransientError: another writer was first; what is committed stays, run again.
        ConfigError: the device's memory does not hold a batch, or no Ray actor can open the encoder.
        OSError: a file cannot be written.
    """
    tally = LatentTally(discovered=len(todo) + todo.up_to_date, up_to_date=todo.up_to_date)
    rows: list[LatentRow] = []
    # In a bucket other machines may encode the same files. On one machine the same files give the same names after any stop.
    named = named_packs(todo.corpus.root, [current])
    names_by = "" if read_link(todo.corpus.root) is None else run_id
    try:
        for _, result in making.make(
            _newly_named(units_of(todo.files(), packing, names_by), named)
        ):
            _count(tally, result, making)
            new_rows = [each.row for each in result.files if each.row is not None]
            rows += [replace(row, run_id=run_id) for row in new_rows]
            if len(rows) >= max(BATCH_FILES, tally.encoded // 20):
                rows, current = [], _flush(todo.corpus, current, rows, run_id, disk)
            progress(tally)
    finally:
        current = _flush(todo.corpus, current, rows, run_id, disk)
    return tally, current


def _count(tally: LatentTally, result: UnitResult, making: EncodeBackend) -> None:
    tally.busy_s += result.busy_s
    tally.write_wait_s += result.write_wait_s
    tally.wait_s, tally.num_encoders = making.wait_s, making.num_encoders
    for each in result.files:
        _count_file(tally, each)


def _count_file(tally: LatentTally, result: EncodeResult) -> None:
    if result.row is None:
        tally.failed += 1
        tally.errors[result.error.split(":")[0]] += 1
        if len(tally.failures) < MAX_FAILURES:
            tally.failures.append(result.error)
        return
    tally.encoded += 1
    tally.num_pictures += result.num_pictures
    tally.num_bytes += result.num_bytes


def _flush(
    corpus: CorpusLayout,
    parent: Snapshot,
    rows: list[LatentRow],
    run_id: str,
    disk: LocalStorage,
) -> Snapshot:
    """One part, in an order that does not depend on which worker was faster."""
    if not rows:
        return parent
    disk.adopt(corpus.path(row.path) for row in rows)  # an encoder's process wrote them
    ordered = sorted(rows, key=lambda row: (row.uid, row.camera))
    part = snapshot.write_part(disk, corpus.root, LatentRow, ordered)
    return publishing.publish(disk, corpus.root, parent, {"latents": part}, run_id)
