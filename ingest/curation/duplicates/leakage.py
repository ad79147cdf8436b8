"""Whether training and evaluation of a manifest share a recording, by what the latest `eicorpus dedup` found; and groups that do not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.catalog.next_command import next_command
from ingest.curation.measurements.components import components

# What a source holds out decides first, or a copy of a benchmark's own test would train.
_STRICTEST = {"": 0, "train": 1, "val": 2, "test": 3}
REMEDIES = """leave the copies out:  --where "uid NOT IN (SELECT uid FROM redundant)"
or keep them in one split:  --split-by copies"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakageReport:
    """`episodes` of train share a recording with `evaluated` of val or test. `has_run`: dedup ever did; `unseen`: episodes of the
    snapshot that it could not compare, as many as there are more (or fewer) now than it compared."""

    episodes: int
    evaluated: int
    has_run: bool
    unseen: int

    @property
    def is_clean(self) -> bool:
        """Every episode was compared and none is on both sides."""
        return self.has_run and not self.episodes and not self.unseen

    def as_object(self) -> dict[str, bool | int]:
        return asdict(self)

    def note(self, corpus: Path) -> str:
        """What to tell, with the commands that help."""
        measure, dedup = (next_command(name, corpus) for name in ("measure", "dedup"))
        if not self.has_run:
            return f"not checked whether train and val or test share recordings; run {measure}, then {dedup}"
        if self.is_clean:
            return "train shares no recording with val or test, according to `eicorpus dedup`"
        lines = []
        if self.episodes:
            lines += [
                f"{self.episodes} train episodes are duplicates of {self.evaluated} in val or test",
                REMEDIES,
            ]
        if self.unseen:
            lines += [
                f"{self.unseen} episodes were added after the last `eicorpus dedup` and are not compared; run {measure}, then {dedup}"
            ]
        return "\n".join(lines)


def leakage_report(catalog: Catalog, rows: pa.Table) -> LeakageReport:
    """Of the rows of a manifest (`uid`, `split`), which were built from this snapshot. A chain of copies counts as one recording."""
    last = catalog.arrow("SELECT measured FROM dedups ORDER BY snapshot DESC LIMIT 1").to_pylist()
    episodes = catalog.arrow("SELECT count(*) AS n FROM episodes").to_pylist()[0]["n"]
    joined = (
        pl.DataFrame(rows.select(["uid", "split"]))
        .unique()
        .join(_clusters(catalog), on="uid")
        .with_columns(is_train=pl.col("split") == "train")
    )
    both = joined.filter(pl.col("is_train").n_unique().over("cluster") == 2)
    return LeakageReport(
        episodes=both.filter("is_train")["uid"].n_unique(),
        evaluated=both.filter(~pl.col("is_train"))["uid"].n_unique(),
        has_run=bool(last),
        unseen=abs(episodes - last[0]["measured"]) if last else episodes,
    )


def _clusters(catalog: Catalog) -> pl.DataFrame:
    return pl.DataFrame(catalog.arrow('SELECT uid, "cluster" FROM duplicates'))


def held_out_together(catalog: Catalog, episodes: pl.DataFrame) -> pl.Series:
    """[N] `source_split` of each episode, where what a source holds out holds for all copies of it: test, then val.

    Args:
        episodes: `uid` and `source_split` (NULL or "" for none); one row each.
    """
    named = episodes.join(_clusters(catalog), on="uid", how="left", maintain_order="left")
    rank = pl.col("source_split").fill_null("").replace_strict(_STRICTEST, default=0)
    worst = pl.when(pl.col("cluster").is_null()).then(rank).otherwise(rank.max().over("cluster"))
    is_held = worst >= _STRICTEST["val"]
    names = pl.Series(list(_STRICTEST), dtype=pl.String)
    held = worst.replace_strict(list(_STRICTEST.values()), names, return_dtype=pl.String)
    return named.select(pl.when(is_held).then(held).otherwise("source_split")).to_series()


def merge_split_groups(catalog: Catalog, episodes: pl.DataFrame) -> pl.Series:
    """[N] the group of each episode where groups that share a recording are one, named by the first of them in the alphabet.

    Who has no copy in another group keeps the group it has, so that copies move only those they concern.

    Args:
        episodes: `uid`, and `group` that no split may cut through; one row each.
    """
    named = episodes.join(_clusters(catalog), on="uid", how="left", maintain_order="left")
    groups = named["group"].unique().sort()
    at = named["group"].replace_strict(groups, pl.int_range(len(groups), eager=True))
    links = named.select("cluster", at=at).drop_nulls().unique()
    links = links.with_columns(first=pl.col("at").min().over("cluster"))
    component = components(len(groups), links["first"].to_numpy(), links["at"].to_numpy())
    # Groups are sorted, so the first that is seen of a component names it.
    _, first = np.unique(component, return_index=True)
    return groups.gather(first[component[at.to_numpy()]])
