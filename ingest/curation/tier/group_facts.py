"""What an episode is among the others of its body and task, as facts that a policy may ask about: population.py, over a snapshot.

A group is (embodiment, first task text); episodes without a text are in none. These numbers change when the corpus grows, so they are
computed when a policy asks, and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc

from ingest.curation.tier.places import Places
from ingest.curation.tier.population import (
    END_FENCE,
    END_SPEED,
    LENGTH_NAMES,
    end_outliers,
    length_outliers,
    task_deviation,
)
from ingest.curation.tier.rows import rows_of
from ingest.curation.tier.wide import Wide, read_wide
from ingest.snapshot import Snapshot
from schemas.geometry import Array

DEVIATION_FACTS = ("task_deviation_m", "task_deviation_ratio")
_GROUP = ["group"]


def group_facts(
    corpus: Path,
    current: Snapshot,
    places: Places,
    embodiments: pl.Series | None,
    names: Iterable[str],
    wide: Wide,
) -> Mapping[str, Array]:
    """[N] each of `names` for the episodes of `places`; NaN where the group is too small. The others of a group are read too.

    Args:
        embodiments: bodies of the episodes; None when `places` are all episodes of the snapshot, in their order.
        wide: of the episodes of `places`, with what `measured_for(names)` says.
    """
    wanted = set(names)
    lengths = [name for name in LENGTH_NAMES if name in wanted]
    deviations = [name for name in DEVIATION_FACTS if name in wanted]
    ends = sorted(measured_for(wanted))
    if not lengths and not deviations and not ends:
        return {}
    grouped = _grouped(corpus, current, embodiments, with_uid=bool(deviations))
    if embodiments is not None:
        grouped = grouped.with_columns(place=places.of(grouped["uid"]))
    found = []
    if lengths:
        found.append((lengths, length_outliers(grouped, _GROUP, lengths)))
    if ends:
        speed = wide.values[END_SPEED][grouped["place"].to_numpy()]
        if embodiments is not None:  # the others of the group too
            others = Places(grouped["uid"])
            speed = read_wide(corpus, current, others, names=ends, interval_names=[]).values[
                END_SPEED
            ]
        told = grouped.with_columns(pl.Series(END_SPEED, speed).fill_nan(None))
        found.append(([END_FENCE], end_outliers(told, _GROUP)))
    if deviations:
        kind = pc.field("kind") == "trajectory"
        vectors = pl.DataFrame(current.read(corpus, "signatures", only=kind))
        newest = vectors.filter(pl.col("version") == pl.col("version").max().over("uid"))
        joined = newest.select("uid", "vector").join(grouped, on="uid")
        deviating = task_deviation(joined, _GROUP).join(grouped.select("uid", "place"), on="uid")
        found.append((deviations, deviating))
    out = {}
    for facts, frame in found:
        place = frame["place"].to_numpy()
        for name in facts:
            values = np.full(len(places), np.nan)
            values[place[place >= 0]] = frame[name].to_numpy()[place >= 0]
            out[name] = values
    return out


def measured_for(names: Iterable[str]) -> set[str]:
    """The measurements that group facts are made of."""
    return {END_SPEED} if END_FENCE in set(names) else set()


def _grouped(
    corpus: Path, current: Snapshot, embodiments: pl.Series | None, *, with_uid: bool
) -> pl.DataFrame:
    """place, duration_s and the number of the group: millions of episodes are grouped sooner by a number than by two texts."""
    task = pl.col("tasks").list.first().alias("task")
    rows = rows_of(corpus, current, "episodes").with_row_index("place")
    uid = ["uid"] if with_uid or embodiments is not None else []
    if embodiments is not None:
        rows = rows.filter(pl.col("embodiment").is_in(embodiments.unique().to_list()))
    chosen = rows.select(pl.col("place").cast(pl.Int64), *uid, "embodiment", task, "duration_s")
    named = chosen.filter(pl.col("task").is_not_null() & (pl.col("task") != ""))
    codes = [
        pl.col(text).cast(pl.Categorical).to_physical().cast(pl.UInt64)
        for text in ("embodiment", "task")
    ]
    group = (codes[0] * 2**32 + codes[1]).alias("group")
    return named.select("place", *uid, "duration_s", group).collect()
