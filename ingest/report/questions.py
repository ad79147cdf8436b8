"""What the report asks the catalog. Plain SQL over one snapshot; every number of the page is one of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingest.catalog import Catalog
from ingest.report.thresholds import Bad

Row = dict[str, Any]
MAX_SAMPLE = 200_000  # episodes whose measurements are looked at
BINS = 40
GROUPS = {
    "source": "source",
    "embodiment": "embodiment",
    "licence": "licence_class",
    "split": "split",
}

FUNNEL = """SELECT count(*) AS discovered,
    count(*) FILTER (WHERE state = 'committed') AS committed,
    count(*) FILTER (WHERE state = 'filtered') AS filtered,
    count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
    count(*) FILTER (WHERE state = 'failed') AS failed FROM verdicts"""
HOURS = """SELECT coalesce(nullif("{key}", ''), 'unknown') AS name, count(*) AS episodes, sum(hours) AS hours
    FROM episodes GROUP BY 1 ORDER BY hours DESC, name"""
TIERS = """SELECT coalesce(t.tier, 'none') AS name, count(DISTINCT e.uid) AS episodes, count(t.uid) AS segments,
    sum(coalesce((t."end" - t."start") / e.length, 1) * e.hours) AS hours
    FROM episodes e LEFT JOIN tiers t USING (uid) GROUP BY 1"""
REASONS = """SELECT t.tier, t.reasons[1].code AS code, count(*) AS segments,
    sum((t."end" - t."start") / e.length * e.hours) AS hours, any_value(t.reasons[1].text) AS text
    FROM tiers t JOIN episodes e USING (uid) GROUP BY ALL ORDER BY hours DESC, code LIMIT 40"""
ASIDE = """SELECT state, code, source, count(*) AS episodes, min(message) AS example
    FROM verdicts WHERE state <> 'committed' GROUP BY ALL ORDER BY episodes DESC, state, code, source LIMIT 60"""
BARRED = """SELECT why, source, count(*) AS episodes, sum(hours) AS hours
    FROM (SELECT unnest(supervision_limits) AS why, source, hours FROM episodes)
    GROUP BY ALL ORDER BY hours DESC, why, source LIMIT 60"""
CAPTIONS = """SELECT backend, outcome, count(*) AS captions,
    count(*) FILTER (WHERE len(coalesce(checks_failed, [])) > 0) AS complained
    FROM captions GROUP BY ALL ORDER BY captions DESC, backend, outcome LIMIT 40"""
CAPTION_SAMPLE = """SELECT c.caption_id, c.uid, c."start", c."end", c.text, c.source_text, c.backend, c.model,
    c.checks_failed, e.source, e.episode_id, e.dataset_path, e.episode_index, e.length, e.duration_s, e.cameras
    FROM captions c JOIN episodes e USING (uid) WHERE c.outcome = 'ok'
    ORDER BY md5($seed || '|' || c.caption_id), c.caption_id LIMIT $count"""
_SAMPLED = (
    """SELECT uid FROM episodes WHERE ('0x' || substr(md5(uid), 1, 8))::UBIGINT % $every = 0"""
)
# The newest version of a number of a whole episode; a name measured twice at one version counts once.
_VALUES = f"""SELECT name, uid, value, unit FROM measurements
    WHERE "start" IS NULL AND uid IN ({_SAMPLED})
    QUALIFY row_number() OVER (PARTITION BY name, uid ORDER BY version DESC) = 1"""
RANGES = f"""SELECT name, any_value(unit) AS unit, count(*) AS looked_at, count(value) AS measured,
    quantile_cont(value, 0.005) AS low, quantile_cont(value, 0.995) AS high, median(value) AS median
    FROM ({_VALUES}) WHERE value IS NULL OR isfinite(value) GROUP BY name ORDER BY name"""
COUNTED = f"""SELECT v.name, least(greatest(floor((v.value - r.low) / r.width), 0), {BINS - 1})::INTEGER AS bin, count(*) AS episodes
    FROM ({_VALUES}) v JOIN report_ranges r USING (name) WHERE isfinite(v.value) GROUP BY ALL"""
# How near an episode is to the bad end of what the policy compares: the mean of its places among all, 0 best, 1 worst.
_SCORES = f"""SELECT uid, avg(place) AS score FROM (
    SELECT v.uid, percent_rank() OVER (PARTITION BY v.name ORDER BY
        CASE b.bad WHEN 'high' THEN v.value WHEN 'low' THEN -v.value ELSE abs(v.value - b.median) END) AS place
    FROM ({_VALUES}) v JOIN report_bad b USING (name) WHERE isfinite(v.value)) GROUP BY uid"""
_SEGMENTS = """SELECT t.uid, t."start", t."end", t.tier, t.reasons, s.score, e.source, e.episode_id, e.embodiment,
    e.tasks, e.dataset_path, e.episode_index, e.length, e.duration_s, e.cameras
    FROM tiers t JOIN episodes e USING (uid) JOIN scores s USING (uid)"""
WORST = f"""WITH scores AS ({_SCORES}) {_SEGMENTS} WHERE t.tier <> 'high'
    QUALIFY row_number() OVER (PARTITION BY t.tier, t.reasons[1].code ORDER BY s.score DESC, t.uid, t."start") = 1
    ORDER BY s.score DESC, t.uid, t."start" LIMIT $count"""
BEST = f"""WITH scores AS ({_SCORES}) {_SEGMENTS} WHERE t.tier = 'high'
    QUALIFY row_number() OVER (PARTITION BY e.source, e.embodiment ORDER BY s.score, t.uid, t."start") <= $count
    ORDER BY row_number() OVER (PARTITION BY e.source, e.embodiment ORDER BY s.score, t.uid, t."start"),
        s.score, t.uid LIMIT $count"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """`counts` over BINS bins of equal width from `left` to `right`, which is where the inner 99 % of values are (`low` to `high`);
    the rest is in the first and last. Where all are the same they are in the middle.

    `looked_at` episodes have a row, `measured` of them a value.
    """

    name: str
    unit: str
    looked_at: int
    measured: int
    low: float
    high: float
    left: float
    right: float
    counts: tuple[int, ...]


def rows(catalog: Catalog, sql: str, **parameters: Any) -> list[Row]:
    """One answer."""
    return list(catalog.arrow(sql, parameters or ()).to_pylist())


def sampled_every(num_episodes: int) -> int:
    """Every how many-th episode, by the hash of its uid, is looked at."""
    return max(math.ceil(num_episodes / MAX_SAMPLE), 1)


def ranges(catalog: Catalog, every: int) -> list[Row]:
    """Of every measurement of whole episodes that has a value: where its values are."""
    return [row for row in rows(catalog, RANGES, every=every) if row["measured"]]


def histograms(catalog: Catalog, found: list[Row], every: int) -> list[Histogram]:
    """One each, in the order of `found`."""
    spans = [_span(row["low"], row["high"]) for row in found]
    columns = {
        "name": pa.array([row["name"] for row in found], pa.string()),
        "low": pa.array([left for left, _ in spans], pa.float64()),
        "width": pa.array([(right - left) / BINS for left, right in spans], pa.float64()),
    }
    catalog.register("report_ranges", pa.table(columns))
    counts = {row["name"]: [0] * BINS for row in found}
    for row in rows(catalog, COUNTED, every=every) if found else ():
        counts[row["name"]][row["bin"]] = row["episodes"]
    return [
        Histogram(
            name=row["name"],
            unit=row["unit"] or "",
            looked_at=row["looked_at"],
            measured=row["measured"],
            low=row["low"],
            high=row["high"],
            left=left,
            right=right,
            counts=tuple(counts[row["name"]]),
        )
        for row, (left, right) in zip(found, spans, strict=True)
    ]


def _span(low: float, high: float) -> tuple[float, float]:
    """Where the bins are; a span without any width has no bins."""
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    half = max(abs(low), 1.0) / 2
    return low - half, low + half


def extremes(
    catalog: Catalog, found: list[Row], ends: dict[str, Bad], count: int, every: int
) -> tuple[list[Row], list[Row]]:
    """(worst, best) segments. Worst: for each tier below high and reason the one nearest to the bad end; best: of high, by body in turn."""
    medians = {row["name"]: row["median"] for row in found}
    names = [name for name in ends if name in medians]
    columns = {
        "name": pa.array(names, pa.string()),
        "bad": pa.array([ends[name].value for name in names], pa.string()),
        "median": pa.array([medians[name] for name in names], pa.float64()),
    }
    catalog.register("report_bad", pa.table(columns))
    return (
        rows(catalog, WORST, every=every, count=count),
        rows(catalog, BEST, every=every, count=count),
    )
