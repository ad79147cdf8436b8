"""What an episode is among the others of its task: long or short, and how far from the median demonstration.

Pure functions over catalog columns: they need all episodes of a group at once and change when the corpus grows, so they are no
measures of an episode. A group is what may be compared: (embodiment, task), say; at least `MIN_GROUP` episodes, else NULL.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.curation.measurements.each.trajectory import POINTS, WIDTH
from schemas.geometry import Array

LENGTH_NAMES = ("length_robust_z", "length_fence", "length_ratio")
END_SPEED, END_FENCE = "end_speed_m_s", "end_speed_fence"
MIN_SPEED_M_S = 0.02  # between end speeds: twice that of rest (arm.IDLE_M_S)
MIN_GROUP = 5
MAD_TO_SIGMA = 1.4826
MIN_SIGMA = (
    0.05  # of a log duration: demonstrations that differ by 5 % are not outliers of a set of equals
)
MAX_REFERENCES = 16
BAND = 6  # of 32 points: 19 % of the duration
OPENING_M = 0.1  # an opened gripper is as far from a closed one as this
BATCH = 20_000  # pairs warped at once


def length_outliers(
    episodes: pl.DataFrame, by: Sequence[str], names: Sequence[str] = LENGTH_NAMES
) -> pl.DataFrame:
    """How unusual each duration is in its group.

    Args:
        episodes: `duration_s` and the columns `by`.
        names: of the three numbers those that are asked for; each takes a sort of its own.

    Returns:
        The rows in their order with `group_size` and `length_robust_z` (of the log duration: (x - median) / (1.4826 MAD)) or
        `length_fence` (how many interquartile ranges beyond the nearer quartile; over 1.5 is Tukey's outlier; negative when short;
        0 inside) or `length_ratio` (over the median duration). All are NULL in groups of less than 5.
    """
    rows = episodes.with_columns(pl.col("duration_s").log().alias("_log"))
    groups = rows.group_by(by).agg(
        pl.len().alias("group_size"),
        pl.col("_log").quantile(0.25, "linear").alias("_low"),
        pl.col("_log").median().alias("_middle"),
        pl.col("_log").quantile(0.75, "linear").alias("_high"),
    )
    rows = rows.join(groups, on=by, how="left", maintain_order="left", nulls_equal=True)
    enough = pl.col("group_size") >= MIN_GROUP
    statistics = {"length_robust_z": _robust_z, "length_fence": _fence, "length_ratio": _ratio}
    numbers = [pl.when(enough).then(statistics[name](by)).alias(name) for name in names]
    return rows.with_columns(numbers).drop("_log", "_low", "_middle", "_high")


def _robust_z(by: Sequence[str]) -> pl.Expr:
    off = pl.col("_log") - pl.col("_middle")
    sigma = pl.max_horizontal(off.abs().median().over(by) * MAD_TO_SIGMA, pl.lit(MIN_SIGMA))
    return off / sigma


def _ratio(_: Sequence[str]) -> pl.Expr:
    return (pl.col("_log") - pl.col("_middle")).exp()


def _fence(_: Sequence[str]) -> pl.Expr:
    log, low, high = (pl.col(name) for name in ("_log", "_low", "_high"))
    beyond = pl.when(log > high).then(log - high).when(log < low).then(log - low).otherwise(0.0)
    return beyond / pl.max_horizontal(high - low, pl.lit(MIN_SIGMA))


def end_outliers(episodes: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """How much faster each one ends than the others of its group: a cut recording ends in motion, where its fellows rest.

    Args:
        episodes: `end_speed_m_s`, NULL where it is not known, and the columns `by`.

    Returns:
        The rows in their order with `end_speed_fence`: interquartile ranges (at least 0.02 m/s) above the upper quartile, 0 below
        it; NULL where less than 5 of the group are known.
    """
    speed = pl.col(END_SPEED)
    low, high = (speed.quantile(q, "linear").over(by) for q in (0.25, 0.75))
    beyond = (speed - high).clip(0.0) / pl.max_horizontal(high - low, pl.lit(MIN_SPEED_M_S))
    enough = speed.count().over(by) >= MIN_GROUP
    return episodes.with_columns(pl.when(enough).then(beyond).alias(END_FENCE))


def task_deviation(signatures: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """How far each demonstration is from the median one of its group, warped in time.

    The median demonstration is the one of at most 16 (spread evenly over the sorted uids) with the smallest sum of distances to
    the other 15, so the cost is linear in the episodes. Signatures of another length (other arms) are other groups.

    Args:
        signatures: `uid`, `vector` (kind `trajectory`, newest version) and the columns `by`.

    Returns:
        `uid`, `task_deviation_m` (mean distance over the warped points, arms together), `task_deviation_ratio` (over the
        median of the group) and `group_size`; the first two NULL in groups of less than 5.
    """
    keyed = signatures.with_columns(pl.col("vector").list.len().alias("_length")).sort("uid")
    deviations = [
        _deviations(group).select("uid", "task_deviation_m", "task_deviation_ratio", "group_size")
        for group in keyed.partition_by([*by, "_length"], maintain_order=True)
    ]
    return pl.concat(deviations) if deviations else _deviations(keyed.clear())


def _deviations(group: pl.DataFrame) -> pl.DataFrame:
    count = len(group)
    metres: npt.NDArray[np.float64] | None = None
    if count >= MIN_GROUP:
        shapes = np.stack([_shape(v) for v in group["vector"].to_numpy()])
        metres = _from_median(shapes)
    typical = float(np.median(metres)) if metres is not None else 0.0
    blank = pl.lit(None, dtype=pl.Float64)
    ratio = metres / typical if metres is not None and typical > 0 else None
    return group.select("uid").with_columns(
        (blank if metres is None else pl.Series(metres)).alias("task_deviation_m"),
        (blank if ratio is None else pl.Series(ratio)).alias("task_deviation_ratio"),
        pl.lit(count, dtype=pl.UInt32).alias("group_size"),
    )


def _shape(vector: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """[32, d] points in metres: an opening counts as a way of 10 cm."""
    shape = np.array(vector, dtype=np.float32).reshape(POINTS, -1, WIDTH)
    shape[..., WIDTH - 1] *= OPENING_M
    return shape.reshape(POINTS, -1)


def _from_median(shapes: npt.NDArray[np.float32]) -> Array:
    """[N, 32, d] -> [N] distance of each to the medoid of the references."""
    count = len(shapes)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_REFERENCES)).astype(np.intp))
    references = shapes[chosen]
    size = len(references)
    pairs = warped_distance(np.repeat(references, size, axis=0), np.tile(references, (size, 1, 1)))
    medoid = int(np.argmin(pairs.reshape(size, size).sum(axis=1)))
    return warped_distance(shapes, references[medoid])


def warped_distance(shapes: npt.NDArray[np.float32], references: npt.NDArray[np.float32]) -> Array:
    """Dynamic time warping of each of `shapes` [N, P, d] with its reference [N, P, d] or the one [P, d], within 6 points. [N]

    Sakoe and Chiba 1978, symmetric form (a diagonal step counts twice), divided by 2 P: a mean distance, in the points' unit.
    """
    batches = [slice(i, i + BATCH) for i in range(0, len(shapes), BATCH)]
    return np.concatenate(
        [np.empty(0)]
        + [
            _warped(shapes[b], references if references.ndim == 2 else references[b])
            for b in batches
        ]
    )


def _warped(shapes: npt.NDArray[np.float32], references: npt.NDArray[np.float32]) -> Array:
    num, points, _ = shapes.shape
    above = np.full((points + 1, num), np.inf)  # column 0 stands before the first point
    above[0] = 0.0
    for i in range(points):
        row = np.full((points + 1, num), np.inf)
        first, last = max(0, i - BAND), min(points, i + BAND + 1)
        apart = np.linalg.norm(shapes[:, i, None] - references[..., first:last, :], axis=2).T
        for j in range(first, last):
            d = apart[j - first]
            straight = np.minimum(above[j + 1], row[j]) + d
            row[j + 1] = np.minimum(above[j] + 2 * d, straight)
        above = row
    return np.asarray(above[points] / (2 * points))
