"""Two coordinates for each episode, so that episodes that look or move alike lie near each other: the first two principal components of coarse vectors.

Principal components: K. Pearson, "On lines and planes of closest fit to systems of points in space", 1901.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CHUNK = 65_536  # episodes of which the vectors are in memory as float64
AXES = 2


class Plane(NamedTuple):
    """Where the episodes lie."""

    places: npt.NDArray[np.float64]  # [E, 2]; NaN for an episode without a vector
    explained: tuple[float, float]  # share of the variance along each axis


def principal_plane(
    of: npt.NDArray[np.int32], vectors: npt.NDArray[np.float16], num_episodes: int
) -> Plane:
    """Of episodes with any number of vectors each; the mean of an episode's vectors counts.

    The sign of an axis is such that its largest weight is positive. A vector with a number that is not finite is left out.

    Args:
        of: [V] the episode of each vector, ascending.
        vectors: [V, D].
    """
    size = vectors.shape[1]
    count, total, products = 0, np.zeros(size), np.zeros((size, size))
    for _, means in _means(of, vectors, num_episodes):
        count += len(means)
        total += means.sum(axis=0)
        products += means.T @ means
    places = np.full((num_episodes, AXES), np.nan)
    if not count:
        return Plane(places, (0.0, 0.0))
    centre = total / count
    covariance = products / count - np.outer(centre, centre)
    variances, directions = np.linalg.eigh(covariance)  # ascending
    axes = directions[:, ::-1][:, :AXES]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.where(axes[largest, np.arange(AXES)] < 0, -1.0, 1.0)
    for episodes, means in _means(of, vectors, num_episodes):
        places[episodes] = (means - centre) @ axes
    spread = np.maximum(variances, 0.0)
    shares = spread[::-1][:AXES] / max(float(spread.sum()), np.finfo(float).tiny)
    return Plane(places, (float(shares[0]), float(shares[1])))


def _means(
    of: npt.NDArray[np.int32], vectors: npt.NDArray[np.float16], num_episodes: int
) -> Iterator[tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]]:
    """[n] episodes and [n, D] the mean of the vectors of each, some at a time."""
    for first in range(0, num_episodes, CHUNK):
        part = slice(*np.searchsorted(of, [first, first + CHUNK]))
        episodes, values = of[part], np.asarray(vectors[part], np.float64)
        is_whole = np.isfinite(values).all(axis=1)
        episodes, values = episodes[is_whole], values[is_whole]
        own, starts, counts = np.unique(episodes, return_index=True, return_counts=True)
        if len(own):
            yield own, np.add.reduceat(values, starts) / counts[:, None]
