"""Who is in train, val and test of a manifest: whole groups, by a hash of their name that later data cannot move.

`auto` is the split that ingestion wrote (schemas/split.py) at its default shares. The others deal other groups by the same hash:
`subject`, `scene`, `episode`, and `task`, where all episodes that share an instruction stay together, through whatever chain of
episodes with several instructions joins them; and `copies`, the groups of `auto` where those that share a recording
are one (dedup/straddle.py). `source` follows the source wherever it publishes a split, its train too, and deals the rest as `auto`. An instruction is that of the whole episode where there is one (`whole_tasks`). An episode that does not know its subject or scene keeps the group it has.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from ingest.catalog.catalog import Catalog
from ingest.curation.manifests.split_by import SplitBy
from ingest.curation.measurements.components import components
from schemas.source_split import HELD_OUT, SPLITS
from schemas.split import DEFAULT_SHARES, Shares, split_of

# A timestep may lack at either end: instants are rounded.
_WHOLE = """
SELECT s.uid, list(DISTINCT s.text ORDER BY s.text) AS whole FROM segments s JOIN episodes e USING (uid)
WHERE s.kind = 'task' AND s."start" <= 1 AND s."end" >= e.length - 1 AND trim(s.text) <> '' GROUP BY s.uid"""


def assign_splits(
    episodes: pl.DataFrame, by: SplitBy, shares: Shares, *, keeps_source: bool = True
) -> pl.Series:
    """The split of each episode.

    Args:
        episodes: uid, source, dataset, split_group, split, source_split (NULL or "" for none), subject_id, scene_id,
            texts (list of instructions); one row each.
        keeps_source: an episode that its source publishes as val or test is that, whatever its group draws.
    """
    is_usual = by is SplitBy.AUTO and shares == DEFAULT_SHARES and keeps_source
    if is_usual and episodes["split"].null_count() == 0:
        return episodes["split"]
    groups = split_groups(episodes, by)
    # One hash for each group; rows follow by joining.
    names = groups.unique()
    splits = [split_of(name, shares) for name in names.to_list()]
    drawn = groups.replace_strict(names, pl.Series(splits, dtype=pl.String), return_dtype=pl.String)
    if not keeps_source:
        return drawn
    published = SPLITS if by is SplitBy.SOURCE else HELD_OUT
    is_published = episodes["source_split"].is_in(published).fill_null(value=False)
    return episodes["source_split"].zip_with(is_published, drawn)


def whole_tasks(catalog: Catalog, episodes: pl.DataFrame) -> pl.Series:
    """`texts` of the episodes, without those of sub-tasks where `segments` has texts of the whole.

    "Place it on the table" is a step of many tasks: through it, unrelated ones would be one group.

    Args:
        episodes: uid and texts.
    """
    whole = pl.DataFrame(catalog.arrow(_WHOLE))
    joined = episodes.select("uid", "texts").join(
        whole, on="uid", how="left", maintain_order="left"
    )
    return joined.select(pl.coalesce("whole", "texts")).to_series().alias("texts")


def split_groups(episodes: pl.DataFrame, by: SplitBy) -> pl.Series:
    """The name of the group that each episode may not be parted from."""
    own = pl.coalesce("split_group", pl.format("{}/{}/uid:{}", "source", "dataset", "uid"))
    if by is SplitBy.TASK:
        return _task_groups(episodes.with_columns(own.alias("own")))
    if by is SplitBy.EPISODE:
        return episodes.select(pl.format("uid:{}", "uid")).to_series()
    if by in (SplitBy.AUTO, SplitBy.SOURCE, SplitBy.COPIES):  # copies: already what they join
        return episodes.select(own).to_series()
    name = pl.col(f"{by.value}_id")
    known = pl.format(f"{{}}/{{}}/{by.value}:{{}}", "source", "dataset", name)
    has_name = name.is_not_null() & (name != "")
    return episodes.select(pl.when(has_name).then(known).otherwise(own)).to_series()


def _task_groups(episodes: pl.DataFrame) -> pl.Series:
    """Connected components of episodes and instructions, each named by its first instruction in the alphabet."""
    stated = (
        episodes.select(pl.int_range(pl.len()).alias("row"), pl.col("texts").alias("task"))
        .explode("task")
        .with_columns(pl.col("task").str.to_lowercase().str.replace_all(r"[\s.!]+", " "))
        .with_columns(pl.col("task").str.strip_chars())
        .filter(pl.col("task").is_not_null() & (pl.col("task") != ""))
    )
    tasks = stated["task"].unique().sort()
    at = stated["task"].replace_strict(tasks, pl.int_range(len(tasks), eager=True)).to_numpy()
    component = components(len(tasks) + len(episodes), stated["row"].to_numpy() + len(tasks), at)
    # The first task of a component is its name: tasks are sorted, so it is where the component is seen first.
    seen, first = np.unique(component[: len(tasks)], return_index=True)
    names = pl.Series("name", tasks.gather(first), dtype=pl.String)
    of_component = pl.DataFrame({"component": seen, "name": "task:" + names})
    own = episodes.select("own", component=pl.Series(component[len(tasks) :]))
    joined = own.join(of_component, on="component", how="left", maintain_order="left")
    return joined.select(pl.coalesce("name", "own")).to_series()
