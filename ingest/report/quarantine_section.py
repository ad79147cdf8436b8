"""What is usable for no task or not for policies: quarantined episodes, duplicates, and unsettled facts."""

from __future__ import annotations

from ingest.catalog.catalog import Catalog
from ingest.report import queries
from ingest.report.html import Markup, section, table
from ingest.report.queries import rows


def aside(catalog: Catalog) -> Markup:
    excluded = rows(catalog, queries.ASIDE)
    cells = [(r["state"], r["code"], r["source"], r["episodes"], r["example"]) for r in excluded]
    columns = ["state", "code", "source", "episodes", "for example"]
    return section("aside", "Set aside", table("aside", columns, cells))


def copies(catalog: Catalog) -> Markup:
    """Recordings that are there more than once, by what `eicorpus dedup` said last."""
    copied = rows(catalog, queries.COPIES)
    cells = [(r["kind"], r["evidence"], r["sources"], r["episodes"], r["hours"]) for r in copied]
    columns = ["kind", "evidence", "sources", "episodes", "hours"]
    note = "One copy of each recording is kept; the others are redundant. Copies across sources and releases are included."
    if not copied:
        note = "None found, or not searched yet. Run `eicorpus dedup`."
    return section("copies", "Duplicate recordings", table("copies", columns, cells, note=note))


def barred(catalog: Catalog) -> Markup:
    barred_rows = rows(catalog, queries.BARRED)
    cells = [(r["why"], r["source"], r["episodes"], float(r["hours"] or 0.0)) for r in barred_rows]
    note = "Facts about the actions that are only inferred, unverified or unknown exclude an episode from the policy task."
    columns = ["why", "source", "episodes", "hours"]
    return section(
        "barred", "Facts that exclude the policy task", table("barred", columns, cells, note=note)
    )
