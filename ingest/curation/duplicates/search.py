"""All pairs of near vectors among millions, in bounded memory: each vector is compared within its cell and the cells around it.

Cells are those of randomly drawn vectors, so that crowded regions have many. A vector's home is the nearest cell centre. It
visits up to `PROBES` cells that are not farther than home by more than twice the radius: what lies within the radius has its
home among these (triangle inequality), so only the limit on visits loses pairs. Within a cell every home vector is compared with
every visitor, by matrix products. Deterministic for given vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ingest.curation.duplicates.array_parts import INLINE, Arrays, PartRunner, bounds_of

PROBES = 6
ONE_CELL = 4096  # so few are compared all with all
CELLS_PER_ROOT = 2.0  # cells = this times the root of how many vectors there are
MOST = 16  # neighbours kept of one vector: a crowd is joined by its chains
SEED = 77
_HOMES, _VISITORS = 1024, 16_384  # compared at a time: 64 MiB
_ASSIGNED = 8192
PART_VECTORS = 16 * _ASSIGNED
PART_PRODUCTS = 1 << 31  # of pairs of vectors: some seconds
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
    parts: PartRunner = INLINE,
) -> Pairs:
    """Pairs of vectors nearer than `radius` that have different owners and, when `side` is given, are on different sides.

    Args:
        vectors: [M, d] float32.
        owner: [M] whose a vector is; its own are never a pair.
        side: [M] two groups; only pairs across are wanted.
        parts: where the work is done.
    """
    count = len(vectors)
    arrays: Arrays = {
        "vectors": vectors,
        "owner": owner,
        **({} if side is None else {"side": side}),
    }
    cells = _cells(vectors, radius, parts)
    by_part = parts.map(
        partial(_near_keys, radius=radius), {**arrays, **cells}, _cell_bounds(cells)
    )
    keys = _once(np.concatenate([np.zeros(0, np.int64), *(keys for keys, _ in by_part)]))
    return Pairs(
        one=keys // max(count, 1),
        other=keys % max(count, 1),
        crowded=sum(crowded for _, crowded in by_part),
    )


def _near_keys(
    arrays: Arrays, first: int, end: int, *, radius: float
) -> tuple[npt.NDArray[np.int64], int]:
    """The pairs of the cells [first, end) as numbers, each once, and how many vectors were crowded."""
    vectors, owner, side = arrays["vectors"], arrays["owner"], arrays.get("side")
    keys, crowded = [np.zeros(0, np.int64)], 0
    for cell in range(first, end):
        home, visitors = (
            arrays[name][arrays[f"{name}_from"][cell] : arrays[f"{name}_from"][cell + 1]]
            for name in ("home", "visitor")
        )
        for one, other, was_crowded in _compared(vectors, home, visitors, radius, owner, side):
            keys.append(np.minimum(one, other) * np.int64(len(vectors)) + np.maximum(one, other))
            crowded += was_crowded
    return _once(np.concatenate(keys)), crowded


def of_owners(pairs: Pairs, owner: Indices) -> Pairs:
    """The pairs of owners that have such a pair of vectors, not yet each once: see `joined`."""
    one, other = owner[pairs.one], owner[pairs.other]
    return Pairs(one=np.minimum(one, other), other=np.maximum(one, other), crowded=pairs.crowded)


def joined(count: int, *many: Pairs) -> Pairs:
    """Every pair of any of them, once; of `count` owners."""
    keys = _once(np.concatenate([p.one * np.int64(count) + p.other for p in many]))
    return Pairs(
        one=keys // max(count, 1),
        other=keys % max(count, 1),
        crowded=sum(p.crowded for p in many),
    )


def _once(keys: Indices) -> Indices:
    """The keys in order, each once. NumPy's `unique` takes twenty times as long: it hashes them first."""
    keys = np.sort(keys)
    is_first = np.append(True, keys[1:] != keys[:-1])
    return np.asarray(keys[is_first[: len(keys)]])


def _cells(vectors: Vectors, radius: float, parts: PartRunner) -> dict[str, Indices]:
    """`home` and `visitor`: vectors by cell, those of cell k from `*_from`[k] to `*_from`[k + 1]; the visitors include the home vectors."""
    count = len(vectors)
    if count <= ONE_CELL:
        every, edges = np.arange(count), np.array([0, count])
        return {"home": every, "home_from": edges, "visitor": every, "visitor_from": edges}
    drawn = np.random.default_rng(SEED).choice(
        count, size=int(CELLS_PER_ROOT * np.sqrt(count)), replace=False
    )
    arrays = {"vectors": vectors, "centres": vectors[np.sort(drawn)]}
    assigned = parts.map(partial(_assigned, radius=radius), arrays, bounds_of(count, PART_VECTORS))
    home, visited = (np.concatenate(each) for each in zip(*assigned, strict=True))
    visitor = np.nonzero(visited >= 0)[0]
    by_home, home_from = _by_cell(home, len(drawn))
    by_cell, visitor_from = _by_cell(visited[visited >= 0], len(drawn))
    return {
        "home": by_home,
        "home_from": home_from,
        "visitor": visitor[by_cell],
        "visitor_from": visitor_from,
    }


def _by_cell(cell: npt.NDArray[np.int32], num_cells: int) -> tuple[Indices, Indices]:
    """Places in order of their cell, and where each cell begins."""
    order = np.argsort(cell, kind="stable")
    return order, np.searchsorted(cell[order], np.arange(num_cells + 1))


def _cell_bounds(cells: dict[str, Indices]) -> list[int]:
    """Cells to a part, by how many products of vectors they take."""
    products = np.diff(cells["home_from"]) * np.diff(cells["visitor_from"])
    part = np.cumsum(products) // PART_PRODUCTS
    return [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(products)]


def _assigned(
    arrays: Arrays, first: int, end: int, *, radius: float
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """[n] home cell of each vector of [first, end), and [n, PROBES] the cells it visits, -1 for none."""
    vectors, centres = arrays["vectors"][first:end], arrays["centres"]
    probes = min(PROBES, len(centres))
    home = np.empty(len(vectors), dtype=np.int32)
    visited = np.full((len(vectors), probes), -1, dtype=np.int32)
    half_square = (centres**2).sum(axis=1) / 2
    for start in range(0, len(vectors), _ASSIGNED):
        some = vectors[start : start + _ASSIGNED]
        # Half the squared distance less what is the same for all centres.
        far = half_square - some @ centres.T
        nearest = _lowest(far, probes)
        own = (some**2).sum(axis=1, keepdims=True)
        distance = np.sqrt(np.maximum(own + 2 * np.take_along_axis(far, nearest, axis=1), 0.0))
        least = distance.argmin(axis=1)
        rows = np.arange(len(some))
        home[start : start + len(some)] = nearest[rows, least]
        is_visited = distance <= distance[rows, least][:, None] + 2 * radius
        visited[start : start + len(some)] = np.where(is_visited, nearest, -1)
    return home, visited


def _lowest(far: Vectors, number: int) -> Indices:
    """[n, number] places of the lowest values of each row, which are overwritten for a while.

    Passes over all of it: `argpartition` takes ten times as long for the few that are asked for.
    """
    rows = np.arange(len(far))
    out = np.empty((len(far), number), dtype=np.intp)
    values = np.empty((len(far), number), dtype=far.dtype)
    for place in range(number):
        out[:, place] = far.argmin(axis=1)
        values[:, place] = far[rows, out[:, place]]
        far[rows, out[:, place]] = np.inf
    far[rows[:, None], out] = values
    return out


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
    """Which of the hits, in order of `at`, to keep: the `MOST` nearest of each row; and how many rows had more."""
    counts = np.bincount(at)
    is_crowded = counts > MOST
    crowd = np.flatnonzero(is_crowded[at])
    if not len(crowd):
        return np.arange(len(at)), 0
    # One number to sort by: the row, then how near, then the place of the hit. Sorting numbers takes a quarter of sorting places.
    keys = (at[crowd].astype(np.uint64) << np.uint64(32)) | _farness(nearness[crowd])
    order = np.argsort(keys, kind="stable")
    sizes = counts[is_crowded]
    place = np.arange(len(crowd)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.flatnonzero(~is_crowded[at])
    return np.append(kept, crowd[order[place < MOST]]), len(sizes)


def _farness(nearness: Vectors) -> npt.NDArray[np.uint64]:
    """Whole numbers in the order of -nearness: the bits of a float, those of the negative ones inverted."""
    bits = (-nearness).view(np.uint32)
    is_negative = bits >> np.uint32(31) == 1
    return np.where(is_negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
