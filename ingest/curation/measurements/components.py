"""Sets of linked things: connected components of an undirected graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


def components(count: int, one: npt.ArrayLike, other: npt.ArrayLike) -> Indices:
    """[count] label of the component of each element; `one[i]` is linked to `other[i]`."""
    from scipy.sparse import coo_array  # a tenth of a second, which only this function needs
    from scipy.sparse.csgraph import connected_components

    ends = np.asarray(one), np.asarray(other)
    graph = coo_array((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)
