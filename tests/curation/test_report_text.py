"""Texts of strangers on the page of `eicorpus report` are text: no tag, no attribute, no line of theirs is anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.report.html import Markup, shown, table, tag
from tests.curation.report_cases import Page, assert_inert, html_of, tiers_of
from tests.generators import corpus as synthetic

ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE episodes; --",
    "</style></title><script>1</script>",
    "javascript:alert(1)",
    "\u202egnp.exe",
    "a\x00b\x1b[31m\ud800",
    "&lt;b&gt;",
)


def hostile(value: Any, attack: str) -> Any:
    """Every text in a row replaced, but for those that the catalog itself reads."""
    if isinstance(value, str):
        return attack.encode("utf-8", "replace").decode()  # Arrow holds UTF-8 only
    if isinstance(value, list):
        return [hostile(each, attack) for each in value]
    if isinstance(value, dict):
        return {key: hostile(each, attack) for key, each in value.items()}
    return value


KEPT = ("uid", "tier", "outcome", "state", "name", "dataset_path")


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_is_markup(attack: str) -> None:
    inside = (
        Markup('<table data-table="t"><tr>') + tag("td", attack, title=attack) + "</tr></table>"
    )
    page = Page(inside)
    assert [name for name, _ in page.tags] == ["table", "tr", "td"]
    assert page.tags[2][1].keys() == {"title"}


def test_texts_of_strangers_are_text(tmp_path: Path) -> None:
    attack = "".join(ATTACKS)
    (tmp_path / "corpus.json").write_text('{"format_version": 1}')
    rows = tiers_of(synthetic.rows_of(4, 2))
    bad = {
        name: [
            {key: v if key in KEPT else hostile(v, attack) for key, v in row.items()}
            for row in given
        ]
        for name, given in rows.items()
        if name not in ("runs", "artifacts", "latents")
    }
    bad["measurements"] = [
        {**row, "name": hostile("x", attack), "start": None} for row in bad["measurements"][:4:2]
    ]
    synthetic.commit(tmp_path, bad)
    assert_inert(html_of(tmp_path))


def test_escaping_by_hand() -> None:
    assert shown('<a href="x">&\'') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;"
    assert shown("a\u202eb\x00") == "a\\u202eb\\x00"
    assert shown(["<", tag("b", ">")]) == "&lt;, <b>&gt;</b>"
    assert tag("td", 1, title='"><script>') == '<td title="&quot;&gt;&lt;script&gt;">1</td>'
    assert shown("x" * 700).endswith("x … (700 characters)")
    assert (shown(1234567), shown(0.00001), shown(None)) == ("1,234,567", "1e-05", "")
    assert "none" in table("t", ["a", "b"], [])
