"""All pairs of near vectors among millions, in bounded memory: each vector is compared within its cell and the cells around it.

Cells are those of randomly drawn vectors, so that crowded regions have many. A vector's home is the nearest cell centre. It
visits up to `PROBES` cells that are not farther than home by more than twice the radius: what lies within the radius has its
home among these (triangle inequality), so only the limit on visits loses pairs. Within a cell every home vector is compared with
every visitor, by matrix products. Deterministic for given vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PROBES = 6
ONE_CELL = 4096  # so few are compared all with all
CELLS_PER_ROOT = 2.0  # cells = this times the root of how many vectors there are
MOST = 16  # neighbours kept of one vector: a crowd is joined by its chains
SEED = 77
_HOMES, _VISITORS = 1024, 16_384  # compared at a time: 64 MiB
_ASSIGNED = 8192
Indices = npt.NDArray[np.intp]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """`one` < `other`: indices of vectors (of owners after `owned`), each pair once; `crowded`: vectors with more than `MOST` neighbours."""

    one: Indices
    other: Indices
    crowded: int = 0


def near_pairs(
    vectors: Vectors,
    owner: Indices,
    radius: float,
    *,
    side: npt.NDArray[np.bool_] | None = None,
) -> Pairs:
    """Pairs of vectors nearer than `radius` that have different owners and, when `side` is given, are on different sides.

    Args:
        vectors: [M, d] float32.
        owner: [M] whose a vector is; its own are never a pair.
        side: [M] two groups; only pairs across are wanted.
    """
    count = len(vectors)
    keys, crowded = [np.zeros(0, np.int64)], 0
    for home, visitors in _cells(vectors, radius):
        for one, other, was_crowded in _compared(vectors, home, visitors, radius, owner, side):
            keys.append(np.minimum(one, other) * np.int64(count) + np.maximum(one, other))
            crowded += was_crowded
    keys_once = np.unique(np.concatenate(keys))
    return Pairs(one=keys_once // max(count, 1), other=keys_once % max(count, 1), crowded=crowded)


def of_owners(pairs: Pairs, owner: Indices) -> Pairs:
    """The pairs of owners that have such a pair of vectors, not yet each once: see `joined`."""
    one, other = owner[pairs.one], owner[pairs.other]
    return Pairs(one=np.minimum(one, other), other=np.maximum(one, other), crowded=pairs.crowded)


def joined(count: int, *many: Pairs) -> Pairs:
    """Every pair of any of them, once; of `count` owners."""
    keys = np.unique(np.concatenate([p.one * np.int64(count) + p.other for p in many]))
    return Pairs(
        one=keys // max(count, 1),
        other=keys % max(count, 1),
        crowded=sum(p.crowded for p in many),
    )


def _cells(vectors: Vectors, radius: float) -> Iterator[tuple[Indices, Indices]]:
    """(home, visitors) of each cell; visitors include the home vectors."""
    count = len(vectors)
    if count <= ONE_CELL:
        yield np.arange(count), np.arange(count)
        return
    drawn = np.random.default_rng(SEED).choice(
        count, size=int(CELLS_PER_ROOT * np.sqrt(count)), replace=False
    )
    home, visited = _assigned(vectors, vectors[np.sort(drawn)], radius)
    by_home = np.argsort(home, kind="stable")
    home_edges = np.searchsorted(home[by_home], np.arange(len(drawn) + 1))
    visitor, cell = np.nonzero(visited >= 0)[0], visited[visited >= 0]
    by_cell = np.argsort(cell, kind="stable")
    cell_edges = np.searchsorted(cell[by_cell], np.arange(len(drawn) + 1))
    for index in range(len(drawn)):
        some = by_home[home_edges[index] : home_edges[index + 1]]
        if len(some):
            yield some, visitor[by_cell[cell_edges[index] : cell_edges[index + 1]]]


def _assigned(
    vectors: Vectors, centres: Vectors, radius: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """[M] home cell of each vector, and [M, PROBES] the cells it visits, -1 for none."""
    probes = min(PROBES, len(centres))
    home = np.empty(len(vectors), dtype=np.int32)
    visited = np.full((len(vectors), probes), -1, dtype=np.int32)
    half_square = (centres**2).sum(axis=1) / 2
    for start in range(0, len(vectors), _ASSIGNED):
        some = vectors[start : start + _ASSIGNED]
        # Half the squared distance less what is the same for all centres.
        far = half_square - some @ centres.T
        nearest = np.argpartition(far, probes - 1, axis=1)[:, :probes]
        own = (some**2).sum(axis=1, keepdims=True)
        distance = np.sqrt(np.maximum(own + 2 * np.take_along_axis(far, nearest, axis=1), 0.0))
        least = distance.argmin(axis=1)
        rows = np.arange(len(some))
        home[start : start + len(some)] = nearest[rows, least]
        is_visited = distance <= distance[rows, least][:, None] + 2 * radius
        visited[start : start + len(some)] = np.where(is_visited, nearest, -1)
    return home, visited


def _compared(
    vectors: Vectors,
    home: Indices,
    visitors: Indices,
    radius: float,
    owner: Indices,
    side: npt.NDArray[np.bool_] | None,
) -> Iterator[tuple[Indices, Indices, int]]:
    """(one, other, crowded) of each block of a cell."""
    for first in range(0, len(home), _HOMES):
        rows = home[first : first + _HOMES]
        left = _with_norm(vectors[rows], is_left=True)
        for start in range(0, len(visitors), _VISITORS):
            columns = visitors[start : start + _VISITORS]
            # Minus half the squared distance, in one product.
            nearness = left @ _with_norm(vectors[columns], is_left=False).T
            at, to = np.divmod(np.flatnonzero(nearness >= -(radius**2) / 2), len(columns))
            is_pair = owner[rows[at]] != owner[columns[to]]
            if side is not None:
                is_pair &= side[rows[at]] != side[columns[to]]
            at, to = at[is_pair], to[is_pair]
            kept, crowded = _nearest(at, nearness[at, to])
            yield rows[at[kept]], columns[to[kept]], crowded


def _with_norm(vectors: Vectors, *, is_left: bool) -> Vectors:
    half = -(vectors**2).sum(axis=1, keepdims=True) / 2
    one = np.ones_like(half)
    return np.concatenate([vectors, *((half, one) if is_left else (one, half))], axis=1)


def _nearest(at: Indices, nearness: Vectors) -> tuple[Indices, int]:
    """Which of the hits to keep: the `MOST` nearest of each row; and how many rows had more."""
    order = np.lexsort((-nearness, at))
    starts = np.flatnonzero(np.append(True, at[order][1:] != at[order][:-1])) if len(at) else order
    place = np.arange(len(at)) - np.repeat(starts, np.diff(np.append(starts, len(at))))
    return order[place < MOST], int((place == MOST).sum())
