"""Which episodes and stretches to review: those whose measurement is nearest to a threshold of the policy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.compute as pc

from ingest.corpus.snapshot import Snapshot
from ingest.curation.measurements.runner import latest
from ingest.curation.tiers.policy import QualityPolicy
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One measured value beside the threshold that is nearest to it. `start` and `end` are None for the whole episode."""

    uid: str
    start: int | None
    end: int | None
    value: float
    threshold: float
    distance: float


def near_threshold(
    corpus: Path,
    current: Snapshot,
    policy: QualityPolicy,
    measurement: str,
    count: int,
    seed: int,
) -> list[Candidate]:
    """The `count` values nearest to a threshold. Equal distances are ordered by a hash of seed and place.

    Raises:
        ConfigError: the policy compares no such measurement with a number of its own unit.
    """
    thresholds = sorted(_thresholds(policy, measurement))
    if not thresholds:
        problem = f"{policy.title} has no threshold on values of the measurement {measurement!r}"
        remedy = "name a measurement of the policy, or pass another --policy"
        raise ConfigError(problem, remedy=remedy, where="--measurement")
    rows = latest(
        pl.DataFrame(current.read(corpus, "measurements", only=pc.field("name") == measurement))
    ).drop_nulls("value")
    distance, threshold = pl.lit(float("inf")), pl.lit(0.0)
    for each in thresholds:
        own = (pl.col("value") - each).abs()
        threshold = pl.when(own < distance).then(pl.lit(each)).otherwise(threshold)
        distance = pl.min_horizontal(own, distance)
    measured = rows.select("uid", "start", "end", "value", threshold=threshold, distance=distance)
    near = measured.filter(pl.col("distance").rank("min") <= count)  # and those as far as the last
    places = zip(near["uid"], near["start"], near["end"], strict=True)
    order = pl.Series("order", [_hash(seed, place) for place in places], dtype=pl.String)
    nearest = near.with_columns(order).sort("distance", "order").head(count).drop("order")
    return [Candidate(**row) for row in nearest.to_dicts()]


def _thresholds(policy: QualityPolicy, measurement: str) -> set[float]:
    """Of the value itself or of its largest or smallest, not of a share or a count of stretches; of edges too."""
    conditions = (
        condition
        for _, condition in policy.all_conditions()
        if condition.measurement == measurement and condition.of in (None, "max", "min")
    )
    edges = (edge for edge in policy.segments.edges if edge.measurement == measurement)
    return {value for each in (*conditions, *edges) for value in each.thresholds.values()}


def _hash(seed: int, place: tuple[str, int | None, int | None]) -> str:
    return hashlib.sha256(f"{seed} {place}".encode()).hexdigest()
