"""Which of several copies of an episode is kept, and why, by a rule over catalog facts. The kept episode is a copy of each one that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.curation.duplicates.compare import Thresholds, compare_pair
from ingest.curation.duplicates.find import Copies
from ingest.curation.duplicates.search import Indices, Pairs
from ingest.curation.duplicates.signatures import Signatures

ROUNDS = 8  # in which the best is compared with all of its cluster; after them only with what the search found


def kept_instead(
    signatures: Signatures, copies: Copies, member: Indices, rank: Indices, limits: Thresholds
) -> Indices:
    """[n] the episode that stays instead of each member (itself, when it stays).

    Args:
        member: [n] episodes that share a cluster with another.
        rank: [n] their places when all are ordered, the best first.
    """
    order = np.lexsort((rank, copies.cluster[member]))
    kept = np.full(len(signatures), -1, dtype=np.intp)
    open_ = member[order]
    for _ in range(ROUNDS):
        cluster = copies.cluster[open_]
        is_first = np.append(True, cluster[1:] != cluster[:-1])[: len(open_)]
        centre = open_[np.flatnonzero(is_first)][np.cumsum(is_first) - 1]
        is_same = (copies.exact[open_] == copies.exact[centre]) | (open_ == centre)
        todo = np.flatnonzero(~is_same)
        is_same[todo] = compare_pair(
            signatures, Pairs(one=open_[todo], other=centre[todo]), limits
        ).is_same
        kept[open_[is_same]] = centre[is_same]
        open_ = open_[~is_same]
    _by_links(copies, open_[np.argsort(_placed(member, rank, len(signatures))[open_])], kept)
    return kept[member]


def _placed(member: Indices, rank: Indices, count: int) -> Indices:
    out = np.zeros(count, dtype=np.intp)
    out[member] = rank
    return out


def _by_links(copies: Copies, best_first: Indices, kept: Indices) -> None:
    """Each that is still open stays, for those of its direct copies that are open too."""
    one, other = (np.append(*ends) for ends in (copies.links, copies.links[::-1]))
    is_open = (kept[one] < 0) & (kept[other] < 0)
    one, other = one[is_open], other[is_open]
    order = np.argsort(one, kind="stable")
    one, other = one[order], other[order]
    for centre in best_first.tolist():
        if kept[centre] < 0:
            copy = other[np.searchsorted(one, centre) : np.searchsorted(one, centre, side="right")]
            kept[copy[kept[copy] < 0]] = centre
            kept[centre] = centre


# Best first; what is not in the list comes last.
HELD_OUT_FIRST = ("test", "val")
TIERS = ("high", "low", "actionless", "", "excluded")  # "" when no policy was asked
LICENCES = ("permissive", "non_commercial", "no_redistribution", "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What speaks for an episode. `unsettled_facts`: conventions of its source that are inferred, unverified or unknown."""

    uid: str
    source_split: str = ""
    tier: str = ""
    num_cameras: int = 0
    licence_class: str = "unknown"
    is_native_rate: bool = False  # the source is at least as fast as the corpus, so nothing between its samples is invented
    unsettled_facts: int = 0


@dataclass(frozen=True, slots=True)
class _Criterion:
    """One thing to prefer by: the lowest `rank` is best."""

    rank: Callable[[Standing], Any]
    text: Callable[[Standing, Standing], str]


def _place(value: str, best_first: tuple[str, ...]) -> int:
    return best_first.index(value) if value in best_first else len(best_first)


_CRITERIA = (
    # The copy that its source holds out stays: in its place another one would train on a benchmark's own test.
    _Criterion(
        lambda s: _place(s.source_split, HELD_OUT_FIRST),
        lambda kept, other: (
            f"its source publishes it as {kept.source_split}, the other as {other.source_split or 'nothing'}"
        ),
    ),
    _Criterion(
        lambda s: _place(s.tier, TIERS),
        lambda kept, other: f"tier {kept.tier or 'unknown'} over {other.tier or 'unknown'}",
    ),
    _Criterion(
        lambda s: -s.num_cameras,
        lambda kept, other: f"{kept.num_cameras} cameras over {other.num_cameras}",
    ),
    _Criterion(
        lambda s: _place(s.licence_class, LICENCES),
        lambda kept, other: f"licence {kept.licence_class} over {other.licence_class}",
    ),
    _Criterion(
        lambda s: not s.is_native_rate,
        lambda kept, other: "recorded at the corpus's rate or above, the other below",
    ),
    _Criterion(
        lambda s: s.unsettled_facts,
        lambda kept, other: (
            f"{kept.unsettled_facts} unsettled facts against {other.unsettled_facts}"
        ),
    ),
    _Criterion(lambda s: s.uid, lambda kept, other: "nothing tells them apart; the lower uid"),
)


def best(copies: Sequence[Standing]) -> Standing:
    """The one to keep.

    Raises:
        ValueError: of nothing.
    """
    return min(copies, key=rank)


def rank(standing: Standing) -> tuple[Any, ...]:
    """What to order by, the best first; no two are equal."""
    return tuple(c.rank(standing) for c in _CRITERIA)


def why(kept: Standing, other: Standing) -> str:
    """What `kept` is better by: the first criterion in which the two differ."""
    return next(c.text(kept, other) for c in _CRITERIA if c.rank(kept) != c.rank(other))
