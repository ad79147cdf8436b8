"""Hours by source, body, licence, split and tier."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.catalog import Catalog
from ingest.report import questions
from ingest.report.markup import Markup, number, section, table, tag
from ingest.report.questions import GROUPS, Row, rows
from ingest.report.svg import bars

MAX_BARS = 25


def hours(catalog: Catalog) -> Markup:
    inside: list[Markup] = []
    for title, key in GROUPS.items():
        inside += _group(title, rows(catalog, questions.HOURS.format(key=key)))
    order = {"high": 0, "low": 1, "actionless": 2, "excluded": 3}
    tiers = rows(catalog, questions.TIERS)
    inside += _group("tier", sorted(tiers, key=lambda row: order.get(row["name"], 9)))
    return section("hours", "Hours", *inside)


def _group(title: str, found: Sequence[Row]) -> list[Markup]:
    kept = list(found[:MAX_BARS])
    if rest := found[MAX_BARS:]:
        kept.append(
            {
                "name": f"{len(rest)} others",
                "episodes": sum(row["episodes"] for row in rest),
                "hours": sum(row["hours"] or 0.0 for row in rest),
            }
        )
    cells = [(row["name"], row["episodes"], float(row["hours"] or 0.0)) for row in kept]
    drawn = bars(
        [(str(name), h, f"{number(h)} h, {n:,}") for name, n, h in cells], f"hours by {title}"
    )
    return [
        tag("h3", f"by {title}"),
        *([drawn] if cells else []),
        table(f"hours_by_{title}", [title, "episodes", "hours"], cells),
    ]
