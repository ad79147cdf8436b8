"""What teaches nothing, or no policy: episodes set aside, copies, and facts that nobody has settled."""

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
    note = "Of each recording one copy is kept, the others are redundant. A copy of another source or release counts too."
    if not copied:
        note = "None were found, or nobody has looked yet: eicorpus dedup"
    return section("copies", "Copies of one recording", table("copies", columns, cells, note=note))


def barred(catalog: Catalog) -> Markup:
    barred_rows = rows(catalog, queries.BARRED)
    cells = [(r["why"], r["source"], r["episodes"], float(r["hours"] or 0.0)) for r in barred_rows]
    note = "Facts about the actions that are only inferred, unverified or unknown keep an episode from teaching a policy."
    columns = ["why", "source", "episodes", "hours"]
    return section(
        "barred", "What bars the policy task", table("barred", columns, cells, note=note)
    )
