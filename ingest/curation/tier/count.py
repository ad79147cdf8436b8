"""How much of each source is in which tier: what is stored now, and what a policy would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ingest.catalog import Catalog
from ingest.curation.policy.policy import Otherwise, Rule
from ingest.curation.policy.sql import TIERS
from ingest.curation.tier.tier import Judged

STORED = """
SELECT e.source, coalesce(t.tier, 'none') AS tier, count(DISTINCT e.uid) AS episodes, count(t.uid) AS segments,
       sum(coalesce((t."end" - t."start") / e.length, 1) * e.hours) AS hours
FROM episodes e LEFT JOIN tiers t USING (uid) GROUP BY ALL"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    episodes: int = 0  # that have a segment of the tier: one episode may count in several
    segments: int = 0
    hours: float = 0.0


Counts = Mapping[
    tuple[str, str], Count
]  # (source, tier) -> count; tier "none" before any policy ran


def stored_counts(catalog: Catalog) -> Counts:
    """By source and tier, of the latest policy run."""
    rows = catalog.arrow(STORED).to_pylist()
    return {
        (row["source"], row["tier"]): Count(
            episodes=row["episodes"], segments=row["segments"], hours=float(row["hours"])
        )
        for row in rows
    }


def judged_counts(judged: Judged) -> Counts:
    """By source and tier, of what the policy gives."""
    named = judged.episodes["source"]
    sources = named.unique().sort().to_list()
    source = named.cast(pl.Enum(sources)).to_physical().to_numpy().astype(np.int64)
    _, tier = judged.decided
    row, width = judged.segments.row, len(TIERS)
    cell = source[row] * width + tier
    step_h = 1 / judged.rate_hz / 3600
    hours = (judged.segments.end - judged.segments.start) * step_h[row]
    size = len(sources) * width
    total_hours = np.bincount(cell, weights=hours, minlength=size)
    segments = np.bincount(cell, minlength=size)
    episodes = np.zeros(size, dtype=np.int64)
    for t in range(width):
        has = np.zeros(len(source), dtype=bool)  # an episode counts once in a tier
        has[row[tier == t]] = True
        episodes[t::width] = np.bincount(source[has], minlength=len(sources))
    return {
        (name, TIERS[t].value): Count(
            episodes=int(episodes[s * width + t]),
            segments=int(segments[s * width + t]),
            hours=float(total_hours[s * width + t]),
        )
        for s, name in enumerate(sources)
        for t in range(width)
        if segments[s * width + t]
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCount:
    """What one rule decides: it was the first that held."""

    code: str
    tier: str  # of the rule; an episode's own facts may allow less
    text: str
    segments: int
    hours: float


def rule_counts(judged: Judged) -> list[RuleCount]:
    """The rules in order, `otherwise` last."""
    rule, _ = judged.decided
    rules: list[Rule | Otherwise] = [*judged.policy.rules, judged.policy.otherwise]
    row = judged.segments.row
    hours = (judged.segments.end - judged.segments.start) / judged.rate_hz[row] / 3600
    segments = np.bincount(rule, minlength=len(rules))
    total = np.bincount(rule, weights=hours, minlength=len(rules))
    return [
        RuleCount(
            code=each.code,
            tier=each.tier.value,
            text=each.text,
            segments=int(segments[i]),
            hours=float(total[i]),
        )
        for i, each in enumerate(rules)
    ]
