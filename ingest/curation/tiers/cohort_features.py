"""What an episode is among the others of its body and task, as facts that a policy may ask about: population.py, over a snapshot.

A group is (embodiment, text of the task); episodes without a text are in none. The text is that of the whole task where `segments`
has one over all of the episode, else the first of `tasks`: where sub-tasks are annotated `tasks` has only theirs, and different
tasks begin alike. These numbers change when the corpus grows, so they are
computed when a policy asks, and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.compute as pc

from ingest.catalog.tables import rows_of
from ingest.catalog.uid_index import UidIndex
from ingest.corpus.snapshot import Snapshot
from ingest.curation.tiers.cohort_stats import (
    END_FENCE,
    END_SPEED,
    LENGTH_NAMES,
    end_outliers,
    length_outliers,
    task_deviation,
)
from ingest.curation.tiers.measurement_matrix import MeasurementMatrix, read_matrix
from schemas.geometry import Array
from schemas.parquet_file import collect

DEVIATION_FACTS = ("task_deviation_m", "task_deviation_ratio")
_GROUP = ["group"]
EDGE_STEPS = 1  # of an episode that a whole task may leave out at either end: instants are rounded


def group_facts(
    corpus: Path,
    current: Snapshot,
    places: UidIndex,
    embodiments: pl.Series | None,
    names: Iterable[str],
    wide: MeasurementMatrix,
) -> Mapping[str, Array]:
    """[N] each of `names` for the episodes of `places`; NaN where the group is too small. The others of a group are read too.

    Args:
        embodiments: bodies of the episodes; None when `places` are all episodes of the snapshot, in their order.
        wide: of the episodes of `places`, with what `measured_for(names)` says.
    """
    requested = set(names)
    lengths = [name for name in LENGTH_NAMES if name in requested]
    deviations = [name for name in DEVIATION_FACTS if name in requested]
    ends = sorted(measured_for(requested))
    if not lengths and not deviations and not ends:
        return {}
    grouped = _grouped(corpus, current, places, embodiments, with_uid=bool(deviations))
    if embodiments is not None:
        grouped = grouped.with_columns(place=places.of(grouped["uid"]))
    tables = []
    if lengths:
        tables.append((lengths, length_outliers(grouped, _GROUP, lengths)))
    if ends:
        speed = wide.values[END_SPEED][grouped["place"].to_numpy()]
        if embodiments is not None:  # the others of the group too
            others = UidIndex(grouped["uid"])
            speed = read_matrix(corpus, current, others, names=ends, interval_names=[]).values[
                END_SPEED
            ]
        speeds = grouped.with_columns(pl.Series(END_SPEED, speed).fill_nan(None))
        tables.append(([END_FENCE], end_outliers(speeds, _GROUP)))
    if deviations:
        kind = pc.field("kind") == "trajectory"
        vectors = pl.DataFrame(current.read(corpus, "signatures", only=kind))
        newest = vectors.filter(pl.col("version") == pl.col("version").max().over("uid"))
        joined = newest.select("uid", "vector").join(grouped, on="uid")
        deviating = task_deviation(joined, _GROUP).join(grouped.select("uid", "place"), on="uid")
        tables.append((deviations, deviating))
    out = {}
    for facts, frame in tables:
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
    corpus: Path,
    current: Snapshot,
    places: UidIndex,
    embodiments: pl.Series | None,
    *,
    with_uid: bool,
) -> pl.DataFrame:
    """place, duration_s and the number of the group: millions of episodes are grouped sooner by a number than by two texts."""
    task = pl.col("tasks").list.first().alias("task")
    rows = rows_of(corpus, current, "episodes").with_row_index("place")
    uid = ["uid"] if with_uid or embodiments is not None else []
    if embodiments is not None:
        rows = rows.filter(pl.col("embodiment").is_in(embodiments.unique().to_list()))
    chosen = rows.select(
        pl.col("place").cast(pl.Int64), *uid, "embodiment", task, "duration_s", "length"
    )
    whole_tasks = _whole_tasks(corpus, current)
    if len(whole_tasks):
        frame = collect(chosen, "catalog/episodes")
        chosen = _with_whole_tasks(
            frame, whole_tasks, places if embodiments is None else UidIndex(frame["uid"])
        ).lazy()
    named = chosen.filter(pl.col("task").is_not_null() & (pl.col("task") != ""))
    codes = [
        pl.col(text).cast(pl.Categorical).to_physical().cast(pl.UInt64)
        for text in ("embodiment", "task")
    ]
    group = (codes[0] * 2**32 + codes[1]).alias("group")
    return collect(named.select("place", *uid, "duration_s", group), "catalog/episodes")


def _whole_tasks(corpus: Path, current: Snapshot) -> pl.DataFrame:
    """uid, end and text of the tasks that begin with their episode; which of them last until its end is not known here."""
    is_whole = (pl.col("kind") == "task") & (pl.col("start") <= EDGE_STEPS)
    has_text = pl.col("text").is_not_null() & (pl.col("text").str.strip_chars() != "")
    rows = rows_of(corpus, current, "segments").filter(is_whole & has_text)
    return collect(rows.select("uid", "end", "text"), "catalog/segments")


def _with_whole_tasks(
    frame: pl.DataFrame, whole_tasks: pl.DataFrame, places: UidIndex
) -> pl.DataFrame:
    """`frame`, its `task` replaced where one of `whole_tasks` covers the episode; of several the first. `places` are its rows."""
    row = places.of(whole_tasks["uid"])
    length = frame["length"].to_numpy()
    covers = np.flatnonzero(
        (row >= 0) & (whole_tasks["end"].to_numpy() >= length[row] - EDGE_STEPS)
    )
    at, first = np.unique(row[covers], return_index=True)
    whole = pl.DataFrame({"at": at, "whole": whole_tasks["text"].gather(covers[first])})
    joined = frame.with_columns(at=pl.int_range(pl.len())).join(
        whole, on="at", how="left", maintain_order="left"
    )
    return joined.with_columns(task=pl.coalesce("whole", "task")).drop("at", "whole")
