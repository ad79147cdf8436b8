"""Whether two episodes are the same recording: their motion and their pictures are asked together.

Thresholds, as shares of what unrelated episodes show. Measured on 25 real Bridge episodes (64 px, 19 timesteps) and 5 of GR-1:
copies trimmed by 3 timesteps have a path distance of at most 0.021, other demonstrations of the set at least 0.12; copies that
were scaled, cropped by 3 % and re-encoded have a look distance of at most 0.02 at 256 px and 0.28 at 64 px, other
demonstrations before the same camera from 0.08 on. So pictures decide alone only when they agree almost wholly.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import numpy.typing as npt

from ingest.curation.duplicates.array_parts import INLINE, Arrays, PartRunner, bounds_of
from ingest.curation.duplicates.distances import (
    Looks,
    coarse_motion_vectors,
    look_distances,
    path_distances,
)
from ingest.curation.duplicates.search import Indices, Pairs
from ingest.curation.duplicates.signatures import Signatures
from schemas.geometry import Array

CHUNK = 20_000
PART_PAIRS = 20 * CHUNK
IMPLAUSIBLE = 0.2  # copies cut by what `path_distances` allows for, at either end, differ by at most 0.16 (Bridge)
MOST_SHIFT_S = 0.4  # by which two releases may disagree on when an episode begins and ends to move


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How near is near. Distances are of `paths.path_distances` and `looks.look_distances`.

    Where both can be asked, motion, opening and pictures share one allowance (the sum of squares of their shares is at most 1), so
    that what is at the edge in one has to agree in the others.
    """

    path: float = 0.05
    opening: float = 0.3
    look_with_path: float = 0.35
    look_alone: float = 0.04
    duration_ratio: float = (
        4.0  # a copy may claim another rate; the shape over its own time is the same
    )
    duration_ratio_alone: float = 1.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairComparison:
    """[n] of n pairs of episodes; a distance is NaN where one of the two has nothing to compare."""

    path: Array
    opening: Array
    look: Array
    duration_ratio: Array
    is_same: npt.NDArray[np.bool_]
    by_path: npt.NDArray[np.bool_]  # the motions were compared too

    def at(self, chosen: Indices) -> PairComparison:
        """Those of some of the pairs."""
        return PairComparison(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparedFields:
    """The fields of `Signatures` that a comparison reads."""

    duration_s: Array
    looks: Looks
    first_look: Indices
    num_looks: Indices
    paths: npt.NDArray[np.float16]
    first_path: Indices
    num_paths: Indices


def plausible(signatures: Signatures, pairs: Pairs, parts: PartRunner = INLINE) -> Pairs:
    """Without the pairs whose motions are far apart already by the vectors they were searched by: ten times as fast as to judge."""
    arrays: Arrays = {
        "vectors": coarse_motion_vectors(signatures.paths),
        "first_path": signatures.first_path,
        "num_paths": signatures.num_paths,
        "one": pairs.one,
        "other": pairs.other,
    }
    pieces = parts.map(_is_plausible, arrays, bounds_of(len(pairs.one), PART_PAIRS))
    keep = np.concatenate([np.zeros(0, dtype=bool), *pieces])
    return Pairs(one=pairs.one[keep], other=pairs.other[keep], crowded=pairs.crowded)


def _is_plausible(arrays: Arrays, first: int, end: int) -> npt.NDArray[np.bool_]:
    """[n] of the pairs [first, end)."""
    one, other, vectors = (
        arrays["one"][first:end],
        arrays["other"][first:end],
        arrays["vectors"],
    )
    keep = np.ones(len(one), dtype=bool)
    for start in range(0, len(keep), CHUNK):
        some = slice(start, start + CHUNK)
        pair, a, b = _combined(arrays["first_path"], arrays["num_paths"], one[some], other[some])
        apart = np.linalg.norm(vectors[a] - vectors[b], axis=1)
        least = np.full(len(keep[some]), np.inf)
        np.minimum.at(least, pair, apart)
        keep[some] = np.isinf(least) | (least <= IMPLAUSIBLE)
    return keep


_COMPARED = tuple(f.name for f in fields(ComparedFields) if f.name != "looks")


def are_same(
    signatures: Signatures, pairs: Pairs, limits: Thresholds, parts: PartRunner = INLINE
) -> npt.NDArray[np.bool_]:
    """[n] `compare_pair(...).is_same` of many pairs, in parts."""
    arrays = {
        **{name: getattr(signatures, name) for name in _COMPARED},
        **{f.name: getattr(signatures.looks, f.name) for f in fields(Looks)},
        "one": pairs.one,
        "other": pairs.other,
    }
    pieces = parts.map(
        partial(_are_same, limits=limits), arrays, bounds_of(len(pairs.one), PART_PAIRS)
    )
    return np.concatenate([np.zeros(0, dtype=bool), *pieces])


def _are_same(arrays: Arrays, first: int, end: int, *, limits: Thresholds) -> npt.NDArray[np.bool_]:
    """[n] of the pairs [first, end)."""
    compared = ComparedFields(
        looks=Looks(**{f.name: arrays[f.name] for f in fields(Looks)}),
        **{name: arrays[name] for name in _COMPARED},
    )
    pairs = Pairs(one=arrays["one"][first:end], other=arrays["other"][first:end])
    return compare_pair(compared, pairs, limits).is_same


def compare_pair(
    signatures: Signatures | ComparedFields, pairs: Pairs, limits: Thresholds
) -> PairComparison:
    """Compare pairs of episodes exactly; the pictures first, the motions of those that these leave.

    Which of the two comes first changes nothing: it is the lower number.
    """
    count = len(pairs.one)
    pairs = Pairs(one=np.minimum(pairs.one, pairs.other), other=np.maximum(pairs.one, pairs.other))
    one_s, other_s = signatures.duration_s[pairs.one], signatures.duration_s[pairs.other]
    ratio = np.maximum(one_s, other_s) / np.maximum(np.minimum(one_s, other_s), 1e-9)
    by_path = (signatures.num_paths[pairs.one] > 0) & (signatures.num_paths[pairs.other] > 0)
    look, path, opening = (np.full(count, np.nan) for _ in range(3))
    for start in range(0, count, CHUNK):
        some = slice(start, start + CHUNK)
        look[some] = _look(signatures, pairs.one[some], pairs.other[some])
    looks_alike = look <= np.where(by_path, limits.look_with_path, limits.look_alone)
    todo = np.flatnonzero(by_path & looks_alike & (ratio <= limits.duration_ratio))
    for start in range(0, len(todo), CHUNK):
        at = todo[start : start + CHUNK]
        path[at], opening[at] = _path(signatures, pairs.one[at], pairs.other[at], limits.path)
    together = np.hypot(
        np.hypot(path / limits.path, opening / limits.opening), look / limits.look_with_path
    )
    alone = ~by_path & (ratio <= limits.duration_ratio_alone)
    return PairComparison(
        path=path,
        opening=opening,
        look=look,
        duration_ratio=ratio,
        is_same=(by_path & (together <= 1.0)) | (alone & looks_alike),
        by_path=by_path,
    )


def _look(signatures: Signatures | ComparedFields, one: Indices, other: Indices) -> Array:
    """[n] distance of the two cameras that are most alike, NaN without any to compare."""
    pair, a, b = _combined(signatures.first_look, signatures.num_looks, one, other)
    distance = look_distances(signatures.looks, a, b)
    best = np.full(len(one), np.inf)
    np.minimum.at(best, pair, distance)
    return np.where(np.isinf(best), np.nan, best)


def _path(
    signatures: Signatures | ComparedFields, one: Indices, other: Indices, enough: float
) -> tuple[Array, Array]:
    """[n] distance of the arms, paired as fits best (sides may be named otherwise); every arm that both have must fit."""
    pair, a, b = _combined(signatures.first_path, signatures.num_paths, one, other)
    shortest_s = np.minimum(signatures.duration_s[one], signatures.duration_s[other])
    most_shift = MOST_SHIFT_S / np.maximum(shortest_s, MOST_SHIFT_S)[pair]
    distance, opening = path_distances(signatures.paths[a], signatures.paths[b], most_shift, enough)
    two = ((signatures.num_paths[one] == 2) & (signatures.num_paths[other] == 2))[pair]
    # Two arms each: straight pairs arm 0 with 0 and 1 with 1, crossed the others. Else any arm that fits the only one.
    crossed = (a - signatures.first_path[one][pair]) != (b - signatures.first_path[other][pair])
    way = np.where(two, crossed, 0).astype(np.intp)
    worst = np.full((len(one), 2), np.inf)
    worst[pair[two]] = -np.inf
    np.maximum.at(worst, (pair[two], way[two]), distance[two])
    np.minimum.at(worst, (pair[~two], way[~two]), distance[~two])
    chosen = (way == worst.argmin(axis=1)[pair]) & (two | (distance == worst[pair, way]))
    differs = np.zeros(len(one))
    np.maximum.at(differs, pair[chosen], opening[chosen])
    return worst.min(axis=1), differs


def _combined(
    first: Indices, number: Indices, one: Indices, other: Indices
) -> tuple[Indices, Indices, Indices]:
    """Every combination of what the two episodes of a pair have: (pair, index of one, index of other)."""
    combinations = number[one] * number[other]
    pair = np.repeat(np.arange(len(one)), combinations)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(combinations) - combinations, combinations)
    width = np.maximum(number[other][pair], 1)
    return pair, first[one][pair] + within // width, first[other][pair] + within % width
