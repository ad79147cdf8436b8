"""Captions: how they came out, and a sample for people to judge."""

from __future__ import annotations

from typing import Any

from ingest.catalog.catalog import Catalog
from ingest.report import queries
from ingest.report.html import Markup, listed, section, table, tag
from ingest.report.pictures import Sheets
from ingest.report.queries import Row, rows

CAPTIONS = 12
SEED = "0"  # of the sample


def captions(catalog: Catalog, sheets: Sheets) -> Markup:
    counts = rows(catalog, queries.CAPTIONS)
    cells = [(r["backend"], r["outcome"], r["captions"], r["complained"]) for r in counts]
    sample = rows(catalog, queries.CAPTION_SAMPLE, seed=SEED, count=CAPTIONS)
    note = f"{len(sample)} captions that passed all checks, sampled by hash. Review captions with `eicorpus caption --audit`."
    columns = ["backend", "outcome", "captions", "with a failed check"]
    return section(
        "captions",
        "Captions",
        table("captions", columns, cells),
        tag("p", note, class_="note"),
        *(_caption(row, sheets) for row in sample),
    )


def _caption(row: Row, sheets: Sheets) -> Markup:
    about: dict[str, Any] = {
        "caption": tag("b", row["text"]),
        "source says": row["source_text"] or "(nothing)",
        "checks failed": ", ".join(row["checks_failed"] or ()) or "none",
        "by": f"{row['backend']} {row['model'] or ''}",
        "episode": f"{row['source']} {row['episode_id']} {row['start']}:{row['end']}",
    }
    return tag("article", sheets.sheet(row), listed(about))
