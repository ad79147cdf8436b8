"""What another manifest has that this one has not, and why: each segment that came, went or changed, with a reason that can be checked."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import QueryLimits
from ingest.corpus import snapshot
from ingest.curation.manifests.sql import chosen
from ingest.curation.manifests.tier_rows import TIER_ROWS, tier_rows
from ingest.curation.tiers.policy import policy_from
from ingest.curation.tiers.policy_loader import parse_policy_text
from schemas.errors import ConfigError
from schemas.manifest import Manifest, ManifestFacts, SplitFacts

KEY = ["uid", "start", "end"]
_SHOWN = ["tier", "split", "weight", "text", "caption_id", "tasks", "latents"]
WEIGHT_TOLERANCE = 1e-9  # relative
SERVES_NOTHING = "it is usable for no task"
HOURS_CHANGED = "the hours in its group changed"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManifestDiff:
    """`rows`: uid, start, end, change (added | removed | tier | split | weight | text | tasks | latents), why, before, after."""

    rows: pl.DataFrame
    same: int
    facts: dict[str, tuple[str, str]]  # what the two were built from, where that differs

    def summary(self) -> pl.DataFrame:
        """change, why, segments, timesteps."""
        grouped = self.rows.group_by("change", "why").agg(
            segments=pl.len(), timesteps=(pl.col("end") - pl.col("start")).sum()
        )
        return grouped.sort("change", "segments", "why", descending=[False, True, False])


def compare(a: Manifest, b: Manifest, *, limits: QueryLimits | None = None) -> ManifestDiff:
    """From `a` to `b`, two manifests of one corpus."""
    before, after = _frame(a), _frame(b)
    added = after.join(before, on=KEY, how="anti")
    removed = before.join(after, on=KEY, how="anti")
    both = before.join(after, on=KEY, suffix="_after")
    parts = [
        _added_or_removed("added", added, before, a, limits),
        _added_or_removed("removed", removed, after, b, limits),
        *(_changed(name, both, a.facts, b.facts) for name in _SHOWN if name != "caption_id"),
    ]
    rows = pl.concat([p for p in parts if len(p)] or [_NOTHING])
    changed = rows.filter(~pl.col("change").is_in(["added", "removed"])).unique(KEY)
    return ManifestDiff(
        rows=rows.sort(*KEY, "change"), same=len(both) - len(changed), facts=_facts(a, b)
    )


_NOTHING = pl.DataFrame(
    schema={
        "uid": pl.String,
        "start": pl.Int64,
        "end": pl.Int64,
        "change": pl.String,
        "why": pl.String,
        "before": pl.String,
        "after": pl.String,
    }
)


def _frame(manifest: Manifest) -> pl.DataFrame:
    return pl.DataFrame(manifest.rows.select([*KEY, *_SHOWN, "reasons"]))


def _facts(a: Manifest, b: Manifest) -> dict[str, tuple[str, str]]:
    def as_text(facts: ManifestFacts) -> dict[str, str]:
        split = facts.split
        return {
            "corpus": facts.corpus_uid,
            "snapshot": str(facts.snapshot),
            "where": facts.where,
            "policy": f"{facts.policy.name} {facts.policy.digest}",
            "mixture": facts.mixture.digest,
            "split": f"{split.by}, val {split.val:g}, test {split.test:g}{_sources(split)}",
            "text": facts.text_policy,
        }

    one, other = as_text(a.facts), as_text(b.facts)
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


def _sources(split: SplitFacts) -> str:
    return "" if split.keeps_source_splits else ", source splits ignored"


# --- what changed -----------------------------------------------------------------------------------------------------------


def _changed(
    name: str, both: pl.DataFrame, before: ManifestFacts, after: ManifestFacts
) -> pl.DataFrame:
    old, new = pl.col(name), pl.col(f"{name}_after")
    is_other = old.ne_missing(new)
    if name == "weight":
        is_other = (old - new).abs() > WEIGHT_TOLERANCE * pl.max_horizontal(old, new)
    rows = both.filter(is_other)
    if not len(rows):
        return _NOTHING
    return rows.select(
        *KEY,
        change=pl.lit(name),
        why=_why_changed(name, before, after),
        before=_as_text(rows, name),
        after=_as_text(rows, f"{name}_after"),
    )


def _as_text(rows: pl.DataFrame, name: str) -> pl.Series:
    column = rows[name]
    if column.dtype == pl.List(pl.String):
        return column.list.join(", ")
    if name.startswith("latents"):
        encoders = column.list.eval(pl.element().struct.field("encoder_id")).list.unique()
        return encoders.list.sort().list.join(", ")
    return column.cast(pl.String)


def _why_changed(name: str, before: ManifestFacts, after: ManifestFacts) -> pl.Expr:
    """A tier by the rules that decided; the rest by what the two manifests were built from."""
    if name in ("tier", "tasks"):
        rules = [
            pl.col(c).list.unique(maintain_order=True).list.join("+")
            for c in ("reasons", "reasons_after")
        ]
        return pl.format("{} → {}", *rules)
    has_other_split = before.split != after.split
    why = {
        "split": "different split options" if has_other_split else "its group changed",
        "text": "different text policy"
        if before.text_policy != after.text_policy
        else "captions or source text changed",
        "latents": "latents were added or encoded again",
        "weight": _why_weight(before, after),
    }
    return pl.lit(why[name])


def _why_weight(before: ManifestFacts, after: ManifestFacts) -> str:
    """The options that differ and move hours between the groups that a weight is a part of; without any, the hours themselves."""
    old, new = before.split, after.split
    changed = [
        ("other mixture", before.mixture.digest != after.mixture.digest),
        (f"different split: by {old.by} → {new.by}", old.by != new.by),
        (f"different split: val {old.val:g} → {new.val:g}", old.val != new.val),
        (f"different split: test {old.test:g} → {new.test:g}", old.test != new.test),
        ("different split: source splits", old.keeps_source_splits != new.keeps_source_splits),
    ]
    # Groups may be named by the text.
    is_by_text = "text" in before.mixture.by or "text" in after.mixture.by
    changed += [("different text policy", is_by_text and before.text_policy != after.text_policy)]
    return ", ".join(name for name, is_other in changed if is_other) or HOURS_CHANGED


# --- what came and went -----------------------------------------------------------------------------------------------------


def _added_or_removed(
    change: str,
    rows: pl.DataFrame,
    other: pl.DataFrame,
    absent_from: Manifest,
    limits: QueryLimits | None,
) -> pl.DataFrame:
    """Why `absent_from` has not these rows; `other` are those it has."""
    if not len(rows):
        return _NOTHING
    why = _why_absent(rows, other, absent_from, limits)
    shown = pl.col("tier") + " " + pl.col("split")
    none = pl.lit(None, dtype=pl.String)
    return rows.with_columns(why).select(
        *KEY,
        change=pl.lit(change),
        why="why",
        before=none if change == "added" else shown,
        after=shown if change == "added" else none,
    )


def _why_absent(
    rows: pl.DataFrame, other: pl.DataFrame, absent_from: Manifest, limits: QueryLimits | None
) -> pl.Series:
    """In this order: the snapshot has no such episode, its policy cuts it elsewhere or excludes it or lets it serve nothing, its WHERE leaves it out."""
    number = absent_from.facts.snapshot
    try:
        known = _known(absent_from, limits)
    except ConfigError as error:
        return pl.repeat(f"unknown: {error}", len(rows), eager=True).alias("why")
    uids, tiers, fitting = known
    is_present = pl.col("uid").is_in(uids.implode())
    excluded = tiers.filter(pl.col("tier") == "excluded").select(
        *KEY, codes=pl.col("reasons").list.unique(maintain_order=True).list.join("+")
    )
    marked = (
        rows.select(KEY)
        .join(excluded, on=KEY, how="left", maintain_order="left")
        .join(
            tiers.select(*KEY, is_cut=True, num_tasks=pl.col("tasks").list.len()),
            on=KEY,
            how="left",
            maintain_order="left",
        )
        .join(fitting.select(*KEY, fits=True), on=KEY, how="left", maintain_order="left")
    )
    return marked.select(
        pl.when(~is_present)
        .then(pl.lit(f"not in snapshot {number}"))
        .when(pl.col("is_cut").is_null())
        .then(pl.lit("the policy splits the episode differently"))
        .when(pl.col("codes").is_not_null())
        .then(pl.format("excluded by the policy: {}", "codes"))
        .when(pl.col("num_tasks") == 0)
        .then(pl.lit(SERVES_NOTHING))
        .when(pl.col("fits").is_null())
        .then(pl.lit("excluded by --where"))
        .otherwise(pl.lit("erased, or selected by an eicorpus version with other rules"))
        .alias("why")
    ).to_series()


def _known(
    manifest: Manifest, limits: QueryLimits | None
) -> tuple[pl.Series, pl.DataFrame, pl.DataFrame]:
    """Of its snapshot: the uids, every segment of its policy, and those that its WHERE chooses."""
    facts = manifest.facts
    snapshot.load(manifest.corpus, facts.snapshot)
    policy = policy_from(parse_policy_text(facts.policy.text, facts.policy.name))
    with Catalog.open(manifest.corpus, snapshot=facts.snapshot, limits=limits) as catalog:
        judged = tier_rows(catalog, (policy, facts.policy.text), with_excluded=True).rows
        uids = catalog.episodes(["uid"])["uid"]
        fitting = pl.DataFrame(chosen(catalog, judged, facts.where).rows.select(KEY))
    return uids, pl.DataFrame(judged.select(TIER_ROWS.names)), fitting
