"""What an episode is among the others of its body and task, as facts that a policy may ask about: population.py, over a snapshot.

A group is (embodiment, first task text); episodes without a text are in none. These numbers change when the corpus grows, so they are
computed when a policy asks, and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ingest.curation.tier.population import length_outliers, task_deviation
from ingest.curation.tier.wide import find
from ingest.snapshot import Snapshot
from schemas.geometry import Array

LENGTH_FACTS = ("length_robust_z", "length_fence")
DEVIATION_FACTS = ("task_deviation_m", "task_deviation_ratio")
_GROUP = ["group"]


def group_facts(
    corpus: Path, current: Snapshot, uids: pa.Array, embodiments: pa.Array, names: Iterable[str]
) -> Mapping[str, Array]:
    """[N] each of `names` for the episodes `uids`; NaN where the group is too small. The others of a group are read too."""
    wanted = set(names)
    if not wanted & {*LENGTH_FACTS, *DEVIATION_FACTS}:
        return {}
    among = pc.field("embodiment").isin(embodiments.unique())
    columns = ["uid", "embodiment", "tasks", "duration_s"]
    grouped = _grouped(pl.DataFrame(current.read(corpus, "episodes", columns, only=among)))
    found = []
    if wanted & set(LENGTH_FACTS):
        found.append((LENGTH_FACTS, length_outliers(grouped, _GROUP)))
    if wanted & set(DEVIATION_FACTS):
        kind = pc.field("kind") == "trajectory"
        vectors = pl.DataFrame(current.read(corpus, "signatures", only=kind))
        newest = vectors.filter(pl.col("version") == pl.col("version").max().over("uid"))
        joined = newest.select("uid", "vector").join(grouped, on="uid")
        found.append((DEVIATION_FACTS, task_deviation(joined, _GROUP)))
    out = {}
    for facts, frame in found:
        place = find(uids, [frame["uid"].to_arrow()])
        for name in wanted & set(facts):
            values = np.full(len(uids), np.nan)
            values[place[place >= 0]] = frame[name].to_numpy()[place >= 0]
            out[name] = values
    return out


def _grouped(episodes: pl.DataFrame) -> pl.DataFrame:
    """uid, duration_s and the number of the group: millions of episodes are grouped sooner by a number than by two texts."""
    task = pl.col("tasks").list.first().alias("task")
    named = episodes.with_columns(task).filter(task.is_not_null() & (task != ""))
    codes = [
        pl.col(text).cast(pl.Categorical).to_physical().cast(pl.UInt64)
        for text in ("embodiment", "task")
    ]
    return named.select("uid", "duration_s", (codes[0] * 2**32 + codes[1]).alias("group"))
