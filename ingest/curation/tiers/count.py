"""How much of each source is in which tier: what is stored now, and what a policy would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ingest.catalog.catalog import Catalog
from ingest.curation.tiers.policy import Otherwise, Rule
from ingest.curation.tiers.policy_sql import CAP_TEXT, TIERS, required
from ingest.curation.tiers.tier import Judged
from schemas.geometry import Array

Numbers = npt.NDArray[np.int16]

# Counted by episode first: a count of distinct texts takes three times as long.
STORED = """
WITH held AS (SELECT uid, tier, count(*) AS segments, sum("end" - "start") AS steps FROM tiers GROUP BY ALL)
SELECT e.source, coalesce(h.tier, 'none') AS tier, count(*) AS episodes, coalesce(sum(h.segments), 0)::BIGINT AS segments,
       sum(coalesce(h.steps / e.length, 1) * e.hours) AS hours
FROM episodes e LEFT JOIN held h USING (uid) GROUP BY ALL"""


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
    """What one rule decides: it is the first that holds, and its tier stands.

    `lacks`: for `otherwise`, segments by the first measurement that was never taken.
    """

    code: str
    tier: str
    text: str
    segments: int
    hours: float
    lacks: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapCount:
    """Segments whose tier an episode's own facts lower: `tier` is given, `rule` and `rule_tier` are what would have decided."""

    tier: str
    rule: str
    rule_tier: str
    text: str
    segments: int
    hours: float


def rule_counts(judged: Judged) -> list[RuleCount]:
    """The rules in order, `otherwise` last. With `cap_counts` and the reviewed ones every segment counts once."""
    rules = _rules(judged)
    rule, tier, hours = _decided(judged)
    own = np.array([TIERS.index(each.tier) for each in rules])
    stands = (tier == own[rule]) & ~judged.is_reviewed
    segments = np.bincount(rule[stands], minlength=len(rules))
    total = np.bincount(rule[stands], weights=hours[stands], minlength=len(rules))
    return [
        RuleCount(
            code=each.code,
            tier=each.tier.value,
            text=each.text,
            segments=int(segments[i]),
            hours=float(total[i]),
            lacks=_lacks(judged, stands & (rule == i)) if i == len(rules) - 1 else {},
        )
        for i, each in enumerate(rules)
    ]


def cap_counts(judged: Judged) -> list[CapCount]:
    """By the tier that is given and the rule that it overrides, the worst tier first."""
    rules = _rules(judged)
    rule, tier, hours = _decided(judged)
    out = []
    for number, tier_of_rule in reversed(list(enumerate(TIERS))):
        for i, each in enumerate(rules):
            is_capped = (tier == number) & (rule == i) & (each.tier is not tier_of_rule)
            is_capped &= ~judged.is_reviewed
            if is_capped.any():
                out.append(
                    CapCount(
                        tier=tier_of_rule.value,
                        rule=each.code,
                        rule_tier=each.tier.value,
                        text=CAP_TEXT[tier_of_rule],
                        segments=int(is_capped.sum()),
                        hours=float(hours[is_capped].sum()),
                    )
                )
    return out


def _rules(judged: Judged) -> list[Rule | Otherwise]:
    return [*judged.policy.rules, judged.policy.otherwise]


def _decided(judged: Judged) -> tuple[Numbers, Numbers, Array]:
    """[S] number of the rule, number of the tier, hours."""
    rule, tier = judged.decided
    row = judged.segments.row
    return rule, tier, (judged.segments.end - judged.segments.start) / judged.rate_hz[row] / 3600


def _lacks(judged: Judged, where: npt.NDArray[np.bool_]) -> dict[str, int]:
    """Name -> segments for which it is the first that was never taken, the most first."""
    names = required(judged.policy)
    if not names:
        return {}
    first = judged.frame.first_unmeasured[where]
    counts = np.bincount(first, minlength=len(names) + 1)
    order = sorted(range(1, len(names) + 1), key=lambda i: (-counts[i], i))
    return {names[i - 1]: int(counts[i]) for i in order if counts[i]}
