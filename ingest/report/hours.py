"""Hours by source, body, licence, split and tier."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.catalog.catalog import Catalog
from ingest.report import queries
from ingest.report.html import Markup, bar, section, table, tag
from ingest.report.queries import GROUPS, Row, rows

MAX_BARS = 25


def hours(catalog: Catalog) -> Markup:
    inside: list[Markup] = []
    for title, key in GROUPS.items():
        hours_rows = rows(catalog, queries.HOURS.format(key=key))
        if title != "source split" or any(row["name"] != "unknown" for row in hours_rows):
            inside += _group(title, hours_rows)
    order = {"high": 0, "low": 1, "actionless": 2, "excluded": 3}
    tiers = rows(catalog, queries.TIERS)
    inside += _group("tier", sorted(tiers, key=lambda row: order.get(row["name"], 9)))
    return section("hours", "Hours", *inside)


def _group(title: str, group: Sequence[Row]) -> list[Markup]:
    kept = list(group[:MAX_BARS])
    if rest := group[MAX_BARS:]:
        kept.append(
            {
                "name": f"{len(rest)} others",
                "episodes": sum(row["episodes"] for row in rest),
                "hours": sum(row["hours"] or 0.0 for row in rest),
            }
        )
    hours = [float(row["hours"] or 0.0) for row in kept]
    most = max(hours, default=0.0)
    cells = [
        (row["name"], row["episodes"], h, bar(h, most)) for row, h in zip(kept, hours, strict=True)
    ]
    columns = [title, "episodes", "hours", ""]
    return [tag("h3", f"by {title}"), table(f"hours_by_{title}", columns, cells)]
