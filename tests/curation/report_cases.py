"""What the tests of `eicorpus report` share: its page as a reader takes it apart, and rows that it shows."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ingest.catalog.catalog import Catalog
from ingest.curation.tiers.policy import load_policy
from ingest.report.overview import ReportRequest
from ingest.report.page import report
from ingest.report.style import GUARD
from tests.curation.lifecycle_corpus import filled
from tests.generators.corpus import Rows

ALLOWED = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "h3",
        "section",
        "article",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
        "svg",
        "text",
        "rect",
        "line",
        "title",
        "figure",
        "figcaption",
        "div",
        "b",
        "span",
        "img",
        "details",
        "summary",
    ]
)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, tables by name, and the text of everything."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.values: dict[str, list[list[float | None]]] = {}
        self.texts: list[str] = []
        self._open: list[str] = []
        self._table = ""
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "table":
            self._table = given["data-table"] or ""
            self.tables[self._table], self.values[self._table] = [], []
        if tag == "tr":
            self.tables[self._table].append([])
            self.values[self._table].append([])
        if tag == "td":
            self.tables[self._table][-1].append("")
            value = given.get("data-value")
            self.values[self._table][-1].append(None if value is None else float(value))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._open and self._open[-1] == "td":
            self.tables[self._table][-1][-1] += data

    def rows(self, name: str) -> list[list[Any]]:
        """Cells of a table below its head: exact numbers where there are any."""
        cells = zip(self.tables[name][1:], self.values[name][1:], strict=True)
        return [
            [text if value is None else value for text, value in zip(*row, strict=True)]
            for row in cells
        ]


def page_of(corpus: Path, policy: str = "ei30k") -> Page:
    return Page(html_of(corpus, policy))


def html_of(corpus: Path, policy: str = "ei30k") -> str:
    asked = ReportRequest(
        corpus=corpus, corpus_uid="some corpus", policy=load_policy(policy)[0], made_at="today"
    )
    with Catalog.open(corpus) as catalog:
        return report(catalog, asked)


def tiers_of(rows: Rows) -> Rows:
    """Segments of every tier in turn, two an episode."""
    names = ("high", "low", "actionless", "excluded")
    out = []
    for place, episode in enumerate(rows["episodes"]):
        middle = episode["length"] // 2
        for index, (start, end) in enumerate(((0, middle), (middle, episode["length"]))):
            tier = names[(place + index) % 4]
            reason = {"code": f"because_{tier}", "text": "so", "value": 1.5, "threshold": 1.0}
            span = {"segment_index": index, "start": start, "end": end, "tier": tier}
            out.append(
                filled(
                    "tiers",
                    {"uid": episode["uid"], "snapshot": 1, "reasons": [reason], "tasks": []} | span,
                )
            )
    return {**rows, "tiers": out}


def idle(rows: Rows) -> Rows:
    """Another measurement, which the built-in policy compares: 0, 0.05, 0.1 ..."""
    more = [
        filled(
            "measurements",
            {
                "uid": row["uid"],
                "name": "idle_share",
                "version": 2,
                "value": place / 20,
                "unit": "share",
            }
            | {"denominator": row["length"]},
        )
        for place, row in enumerate(rows["episodes"])
    ]
    return {**rows, "measurements": [*rows["measurements"], *more]}


def assert_inert(html: str) -> None:
    page = Page(html)
    for tag_, attributes in page.tags:
        assert tag_ in ALLOWED
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("href", "style", "action", "formaction", "srcdoc")
            if name == "src":
                assert (value or "").startswith("data:image/jpeg;base64,")
    guard = next(a for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert guard["content"] == GUARD
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", html)
    assert html.count("<style>") == html.count("</style>") == 1
