"""How far a policy agrees with the reviewers: precision and recall of each tier over reviewed segments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ingest.catalog.segmentation import Ints
from ingest.catalog.uid_index import UidIndex
from ingest.corpus.snapshot import Snapshot
from ingest.curation.captions.checks import wilson
from ingest.curation.tiers.frame import SegmentLine
from ingest.curation.tiers.policy_sql import REVIEW_TIER, TIERS
from ingest.curation.tiers.reviewed import decisions_of, review_columns
from ingest.curation.tiers.tier import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedShare:
    """A share with its 95 % Wilson interval; None where there is nothing to count."""

    correct: int
    total: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierAgreement:
    """Precision: of the segments to which the policy gives the tier, those whose reviewer agrees. Recall: the reverse."""

    tier: str
    precision: CountedShare
    recall: CountedShare


def agreement(corpus: Path, current: Snapshot, judged: Judged) -> list[TierAgreement]:
    """Over segments that a review gives a tier, excludes or accepts. The policy decides without the reviews."""
    _, by_policy = judged.without_reviews().decided
    by_people = _by_people(corpus, current, judged, by_policy)
    pairs = Counter(
        (int(own), int(reviewed))
        for own, reviewed in zip(by_policy, by_people, strict=True)
        if reviewed >= 0
    )
    of_policy, of_people = Counter[int](), Counter[int]()
    for (own, reviewed), count in pairs.items():
        of_policy[own] += count
        of_people[reviewed] += count
    return [
        TierAgreement(
            tier=tier.value,
            precision=_share(pairs[number, number], of_policy[number]),
            recall=_share(pairs[number, number], of_people[number]),
        )
        for number, tier in enumerate(TIERS)
    ]


def _by_people(
    corpus: Path, current: Snapshot, judged: Judged, by_policy: npt.NDArray[np.int16]
) -> Ints:
    """[S] the tier that the newest override or exclusion gives; where there is only an acceptance, the policy's own; else -1."""
    lengths = judged.episodes["length"].to_numpy()
    decisions = decisions_of(corpus, current, UidIndex(judged.episodes["uid"]), lengths, None)
    line = SegmentLine(lengths=lengths, segments=judged.segments)
    columns = dict(review_columns(line, decisions))
    reviewed = columns[REVIEW_TIER].fill_null(-1).to_numpy().astype(np.int64)
    accepted = columns["fact review_accept"].to_numpy(zero_copy_only=False)
    return np.where((reviewed < 0) & accepted, by_policy, reviewed)


def _share(correct: int, total: int) -> CountedShare:
    if not total:
        return CountedShare(correct=correct, total=total, value=None, low=None, high=None)
    low, high = wilson(correct, total)
    return CountedShare(correct=correct, total=total, value=correct / total, low=low, high=high)
