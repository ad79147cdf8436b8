"""What the report asks the catalog. Plain SQL over one snapshot; every number of the page is one of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.report.thresholds import Bad, Threshold

Row = dict[str, Any]
MAX_SAMPLE = 200_000  # episodes whose measurements are looked at
BINS = 40
GROUPS = {
    "source": "source",
    "embodiment": "embodiment",
    "licence": "licence_class",
    "split": "split",
    "source split": "source_split",
}

FUNNEL = """SELECT count(*) AS discovered,
    count(*) FILTER (WHERE state = 'committed') AS committed,
    count(*) FILTER (WHERE state = 'filtered') AS filtered,
    count(*) FILTER (WHERE state = 'quarantined') AS quarantined,
    count(*) FILTER (WHERE state = 'failed') AS failed,
    (SELECT count(*) FROM episodes) AS episodes FROM verdicts"""
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
COPIES = """SELECT d.kind, d.evidence, list_sort(list(DISTINCT e.source)) AS sources, count(*) AS episodes, sum(e.hours) AS hours
    FROM duplicates d JOIN episodes e USING (uid) GROUP BY d.kind, d.evidence ORDER BY episodes DESC, d.kind, d.evidence LIMIT 40"""
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
# Numbers instead of texts, once: what follows asks of millions of values several times.
PLACES = """SELECT uid, (row_number() OVER (ORDER BY uid))::INTEGER AS place FROM episodes
    WHERE ('0x' || substr(md5(uid), 1, 8))::UBIGINT % $every = 0"""
NAMES = """SELECT name, unit, (row_number() OVER (ORDER BY name))::INTEGER AS code FROM
    (SELECT name, any_value(unit) AS unit FROM measurements WHERE "start" IS NULL GROUP BY name)"""
# The newest version of a number of a whole episode; a name measured twice at one version counts once.
VALUES = """SELECT code, place, arg_max_null(value, version) AS value
    FROM measurements JOIN report_places USING (uid) JOIN report_names USING (name)
    WHERE "start" IS NULL GROUP BY code, place"""
RANGES = """SELECT name, unit, looked_at, measured, q[1] AS low, q[2] AS median, q[3] AS high FROM report_names JOIN
    (SELECT code, count(*) AS looked_at, count(value) AS measured, quantile_cont(value, [0.005, 0.5, 0.995]) AS q
    FROM report_values WHERE value IS NULL OR isfinite(value) GROUP BY code) USING (code) ORDER BY name"""
COUNTED = f"""SELECT name, least(greatest(floor((v.value - r.low) / r.width), 0), {BINS - 1})::INTEGER AS bin, count(*) AS episodes
    FROM report_values v JOIN report_names n USING (code) JOIN report_ranges r USING (name) WHERE isfinite(v.value) GROUP BY ALL"""
# How near an episode is to the bad end of what the policy compares: the mean of its places among all, 0 best, 1 worst.
SCORES = """SELECT uid, avg(rank) AS score FROM report_places JOIN (
    SELECT v.place, percent_rank() OVER (PARTITION BY v.code ORDER BY
        CASE b.bad WHEN 'high' THEN v.value WHEN 'low' THEN -v.value ELSE abs(v.value - b.median) END) AS rank
    FROM report_values v JOIN report_names n USING (code) JOIN report_bad b USING (name) WHERE isfinite(v.value)
    ) USING (place) GROUP BY uid"""
_SEGMENTS = """SELECT t.uid, t."start", t."end", t.tier, t.reasons, s.score, e.source, e.episode_id, e.embodiment,
    e.tasks, e.dataset_path, e.episode_index, e.length, e.duration_s, e.cameras
    FROM tiers t JOIN episodes e USING (uid) JOIN report_scores s USING (uid)"""
WORST = f"""{_SEGMENTS} WHERE t.tier <> 'high'
    QUALIFY row_number() OVER (PARTITION BY t.tier, t.reasons[1].code ORDER BY s.score DESC, t.uid, t."start") = 1
    ORDER BY s.score DESC, t.uid, t."start" LIMIT $count"""
BEST = f"""{_SEGMENTS} WHERE t.tier = 'high'
    QUALIFY row_number() OVER (PARTITION BY e.source, e.embodiment ORDER BY s.score, t.uid, t."start") <= $count
    ORDER BY row_number() OVER (PARTITION BY e.source, e.embodiment ORDER BY s.score, t.uid, t."start"),
        s.score, t.uid LIMIT $count"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """`counts` over BINS bins of equal width from `left` to `right`, which is where the inner 99 % of values are (`low` to `high`)
    and thresholds near them; values outside are in the first and last.

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

    @property
    def is_constant(self) -> bool:
        """All values are the same, so there is no axis to draw."""
        return self.high - self.low <= 1e-9 * max(abs(self.low), abs(self.high))


def rows(catalog: Catalog, sql: str, **parameters: Any) -> list[Row]:
    """One answer."""
    return list(catalog.arrow(sql, parameters or ()).to_pylist())


def sampled_every(num_episodes: int) -> int:
    """Every how many-th episode, by the hash of its uid, is looked at."""
    return max(math.ceil(num_episodes / MAX_SAMPLE), 1)


def ranges(catalog: Catalog, every: int) -> list[Row]:
    """Of every measurement of whole episodes that has a value: where its values are. What is asked next builds on it."""
    catalog.register("report_places", catalog.arrow(PLACES, {"every": every}))
    catalog.register("report_names", catalog.arrow(NAMES))
    catalog.register("report_values", catalog.arrow(VALUES))
    return [row for row in rows(catalog, RANGES) if row["measured"]]


def histograms(
    catalog: Catalog, measured: list[Row], lines: Sequence[Threshold] = ()
) -> list[Histogram]:
    """One each, in the order of `measured`; a threshold that is near widens the span, so that it is drawn at its place."""
    near: dict[str, list[float]] = {}
    for line in lines:
        near.setdefault(line.measurement, []).append(line.value)
    spans = [_span(row["low"], row["high"], near.get(row["name"], ())) for row in measured]
    columns = {
        "name": pa.array([row["name"] for row in measured], pa.string()),
        "low": pa.array([left for left, _ in spans], pa.float64()),
        "width": pa.array([(right - left) / BINS for left, right in spans], pa.float64()),
    }
    catalog.register("report_ranges", pa.table(columns))
    counts = {row["name"]: [0] * BINS for row in measured}
    for row in rows(catalog, COUNTED) if measured else ():
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
        for row, (left, right) in zip(measured, spans, strict=True)
    ]


def _span(low: float, high: float, near: Iterable[float]) -> tuple[float, float]:
    """Where the bins are; a span without any width has no bins. `near`: what shall be in it, if values still fill a third."""
    is_wide = high - low > 1e-9 * max(abs(low), abs(high))
    room = high - low if is_wide else max(abs(low), 1.0)
    inside = [at for at in near if low - room <= at <= high + room]
    left, right = min([low, *inside]), max([high, *inside])
    if right - left > 1e-9 * max(abs(left), abs(right)):
        return left, right
    return left - room / 2, right + room / 2


def extremes(
    catalog: Catalog, measured: list[Row], ends: dict[str, Bad], count: int
) -> tuple[list[Row], list[Row]]:
    """(worst, best) segments. Worst: for each tier below high and reason the one nearest to the bad end; best: of high, by body in turn."""
    medians = {row["name"]: row["median"] for row in measured}
    names = [name for name in ends if name in medians]
    columns = {
        "name": pa.array(names, pa.string()),
        "bad": pa.array([ends[name].value for name in names], pa.string()),
        "median": pa.array([medians[name] for name in names], pa.float64()),
    }
    catalog.register("report_bad", pa.table(columns))
    catalog.register("report_scores", catalog.arrow(SCORES))
    return rows(catalog, WORST, count=count), rows(catalog, BEST, count=count)
