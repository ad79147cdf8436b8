"""The work of `eicorpus dedup`: duplicate recordings and which of them to keep."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.catalog.catalog import Catalog
from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.writer import writing
from ingest.curation.duplicates.array_parts import INLINE, PartRunner, parts_on
from ingest.curation.duplicates.cluster import commit, decide, summary
from ingest.curation.duplicates.compare import Thresholds
from ingest.curation.duplicates.find import Side, find_copies
from ingest.curation.duplicates.signatures import KINDS, Signatures, read_signatures
from ingest.executors.node_proof import shared
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.stages.resources import Resources, limits_from
from schemas.committed_rows import DuplicateRow
from schemas.errors import ConfigError

# Below this many episodes one process takes seconds, and starting others takes longer than they save.
LEAST_EPISODES = 20_000
MEASURES = " ".join(f"--only {m.name}" for m in KINDS.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """episodes = measured + unmeasured, `unusable` of these; `without_pictures` have none in which anything moves, and are found only by
    bytes."""

    episodes: int
    measured: int
    unmeasured: int
    unusable: int
    without_pictures: int
    without_motion: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCounts:
    """Clusters of copies, and their episodes by what is decided."""

    clusters: int
    kept: int
    exact: int
    near: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupResult:
    """What a run decided; `rows`: every episode that has a copy."""

    compared: Compared
    candidates: int
    crowded: int
    clusters: ClusterCounts
    by_source: list[dict[str, Any]]
    rows: Sequence[DuplicateRow]
    snapshot: int
    committed: bool


def run_dedup(corpus: CorpusLayout, resources: Resources, *, dry_run: bool = False) -> DedupResult:
    """Compare all episodes, and commit what changed since the last run.

    Raises:
        ConfigError: no episode has signatures.
    """
    with parts_of(corpus, resources) as parts:
        if dry_run:
            return _decided(corpus, parts, None)
        disk = LocalStorage(corpus.root)
        with writing(corpus, disk):
            return _decided(corpus, parts, disk)


@contextmanager
def parts_of(corpus: CorpusLayout, resources: Resources) -> Iterator[PartRunner]:
    """Where vectors are searched and pairs compared: this process for few episodes, else what the options say."""
    episodes = sum(part.rows for part in snapshot.load(corpus.root).parts("episodes"))
    if episodes < LEAST_EPISODES or resources.workers == 0:
        yield INLINE
        return
    executor = resources.executor(limits_from())
    with shared(executor, corpus, LocalStorage(corpus.root)) as seen_by_all:
        if seen_by_all is not None:
            folder = seen_by_all / "arrays"
            with parts_on(executor, LocalStorage(corpus.root), folder) as parts:
                yield parts
            return
        with tempfile.TemporaryDirectory(prefix="eicorpus-dedup-") as scratch:
            folder = Path(scratch).resolve() / "arrays"
            with parts_on(executor, LocalStorage(), folder) as parts:
                yield parts


def _decided(corpus: CorpusLayout, parts: PartRunner, disk: LocalStorage | None) -> DedupResult:
    """Without a disk nothing is written."""
    current = snapshot.load(corpus.root)
    signatures = signatures_of(corpus, current)
    limits = Thresholds()
    copies = find_copies(corpus.root, current, signatures, limits, parts)
    with Catalog.open(corpus.root, snapshot=current.number or None) as catalog:
        decided = decide(catalog, signatures, copies, limits)
        by_source = summary(catalog, decided).to_pylist()
        after = current
        if disk is not None:
            run_id = new_run_id()
            measured = int(signatures.is_measured.sum())
            after = commit(corpus, current, catalog, decided, run_id, measured=measured, disk=disk)
    kinds = [row.kind for row in decided.rows]
    return DedupResult(
        compared=counted(signatures, np.ones(len(signatures), dtype=bool)),
        candidates=copies.candidates,
        crowded=copies.crowded,
        clusters=ClusterCounts(
            clusters=len({row.cluster for row in decided.rows}),
            kept=kinds.count("kept"),
            exact=kinds.count("exact"),
            near=kinds.count("near"),
        ),
        by_source=by_source,
        rows=decided.rows,
        snapshot=after.number,
        committed=after.number != current.number,
    )


def signatures_of(corpus: CorpusLayout, current: Snapshot) -> Signatures:
    """
    Raises:
        ConfigError: no episode has any.
    """
    signatures = read_signatures(corpus.root, current)
    if len(signatures) and not signatures.is_measured.any():
        raise ConfigError(
            "no episode has signatures",
            remedy=f"run {next_command(f'measure {MEASURES}', corpus.root)}",
            where=str(corpus.root),
        )
    return signatures


def counted(signatures: Signatures, some: Side) -> Compared:
    """Of the episodes `some`."""
    is_measured = signatures.is_measured & some
    return Compared(
        episodes=int(some.sum()),
        measured=int(is_measured.sum()),
        unmeasured=int((~signatures.is_measured & some).sum()),
        unusable=int((signatures.is_unusable & some).sum()),
        without_pictures=int((is_measured & (signatures.num_looks == 0)).sum()),
        without_motion=int((is_measured & (signatures.num_paths == 0)).sum()),
    )
