"""Which episode stays instead of each: one that it is a copy of itself, never one that only a chain of others leads to.

Likeness does not carry over: where A is a copy of B and B of C, A and C may be two recordings. A set of demonstrations by a script can
be one long chain. So the best of a cluster stays for its own copies only, then the best of those that are left for theirs, and so on.
"""

from __future__ import annotations

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
