"""What people decided about segments: a review decides a segment when it covers at least half of its timesteps; the newest one holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingest.catalog.segmentation import Ints, Spans
from ingest.catalog.uid_index import UidIndex
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import in_force, published
from ingest.corpus.snapshot import Snapshot
from ingest.curation.tiers.frame import SegmentLine, touched
from ingest.curation.tiers.policy_sql import REVIEW_AUTHOR, REVIEW_TIER, TIERS
from schemas.review import Review, ReviewKind


@dataclass(frozen=True, kw_only=True, eq=False)
class Decisions:
    """M reviews in force that accept, exclude or give a tier, oldest first, and where they hold."""

    rows: Sequence[Review]
    spans: Spans

    def newest(self, line: SegmentLine, kinds: Sequence[ReviewKind]) -> Ints:
        """[S] the number of the newest decision of these kinds that decides each segment; -1 for none."""
        out = np.full(len(line.segments), -1, dtype=np.int64)
        is_one = np.array([row.kind in kinds for row in self.rows], dtype=bool)
        segment, number = touched(line, self.spans)
        segment, number = segment[is_one[number]], number[is_one[number]]
        start, end = line.segments.start[segment], line.segments.end[segment]
        shared = np.minimum(end, self.spans.end[number]) - np.maximum(
            start, self.spans.start[number]
        )
        covers = 2 * shared >= end - start
        np.maximum.at(out, segment[covers], number[covers])
        return out


def decisions_of(
    corpus: Path, current: Snapshot, places: UidIndex, lengths: Ints, uid: str | None
) -> Decisions | None:
    """Of the episodes of `places`; None without any."""
    if not current.parts(Review.TABLE):
        return None
    kinds = (ReviewKind.TIER_OVERRIDE, ReviewKind.EXCLUDE, ReviewKind.ACCEPT)
    rows = in_force(published(CorpusLayout(corpus), current, uid))
    rows = [each for each in rows if each.kind in kinds]
    row = places.of(pl.Series([each.uid for each in rows], dtype=pl.String))
    rows = [each for each, at in zip(rows, row, strict=True) if at >= 0]
    row = row[row >= 0]
    if not rows:
        return None
    ends = [
        length if each.end is None else each.end
        for each, length in zip(rows, lengths[row], strict=True)
    ]
    spans = Spans(
        row=row,
        start=np.array([each.start or 0 for each in rows], dtype=np.int64),
        end=np.array(ends, dtype=np.int64),
    )
    return Decisions(rows=rows, spans=spans)


def review_columns(
    line: SegmentLine, decisions: Decisions | None
) -> Iterator[tuple[str, pa.Array]]:
    """[S] the facts `review_*`, and what the override needs: number of the tier and the author, NULL where there is no decision."""
    rows = [] if decisions is None else decisions.rows
    size = len(line.segments)
    none = np.full(size, -1, dtype=np.int64)

    def newest(*kinds: ReviewKind) -> Ints:
        return none if decisions is None else decisions.newest(line, kinds)

    tier, exclude, accept = (
        newest(kind) for kind in (ReviewKind.TIER_OVERRIDE, ReviewKind.EXCLUDE, ReviewKind.ACCEPT)
    )
    decides = np.maximum(tier, exclude)
    numbers = [_tier_number(each) for each in rows]
    yield "fact review_tier", _taken([each.value for each in rows], tier, pa.string())
    yield "fact review_exclude", pa.array(exclude >= 0)
    yield "fact review_accept", pa.array(accept >= 0)
    yield REVIEW_TIER, _taken(numbers, decides, pa.int32())
    yield REVIEW_AUTHOR, _taken([each.author for each in rows], decides, pa.string())


def _tier_number(review: Review) -> int | None:
    value = "excluded" if review.kind == ReviewKind.EXCLUDE else review.value
    return next((number for number, tier in enumerate(TIERS) if tier.value == value), None)


def _taken(values: Sequence[object], at: npt.NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind).take(pa.array(at, mask=at < 0))
