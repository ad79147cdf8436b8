"""Segments: why they are where they are, and contact sheets of the worst and the best."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.catalog.catalog import Catalog
from ingest.curation.tiers.policy import QualityPolicy
from ingest.report import queries
from ingest.report.html import Markup, listed, number, section, table, tag
from ingest.report.pictures import Sheets
from ingest.report.queries import Row, rows


def reasons(catalog: Catalog, policy: QualityPolicy) -> Markup:
    reason_rows = rows(catalog, queries.REASONS)
    cells = [
        (r["tier"], r["code"], r["segments"], float(r["hours"] or 0.0), r["text"])
        for r in reason_rows
    ]
    columns = ["tier", "reason", "segments", "hours", "for example"]
    note = f"The first reason of each segment, by the latest run of a policy. The thresholds drawn below are those of {policy.title}."
    return section("reasons", "Reasons for tiers", table("reasons", columns, cells, note=note))


def shown_segments(name: str, title: str, segments: Sequence[Row], sheets: Sheets) -> Markup:
    note = (
        "Ordered by the mean rank of the episode over the measurements that the policy's rules compare "
        "(0 best, 1 worst). One camera, at most 8 images per segment."
    )
    articles = [_article(row, sheets) for row in segments] or [tag("p", "none", class_="none")]
    return section(name, title, tag("p", note, class_="note"), *articles)


def _article(row: Row, sheets: Sheets) -> Markup:
    rate_hz = row["length"] / row["duration_s"]
    about = {
        "episode": f"{row['source']} {row['episode_id']}",
        "uid": row["uid"],
        "from, to": f"{row['start'] / rate_hz:.1f} s, {row['end'] / rate_hz:.1f} s",
        "tier": row["tier"],
        "why": why(row["reasons"] or ()),
        "tasks": "; ".join(row["tasks"] or ()),
        "place": float(row["score"]),
    }
    return tag("article", sheets.sheet(row), listed(about))


def why(held: Sequence[Row]) -> str:
    """Reasons by rule: its text once, then each condition that held."""
    rules: dict[str, list[str]] = {}
    for each in held:
        text, _, condition = each["text"].partition(": ")
        value = "" if each["value"] is None else f" (measured {number(each['value'])})"
        rules.setdefault(f"{each['code']}: {text}", []).append(f"{condition}{value}".strip())
    return "; ".join(": ".join([rule, *filter(None, [", ".join(c)])]) for rule, c in rules.items())
