"""Quantiles of columns that do not fit in memory, from histograms that add up. See `ingest.curation.manifests.running_stats`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.curation.manifests.running_stats import NUM_BINS, histogram, quantile
from schemas.geometry import Array

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValueCounts:
    """The filled bins of n elements: `bins` ascending, bin b of element e is e * NUM_BINS + b."""

    width: int  # n
    bins: Ints
    counts: Ints

    def __add__(self, other: ValueCounts | None) -> ValueCounts:
        if other is None:
            return self
        bins, place = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return ValueCounts(width=self.width, bins=bins, counts=counts)

    def quantile(self, share: float, low: Array, high: Array) -> Array:
        """[n] the smallest value that at least `share` of the samples do not exceed, off by 0.5 % at most.

        Args:
            low, high: [n] the smallest and largest sample.
        """
        dense = np.zeros(self.width * NUM_BINS, np.int64)
        dense[self.bins] = self.counts
        return quantile(dense.reshape(self.width, NUM_BINS), share, low, high)

    def as_json(self) -> dict[str, Any]:
        return {"width": self.width, "bins": self.bins.tolist(), "counts": self.counts.tolist()}

    @staticmethod
    def of_json(raw: Mapping[str, Any]) -> ValueCounts:
        bins, counts = (np.array(raw[name], np.int64) for name in ("bins", "counts"))
        return ValueCounts(width=int(raw["width"]), bins=bins, counts=counts)


def value_counts(values: npt.NDArray[Any]) -> ValueCounts:
    """Of the samples of [K, n]."""
    wide = values.astype(np.float64)
    bins, counts = histogram(wide, np.ones(wide.shape, dtype=bool))
    return ValueCounts(width=wide.shape[1], bins=bins, counts=counts)
