"""Builds a manifest: tiers and a WHERE choose segments, groups deal splits, a mixture gives weights. Tables only, no row loops.

The same snapshot, policy, WHERE, split and mixture give the same rows on every machine: hours are integer nanoseconds, shares are
correctly rounded (ingest/curation/manifests/mixture.py), and rows are sorted before anything depends on their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.column_checks import DamagedCatalog
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import in_force, published, reviews_sha256
from ingest.curation.captions.select import TextPolicy
from ingest.curation.duplicates.leakage import held_out_together, merge_split_groups
from ingest.curation.manifests.mixture import HOUR_NS, GroupShare, allocate, draw_hours
from ingest.curation.manifests.mixture_text import MixtureText
from ingest.curation.manifests.split_by import SplitBy
from ingest.curation.manifests.splits import assign_splits, split_groups, whole_tasks
from ingest.curation.manifests.sql import Chosen, chosen, latent_files, latents_of, taken, texts_of
from ingest.curation.manifests.tier_rows import tier_rows
from ingest.curation.tiers.policy import QualityPolicy
from schemas.catalog_rows import table_of
from schemas.errors import ConfigError
from schemas.manifest import (
    ROW_SCHEMA,
    ManifestFacts,
    MixtureFacts,
    MixtureGroup,
    PolicyFacts,
    SourceSplitCount,
    SplitFacts,
    rows_sha256,
    version_for,
)
from schemas.review import Review, ReviewKind
from schemas.split import DEFAULT_SHARES, SPLITS, Shares

_OF_SPLITS = (
    *("uid", "source", "dataset", "split_group", "split", "source_split"),
    *("subject_id", "scene_id", "tasks"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRequest:
    """What a manifest is to hold. `policy` None: the one that `eicorpus tier` applied last."""

    name: str
    where: str = ""
    policy: tuple[QualityPolicy, str] | None = None
    mixture: MixtureText = field(default_factory=MixtureText)
    split_by: SplitBy = SplitBy.AUTO
    shares: Shares = DEFAULT_SHARES
    keeps_source_splits: bool = True  # a source's own val and test stay what they are
    text_policy: TextPolicy = TextPolicy.BEST


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """Rows in ROW_SCHEMA, sorted, and what there is to say about them; not yet written, without statistics."""

    rows: pa.Table
    facts: ManifestFacts


def build(catalog: Catalog, request: ManifestRequest, corpus_uid: str) -> Built:
    """Choose, deal and weigh. Reads the catalog only.

    Raises:
        ConfigError: the WHERE is no expression, nothing is left, or no mixture can do what the rules ask.
    """
    current = snapshot.load(catalog.corpus, catalog.snapshot or None)
    reviews = in_force(published(CorpusLayout(catalog.corpus), current))
    policy, choice = _chosen_segments(catalog, request)
    selected, lists = choice.rows, choice.lists
    order = pl.DataFrame(selected.select(["uid", "start"])).select(pl.arg_sort_by("uid", "start"))
    selected = taken(selected, order.to_series().to_arrow())
    files = latent_files(catalog, selected)
    with ThreadPoolExecutor(1) as pool:  # latents take longest, and DuckDB is not asked for them
        waiting = pool.submit(latents_of, selected, files)
        text, caption_id = texts_of(catalog, selected, request.text_policy, _fixes(reviews))
        latents = waiting.result()
    del files, waiting  # 150 MB for a million segments, before the next step makes more
    narrow = _narrow(catalog, request, selected, text)
    weight, dealt_groups = _weighed(request.mixture, narrow)
    columns = {
        **{name: lists[name].take(selected[name].combine_chunks()) for name in lists},
        "split": narrow["split"].to_arrow(),
        "weight": weight.to_arrow(),
        "text": text,
        "caption_id": caption_id,
        "latents": latents,
        "licence_class": narrow["licence_class"].to_arrow(),
    }
    arrays = [columns.get(name) for name in ROW_SCHEMA.names]
    arrays = [
        selected[name] if array is None else array
        for name, array in zip(ROW_SCHEMA.names, arrays, strict=True)
    ]
    rows = pa.table(arrays, names=ROW_SCHEMA.names).cast(ROW_SCHEMA)
    facts = ManifestFacts(
        manifest_version=version_for(rows),
        name=request.name,
        corpus_uid=corpus_uid,
        snapshot=catalog.snapshot,
        where=request.where.strip(),
        text_policy=request.text_policy.value,
        policy=policy,
        split=SplitFacts(
            by=request.split_by.value,
            val=request.shares.val,
            test=request.shares.test,
            keeps_source_splits=request.keeps_source_splits,
        ),
        source_splits=_source_splits(narrow),
        mixture=_mixture_facts(request.mixture, narrow, dealt_groups),
        num_rows=len(rows),
        num_episodes=narrow["uid"].n_unique(),
        num_serving_nothing=choice.num_serving_nothing,
        hours=_hours(narrow, lists["tasks"]),
        reviews_sha256=reviews_sha256(reviews),
        rows_sha256=rows_sha256(rows),
        statistics=None,
    )
    return Built(rows=rows, facts=facts)


def _fixes(reviews: Sequence[Review]) -> pa.Table:
    return table_of(Review, [each for each in reviews if each.kind == ReviewKind.CAPTION_FIX])


def _chosen_segments(catalog: Catalog, request: ManifestRequest) -> tuple[PolicyFacts, Chosen]:
    """The policy, and the rows that it and the WHERE leave."""
    tiered = tier_rows(catalog, request.policy)
    selected = chosen(catalog, tiered.rows, request.where)
    if not len(selected.rows):
        problem = f"{len(tiered.rows)} segments have a tier of policy {tiered.policy.name}"
        idle, shown = selected.num_serving_nothing, request.where[:500]
        why = f"{idle} match --where {shown!r}, but are usable for no task"
        why = why if idle else f"none matches --where {shown!r}"
        raise ConfigError(
            f"no segments to build from: {problem}, and {why}",
            remedy="change --where or the quality policy; `eicorpus explain` shows why a segment has its tier",
        )
    return tiered.policy, selected


def _narrow(
    catalog: Catalog, request: ManifestRequest, rows: pa.Table, text: pa.Array
) -> pl.DataFrame:
    """What the arithmetic needs of each row, in their order: `ns`, how long it lasts, and what groups are made of.

    Raises:
        DamagedCatalog: a segment takes no time, so that nothing can be shared out by it.
    """
    names = ["uid", "source", "dataset", "embodiment", "tier", "tasks", "licence_class", "split"]
    names += ["source_split"]
    sizes = ["start", "end", "length", "duration_s"]
    frame = pl.DataFrame(rows.select([*names, *sizes])).with_columns(
        pl.Series("text", text),
        pl.col("licence_class").fill_null("unknown"),
        ns=_part(
            (pl.col("duration_s") * 1e9).round().cast(pl.Int64),
            pl.col("end") - pl.col("start"),
            pl.col("length"),
        ),
    )
    if len(odd := frame.filter((pl.col("ns") > 0).not_())):
        rows = f"a segment of episode {odd['uid'][0]!r} has no duration"
        raise DamagedCatalog(rows, remedy="run `eicorpus verify`", where="table episodes")
    return frame.with_columns(_splits(catalog, request, frame)).drop(sizes)


def _part(duration_ns: pl.Expr, steps: pl.Expr, length: pl.Expr) -> pl.Expr:
    """floor(duration * steps / length) without the product, which leaves 64 bits after eight hours at 10 Hz."""
    return steps * (duration_ns // length) + steps * (duration_ns % length) // length


def _splits(catalog: Catalog, request: ManifestRequest, frame: pl.DataFrame) -> pl.Series:
    """The split of each row. Other groups than ingestion's are made over the whole snapshot, so that no WHERE moves anyone."""
    is_stored = request.split_by is SplitBy.AUTO and request.shares == DEFAULT_SHARES
    if is_stored and request.keeps_source_splits and frame["split"].null_count() == 0:
        return frame["split"]
    episodes = catalog.episodes(_OF_SPLITS).rename({"tasks": "texts"})
    if request.split_by is SplitBy.TASK:
        episodes = episodes.with_columns(whole_tasks(catalog, episodes))
    if request.split_by is SplitBy.COPIES:
        own = episodes.select("uid", group=split_groups(episodes, SplitBy.AUTO))
        held = held_out_together(catalog, episodes)
        episodes = episodes.with_columns(
            split_group=merge_split_groups(catalog, own), source_split=held
        )
    keeps = request.keeps_source_splits
    now = assign_splits(episodes, request.split_by, request.shares, keeps_source=keeps)
    split = episodes.select("uid", now.alias("split"))
    return frame.drop("split").join(split, on="uid", how="left", maintain_order="left")["split"]


def _weighed(mixture: MixtureText, frame: pl.DataFrame) -> tuple[pl.Series, tuple[GroupShare, ...]]:
    """Each row's weight: in train its group's share by its part of the group's hours, elsewhere its part of the split's hours."""
    by = list(mixture.mixture.by)
    of_split = frame.group_by("split").agg(total=pl.col("ns").sum())
    rows = frame.select("split", "ns", *by).join(of_split, on="split", maintain_order="left")
    natural = pl.col("ns") / pl.col("total")
    groups = allocate(mixture.mixture, _hours_ns(mixture, frame))
    if not groups:
        return rows.select(natural).to_series(), groups
    shares = pl.DataFrame(
        {
            **{name: [g.group[i] for g in groups] for i, name in enumerate(by)},
            "share": [g.share for g in groups],
            "group_ns": [g.num_ns for g in groups],
        },
        schema_overrides={"share": pl.Float64, "group_ns": pl.Int64},
    )
    joined = (
        rows.join(shares, on=by, how="left", maintain_order="left")
        if by
        else rows.with_columns(share=pl.lit(groups[0].share), group_ns=pl.lit(groups[0].num_ns))
    )
    weight = (
        pl.when(pl.col("split") == "train")
        .then(pl.col("share") * (pl.col("ns") / pl.col("group_ns")))
        .otherwise(natural)
    )
    return joined.select(weight).to_series(), groups


def _hours_ns(mixture: MixtureText, frame: pl.DataFrame) -> dict[tuple[str, ...], int]:
    """Nanoseconds of train segments by group of the mixture."""
    by = list(mixture.mixture.by)
    train = frame.filter(pl.col("split") == "train")
    if not len(train):
        return {}
    if not by:
        return {(): int(train["ns"].sum())}
    sums = train.group_by(by).agg(pl.col("ns").sum())
    return {tuple(row[:-1]): row[-1] for row in sums.select(*by, "ns").iter_rows()}


def _mixture_facts(
    mixture: MixtureText, frame: pl.DataFrame, groups: tuple[GroupShare, ...]
) -> MixtureFacts:
    by = mixture.mixture.by
    return MixtureFacts(
        text=mixture.text,
        digest=mixture.digest,
        by=by,
        draw_hours=draw_hours(mixture.mixture, _hours_ns(mixture, frame)),
        groups=tuple(
            MixtureGroup(
                group=dict(zip(by, g.group, strict=True)),
                hours=g.hours,
                share=g.share,
                epochs=g.epochs,
                rule=g.rule,
            )
            for g in groups
        ),
    )


def _source_splits(frame: pl.DataFrame) -> tuple[SourceSplitCount, ...]:
    """Where the episodes of each split that a source publishes went; nothing where no source publishes any.

    Raises:
        DamagedCatalog: a split has a name that none has.
    """
    if not (frame["source_split"] != "").any():
        return ()
    counts = frame.group_by("source_split", "split").agg(
        episodes=pl.col("uid").n_unique(), segments=pl.len(), ns=pl.col("ns").sum()
    )
    order: dict[str, Any] = {name: place for place, name in enumerate(("", *SPLITS))}
    for name in ("source_split", "split"):
        if odd := sorted(set(counts[name]) - order.keys()):
            problem = f"column {name} contains {odd[0][:80]!r}, which is not a split"
            raise DamagedCatalog(problem, remedy="run `eicorpus verify`", where="table episodes")
    rows = sorted(
        counts.iter_rows(named=True), key=lambda r: (order[r["source_split"]], order[r["split"]])
    )
    return tuple(
        SourceSplitCount(
            source_split=row["source_split"],
            split=row["split"],
            episodes=row["episodes"],
            segments=row["segments"],
            hours=row["ns"] / HOUR_NS,
        )
        for row in rows
    )


def _hours(frame: pl.DataFrame, tasks: pa.Array) -> dict[str, dict[str, float]]:
    """Hours by each thing one asks about; a segment counts for every task that it may supervise."""
    out = {"all": {"all": int(frame["ns"].sum()) / HOUR_NS}}
    for name in ("source", "embodiment", "tier", "split", "licence_class"):
        out[name] = _hours_by(frame, name)
    of_list = frame.group_by("tasks").agg(pl.col("ns").sum()).sort("tasks")
    lists = pl.Series("task", tasks).gather(of_list["tasks"])
    out["task"] = _hours_by(of_list.select("ns").with_columns(lists).explode("task"), "task")
    order: dict[str, Any] = {name: place for place, name in enumerate(SPLITS)}
    out["split"] = dict(sorted(out["split"].items(), key=lambda item: order.get(item[0], 9)))
    return out


def _hours_by(frame: pl.DataFrame, name: str) -> dict[str, float]:
    sums = frame.group_by(name).agg(pl.col("ns").sum()).drop_nulls().sort(name)
    return {key: ns / HOUR_NS for key, ns in sums.iter_rows()}
