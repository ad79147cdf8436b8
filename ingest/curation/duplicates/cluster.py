"""Which copy of each recording stays, written as rows of `duplicates`. Nothing is deleted: the rows only say what may be left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.catalog.episode_tier import EPISODE_TIERS
from ingest.corpus import publishing, snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates.compare import PairComparison, Thresholds, compare_pair
from ingest.curation.duplicates.find import Copies
from ingest.curation.duplicates.retention import Standing, kept_instead, rank, why
from ingest.curation.duplicates.search import Indices, Pairs
from ingest.curation.duplicates.signatures import Signatures
from ingest.storage.local import LocalStorage
from schemas.catalog_rows import columns_of, rows_of
from schemas.committed_rows import DedupRow, DuplicateRow
from schemas.fact import Certainty

GRID_HZ = 10.0
ALONE = "no copy of another that stays; only a chain of copies joins them"
Row = TypeVar("Row", DuplicateRow, DedupRow)
NOT_SETTLED = tuple(c.value for c in Certainty if not c.is_settled)
_TIER = f"SELECT uid, tier FROM {EPISODE_TIERS}"
_STANDING = f"""SELECT uid, coalesce(len(cameras), 0) AS num_cameras, coalesce(licence_class, 'unknown') AS licence_class,
    coalesce(source_rate_hz, 0) AS source_rate_hz, coalesce(source_split, '') AS source_split,
    len(list_filter(coalesce(facts, []), lambda f: list_contains({list(NOT_SETTLED)}, f.certainty))) AS unsettled_facts
    FROM episodes WHERE uid IN (SELECT unnest($uids))"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clusters:
    """Every episode that has a copy, by cluster: [n] episode and the one that is kept instead of it (itself, when it is)."""

    member: Indices
    kept: Indices
    rows: list[DuplicateRow]  # the run and the snapshot are not known yet


def decide(
    catalog: Catalog, signatures: Signatures, copies: Copies, limits: Thresholds
) -> Clusters:
    """The rule applied to every cluster of two and more (chosen.py, keep.py); rows in order of uid."""
    order = np.argsort(copies.cluster, kind="stable")
    size = np.bincount(copies.cluster, minlength=1)
    member = order[size[copies.cluster[order]] > 1]
    edges = np.flatnonzero(np.diff(copies.cluster[member], prepend=-1, append=-1))
    standing = _standings(catalog, signatures, member)
    place = {m: n for n, m in enumerate(sorted(standing, key=lambda m: rank(standing[m])))}
    ranks = np.array([place[m] for m in member.tolist()], dtype=np.intp)
    kept = kept_instead(signatures, copies, member, ranks, limits)
    stays_for = np.bincount(kept, minlength=len(signatures))
    judged = compare_pair(signatures, Pairs(one=member, other=kept), limits)
    first = np.repeat(member[edges[:-1]], np.diff(edges))  # an episode's number follows its uid
    rows = [
        _row(signatures, copies, judged, standing, place, int(m), int(k), int(f))
        for place, (m, k, f) in enumerate(zip(member, kept, first, strict=True))
    ]
    rows = [
        replace(row, reason=ALONE) if stays_for[m] == 1 else row
        for m, row in zip(member, rows, strict=True)
    ]
    return Clusters(member=member, kept=kept, rows=sorted(rows, key=lambda row: row.uid))


def _row(
    signatures: Signatures,
    copies: Copies,
    judged: PairComparison,
    standing: dict[int, Standing],
    place: int,
    member: int,
    kept: int,
    first: int,
) -> DuplicateRow:
    """What `duplicates` says of one member of a cluster."""
    is_kept = member == kept
    is_exact = bool(copies.exact[member] == copies.exact[kept])
    evidence, numbers = evidence_of(judged, place, is_exact=is_exact), numbers_of(judged, place)
    better = "the best of its copies" if is_kept else why(standing[kept], standing[member])
    return DuplicateRow(
        uid=signatures.uids[member],
        cluster=signatures.uids[first],
        kept_uid=signatures.uids[kept],
        kind="kept" if is_kept else "exact" if is_exact else "near",
        evidence="" if is_kept else evidence,
        path_distance=numbers["path_distance"],
        opening_distance=numbers["opening_distance"],
        look_distance=numbers["look_distance"],
        duration_ratio=numbers["duration_ratio"],
        reason=better,
        run_id="",
        snapshot=0,
    )


def evidence_of(judged: PairComparison, place: int, *, is_exact: bool) -> str:
    """What says that two are copies."""
    if is_exact:
        return "bytes"
    return "motion and pictures" if judged.by_path[place] else "pictures"


def numbers_of(judged: PairComparison, place: int) -> dict[str, float | None]:
    """The distances of a pair, None where there was nothing to compare."""
    values = {
        "path_distance": judged.path[place],
        "opening_distance": judged.opening[place],
        "look_distance": judged.look[place],
        "duration_ratio": judged.duration_ratio[place],
    }
    return {n: None if np.isnan(v) else round(float(v), 4) for n, v in values.items()}


def _standings(catalog: Catalog, signatures: Signatures, member: Indices) -> dict[int, Standing]:
    uids = signatures.uids[member].tolist()
    tiers = dict(catalog.sql(_TIER).iter_rows()) if uids else {}
    facts = catalog.sql(_STANDING, {"uids": uids}) if uids else pl.DataFrame()
    number = dict(zip(uids, member.tolist(), strict=True))
    return {
        number[row["uid"]]: Standing(
            uid=row["uid"],
            source_split=row["source_split"],
            tier=tiers.get(row["uid"], ""),
            num_cameras=row["num_cameras"],
            licence_class=row["licence_class"],
            is_native_rate=row["source_rate_hz"] >= GRID_HZ,
            unsettled_facts=row["unsettled_facts"],
        )
        for row in facts.iter_rows(named=True)
    }


def commit(
    corpus: CorpusLayout,
    current: Snapshot,
    catalog: Catalog,
    decided: Clusters,
    run_id: str,
    *,
    measured: int,
    disk: LocalStorage,
) -> Snapshot:
    """Append what changed since the last run; the same snapshot when nothing did. The caller holds the writer lock.

    `dedups` records the episodes that the run compared, so that a reader of duplicates knows which were not compared.

    An episode that was a duplicate and is none any more gets a row without a cluster, which takes the older one back.

    Raises:
        TransientError: another writer was first; run again.
    """
    before = {row.uid: row for row in rows_of(DuplicateRow, catalog.arrow("FROM duplicates"))}
    now = {row.uid: row for row in decided.rows}
    number = current.number + 1
    changed = [
        replace(row, run_id=run_id, snapshot=number)
        for uid, row in now.items()
        if not _is_same(before.get(uid), row)
    ]
    empty: dict[str, Any] = dict.fromkeys(columns_of(DuplicateRow))
    stamp = {"run_id": run_id, "snapshot": number}
    changed += [
        DuplicateRow(**{**empty, "uid": uid, **stamp}) for uid in sorted(before.keys() - now.keys())
    ]
    run = DedupRow(
        episodes=sum(part.rows for part in current.parts("episodes")),
        measured=measured,
        clusters=len({row.cluster for row in decided.rows}),
        redundant=sum(row.kind != "kept" for row in decided.rows),
        run_id=run_id,
        snapshot=number,
    )
    last = rows_of(DedupRow, catalog.arrow("FROM dedups ORDER BY snapshot DESC LIMIT 1"))
    if not changed and last and _is_same(last[0], run):
        return current
    parts = {DedupRow.TABLE: snapshot.write_part(disk, corpus.root, DedupRow, [run])}
    if changed:
        parts[DuplicateRow.TABLE] = snapshot.write_part(disk, corpus.root, DuplicateRow, changed)
    return publishing.publish(disk, corpus.root, current, parts, run_id)


def _is_same(before: Row | None, now: Row) -> bool:
    """Whatever run they are of."""
    return before is not None and replace(before, run_id=now.run_id, snapshot=now.snapshot) == now


def summary(catalog: Catalog, decided: Clusters) -> pa.Table:
    """Redundant episodes and hours by source and the source of what is kept, and how many of them lie in another split."""
    uids = [row.uid for row in decided.rows if row.kind != "kept"]
    kept = [row.kept_uid for row in decided.rows if row.kind != "kept"]
    return catalog.arrow(
        """SELECT e.source, k.source AS kept_source, count(*) AS redundant, sum(e.hours) AS hours,
            count(*) FILTER (WHERE e.split <> k.split) AS across_splits
        FROM (SELECT unnest($uids) AS uid, unnest($kept) AS kept) AS pair
        JOIN episodes AS e ON e.uid = pair.uid JOIN episodes AS k ON k.uid = pair.kept
        GROUP BY ALL ORDER BY redundant DESC, source, kept_source""",
        {"uids": uids, "kept": kept},
    )
