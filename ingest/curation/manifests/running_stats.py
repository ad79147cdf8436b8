"""Statistics that merge: count, mean and sum of squares exactly, quantiles from a histogram of fixed resolution. float64.

Merging follows Chan, Golub & LeVeque 1983 ("Algorithms for computing the sample variance", eq. 2.1), for many parts at once: the sum
of squares about the common mean is that of each part about its own plus what the means differ by. Nothing large is subtracted
from anything large, so mean 1000 and deviation 0.01 survive.

The histogram is even in asinh(x / 1e-4): bins are 5e-7 wide around zero and 0.5 % of x where x is large, for delta positions,
angles and shares alike, out to 22. A quantile from it is off by at most `QUANTILE_ERROR` times sqrt(x^2 + SCALE^2). Where the smallest
or the largest sample is in the same bin it is that, so the quantiles of a gripper that is 0 or 1 are 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.geometry import Array

SCALE = 1e-4
STEP = 0.005
HALF = 2600  # bins on each side of zero: asinh(x / SCALE) up to 13
NUM_BINS = 2 * HALF + 1
QUANTILE_ERROR = math.expm1(STEP)  # a whole bin
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunningStats:
    """Of E elements, or of E elements in each of N parts ([N, E]). Where count is 0: mean and m2 0, low inf, high -inf."""

    count: Ints
    mean: Array
    m2: Array  # sum of squared deviations from the mean
    low: Array
    high: Array

    @property
    def std(self) -> Array:
        """Population standard deviation, NaN where there is no sample."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(self.m2 / self.count))


def running_stats(values: Array, valid: Mask) -> RunningStats:
    """Of the valid samples of [K, E], in two passes."""
    count = valid.sum(axis=0, dtype=np.int64)
    some = np.maximum(count, 1)
    mean = np.where(valid, values, 0.0).sum(axis=0) / some
    off = np.where(valid, values - mean, 0.0)
    mean = mean + off.sum(axis=0) / some  # what rounding left of the first pass
    off = np.where(valid, values - mean, 0.0)
    return RunningStats(
        count=count,
        mean=np.where(count > 0, mean, 0.0),
        m2=(off * off).sum(axis=0),
        low=np.where(valid, values, np.inf).min(axis=0, initial=np.inf),
        high=np.where(valid, values, -np.inf).max(axis=0, initial=-np.inf),
    )


def merge_stats(parts: RunningStats) -> RunningStats:
    """[N, E] to [E]. The order of the parts is the order of the sums: sort them, and every machine gets the same bits."""
    count = parts.count.sum(axis=0, dtype=np.int64)
    some = np.maximum(count, 1)
    # About a mean of one of the parts, not about zero, so that a large common offset costs no digits.
    first = parts.mean[parts.count.argmax(axis=0), np.arange(parts.mean.shape[1])]
    mean = first + (parts.count * (parts.mean - first)).sum(axis=0) / some
    between = parts.count * (parts.mean - mean) ** 2
    return RunningStats(
        count=count,
        mean=np.where(count > 0, mean, 0.0),
        m2=parts.m2.sum(axis=0) + np.where(parts.count > 0, between, 0.0).sum(axis=0),
        low=parts.low.min(axis=0, initial=np.inf),
        high=parts.high.max(axis=0, initial=-np.inf),
    )


def stack_stats(parts: Sequence[RunningStats]) -> RunningStats:
    """Moments of E elements each, as one of [N, E]."""
    columns: dict[str, Any] = {
        name: np.stack([getattr(part, name) for part in parts])
        for name in ("count", "mean", "m2", "low", "high")
    }
    return RunningStats(**columns)


def bin_of(values: Array) -> Ints:
    """Which bin each value is in, 0..NUM_BINS - 1; what lies beyond 22 is in the outermost."""
    place = np.rint(np.arcsinh(values / SCALE) / STEP)
    return np.asarray(np.clip(place, -HALF, HALF) + HALF, dtype=np.int64)


def histogram(values: Array, valid: Mask) -> tuple[Ints, Ints]:
    """The filled bins of [K, E] and how many samples are in each; bin b of element e is number e * NUM_BINS + b."""
    flat = (bin_of(values) + np.arange(values.shape[1]) * NUM_BINS)[valid]
    bins, counts = np.unique(flat, return_counts=True)
    return bins, counts.astype(np.int64)


def quantile(counts: Ints, share: float, low: Array, high: Array) -> Array:
    """[E] the smallest value that at least `share` of the samples do not exceed; NaN without samples.

    Args:
        counts: [E, NUM_BINS].
        low, high: [E] the smallest and largest sample.
    """
    total = counts.sum(axis=1)
    rank = np.maximum(np.ceil(share * total), 1)
    place = (np.cumsum(counts, axis=1) >= rank[:, None]).argmax(axis=1)
    value = SCALE * np.sinh((place - HALF) * STEP)
    value = np.where(place == bin_of(high), high, value)
    value = np.where(place == bin_of(low), low, value)
    return np.where(total > 0, value, np.nan)
