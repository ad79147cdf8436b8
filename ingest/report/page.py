"""The report as one HTML file: no script, nothing from outside, every text of the data escaped, bounded in size."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.catalog.catalog import Catalog
from ingest.report import queries
from ingest.report.captions import captions
from ingest.report.hours import hours
from ingest.report.html import Markup, shown, tag
from ingest.report.manifests import manifests
from ingest.report.measurements import chosen, measurements
from ingest.report.overview import ReportRequest, funnel, head
from ingest.report.pictures import Sheets
from ingest.report.quarantine_section import aside, barred, copies
from ingest.report.queries import rows
from ingest.report.segments import reasons, shown_segments
from ingest.report.style import GUARD, STYLE
from ingest.report.thresholds import bad_ends, thresholds

SHEETS = 8  # of the worst, and of the best


def report(catalog: Catalog, asked: ReportRequest) -> str:
    """The whole page. An empty corpus gives a page that says so in every section.

    Raises:
        ConfigError: the catalog cannot be read.
    """
    sheets = Sheets(corpus=asked.corpus)
    lines = thresholds(asked.policy)
    every = queries.sampled_every(rows(catalog, "SELECT count(*) AS n FROM episodes")[0]["n"])
    ranges = queries.ranges(catalog, every)
    drawn = chosen(ranges, lines)
    ends = bad_ends(lines)
    worst, best = queries.extremes(catalog, ranges, ends, SHEETS)
    parts = [
        head(catalog, asked),
        funnel(catalog),
        hours(catalog),
        reasons(catalog, asked.policy),
        measurements(queries.histograms(catalog, drawn, lines), lines, ranges, every),
        shown_segments("worst", "Worst segments, one per reason", worst, sheets),
        shown_segments("best", "Best segments", best, sheets),
        captions(catalog, sheets),
        aside(catalog),
        copies(catalog),
        barred(catalog),
        manifests(asked.corpus, catalog.snapshot),
    ]
    if sheets.left_out:
        parts.append(
            tag(
                "p",
                f"{sheets.left_out} images are omitted because the page reached its size limit.",
            )
        )
    return _document(parts, asked)


def _document(parts: Sequence[Markup], asked: ReportRequest) -> str:
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{GUARD}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>corpus {shown(asked.corpus_uid)}</title><style>{STYLE}</style>"
    )
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    )
