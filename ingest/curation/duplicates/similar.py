"""Episodes that look and move like another one, by the coarse vectors that copies are searched by: about 0.4 kB an episode, compared with all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ingest.corpus.snapshot import Snapshot
from ingest.curation.duplicates.distances import (
    coarse_image_vectors,
    coarse_motion_vectors,
    looks_from,
)
from ingest.curation.duplicates.search import Indices
from ingest.curation.duplicates.signatures import (
    PACKED,
    Values,
    pack_looks,
    pack_paths,
    read_kinds,
)
from schemas.geometry import Array

CHUNK = 65_536
Half = npt.NDArray[np.float16]
Distance = Callable[[Values, Values], Values]  # [n] of n vectors, to the nearest of some


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoarseVectors:
    """Of each camera in which something moves and each arm that moves: its episode, ascending, and its vector."""

    of_picture: npt.NDArray[np.int32]  # [C]
    pictures: Half  # [C, 64], length 1
    of_path: npt.NDArray[np.int32]  # [A]
    paths: Half  # [A, 56]

    def has(self, episode: int) -> bool:
        """Whether the episode has a vector."""
        return any(
            np.searchsorted(of, episode) < np.searchsorted(of, episode + 1)
            for of in (self.of_picture, self.of_path)
        )


class Neighbour(NamedTuple):
    """An episode that is like another. A distance is None where one of the two has nothing to compare."""

    episode: int
    similarity: float  # 1 equal, 0 unrelated: the mean of 1 - distance over what can be compared
    pictures: float | None  # 1 - cosine
    path: float | None  # as a share of the path's size, about


def read_coarse_vectors(corpus: Path, current: Snapshot, uids: pa.Array) -> CoarseVectors:
    """What the measures of signatures left in the catalog, for episodes in the order of `uids`. One part is read at a time."""
    read, _ = read_kinds(corpus, current, uids, COARSE)
    (of_picture, pictures), (of_path, paths) = read["pictures"], read["trajectory"]
    return CoarseVectors(
        of_picture=of_picture.astype(np.int32),
        pictures=pictures,
        of_path=of_path.astype(np.int32),
        paths=paths,
    )


def nearest(vectors: CoarseVectors, episode: int, count: int, num_episodes: int) -> list[Neighbour]:
    """The episodes most like one, the most alike first; of equals the lower number. Empty for one without a vector."""
    look = _distances(vectors.of_picture, vectors.pictures, episode, num_episodes, _cosine)
    path = _distances(vectors.of_path, vectors.paths, episode, num_episodes, _euclidean)
    shares = 1.0 - np.minimum(np.stack([look, path]), 1.0)
    is_known = np.isfinite(shares)
    similarity = np.where(is_known, shares, 0.0).sum(axis=0) / np.maximum(is_known.sum(axis=0), 1)
    similarity[~is_known.any(axis=0)] = -1.0
    similarity[episode] = -1.0
    order = np.argsort(-similarity, kind="stable")[:count]
    return [
        Neighbour(int(k), float(similarity[k]), _known(look[k]), _known(path[k]))
        for k in order
        if similarity[k] >= 0
    ]


def _coarse_looks(episode: Indices, values: Values) -> tuple[Indices, Half]:
    of, scene, motion = pack_looks(episode, values)
    vectors = coarse_image_vectors(looks_from(scene, motion))
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return of, (vectors / length).astype(np.float16)


def _coarse_paths(episode: Indices, values: Values) -> tuple[Indices, Half]:
    of, paths = pack_paths(episode, values)
    return of, coarse_motion_vectors(paths).astype(np.float16)


COARSE = {
    "pictures": replace(PACKED["pictures"], pack=_coarse_looks),
    "trajectory": replace(PACKED["trajectory"], pack=_coarse_paths),
}


def _cosine(some: Values, own: Values) -> Values:
    return np.asarray(np.maximum(1.0 - (some @ own.T).max(axis=1), 0.0))


def _euclidean(some: Values, own: Values) -> Values:
    return np.asarray(np.linalg.norm(some[:, None] - own[None], axis=2).min(axis=1))


def _known(distance: float) -> float | None:
    return None if np.isnan(distance) else float(distance)


def _distances(
    of: npt.NDArray[np.int32], vectors: Half, episode: int, num_episodes: int, distance: Distance
) -> Array:
    """[num_episodes] the least distance over the vectors of both; NaN for none."""
    first, last = np.searchsorted(of, [episode, episode + 1])
    own = np.asarray(vectors[first:last], np.float32)
    best = np.full(num_episodes, np.inf)
    if len(own):
        for start in range(0, len(of), CHUNK):
            some = slice(start, start + CHUNK)
            np.minimum.at(best, of[some], distance(np.asarray(vectors[some], np.float32), own))
    return np.where(np.isinf(best), np.nan, best)
