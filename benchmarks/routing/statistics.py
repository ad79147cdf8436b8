"""How sure the figures are: the few formulas that the report rests on.

Wilson, "Probable inference, the law of succession, and statistical inference" (1927); Hanley and McNeil, "The meaning and use of the area
under a ROC curve" (1982), whose area is the chance that a good one scores above a bad one, ties counting half; Efron, "Bootstrap
methods" (1979), percentile intervals; Student, "The probable error of a mean" (1908).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata
from scipy.stats import t as student

NUM_RESAMPLES = 10_000
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval; NaN where there is nothing to say, and None then in JSON."""

    value: float
    low: float
    high: float
    count: int

    def as_dict(self) -> dict[str, Any]:
        return {k: None if np.isnan(v) else v for k, v in asdict(self).items()}


def wilson(num_successes: int, count: int, *, confidence: float = 0.95) -> Estimate:
    """A share of `count` independent tries."""
    if count == 0:
        return Estimate(value=np.nan, low=np.nan, high=np.nan, count=0)
    z = float(norm.ppf(0.5 + confidence / 2))
    share = num_successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    # At 0 and at all of them the bound is exactly the share; rounding must not put it beside.
    low, high = min(middle - half, share), max(middle + half, share)
    return Estimate(value=share, low=float(low), high=float(high), count=count)


def auroc(score: npt.ArrayLike, is_good: npt.ArrayLike) -> float:
    """The chance that a good one scores above a bad one; NaN without one of each."""
    good = np.asarray(is_good, dtype=bool)
    num_good, num_bad = int(good.sum()), int((~good).sum())
    if not num_good or not num_bad:
        return float("nan")
    ranks = rankdata(np.asarray(score, dtype=np.float64))
    above = ranks[good].sum() - num_good * (num_good + 1) / 2
    return float(above / (num_good * num_bad))


def auroc_estimate(
    score: npt.ArrayLike, is_good: npt.ArrayLike, rng: np.random.Generator
) -> Estimate:
    """With an interval by resampling the good and the bad ones, each among themselves."""
    values, good = np.asarray(score, dtype=np.float64), np.asarray(is_good, dtype=bool)
    value = auroc(values, good)
    if np.isnan(value):
        return Estimate(value=value, low=np.nan, high=np.nan, count=len(values))
    better, worse = values[good], values[~good]
    size = NUM_RESAMPLES // 5
    drawn = [part[rng.integers(len(part), size=(size, len(part)))] for part in (better, worse)]
    ranks = rankdata(np.concatenate(drawn, axis=1), axis=1)[:, : len(better)].sum(axis=1)
    again = (ranks - len(better) * (len(better) + 1) / 2) / (len(better) * len(worse))
    low, high = np.quantile(again, (0.025, 0.975))
    return Estimate(value=value, low=float(low), high=float(high), count=len(values))


def t_interval(values: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """Of the mean of a few independent values, by Student's t: resampling so few is too sure. NaN for one value."""
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return float("nan"), float("nan")
    half = float(student.ppf(0.5 + confidence / 2, len(x) - 1)) * x.std(ddof=1) / np.sqrt(len(x))
    return float(x.mean() - half), float(x.mean() + half)


def paired_difference(
    one: npt.ArrayLike, other: npt.ArrayLike, rng: np.random.Generator
) -> Estimate:
    """Mean of `one - other` over seeds, value i of both being of the same seed; resampled over seeds.

    With five seeds the interval is narrow by itself (it never leaves the range of the five): read it beside the seeds.
    """
    away = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    away = away[np.isfinite(away)]
    if len(away) == 0:
        return Estimate(value=np.nan, low=np.nan, high=np.nan, count=0)
    drawn = rng.integers(len(away), size=(NUM_RESAMPLES, len(away)))
    low, high = np.quantile(away[drawn].mean(axis=1), (0.025, 0.975))
    return Estimate(value=float(away.mean()), low=float(low), high=float(high), count=len(away))
