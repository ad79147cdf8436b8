"""The corpus changes under a page: what the page shows stays of the snapshot it began with, and it says what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from jobs.service import keeper
from tests.service.browser.conftest import opened, serving
from tests.service.browser.test_episodes_page import click, drawn_again, uids_of
from tests.service.corpora import write_hard_catalog
from tests.service.test_keeper import grow

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NUM_FIRST = 60  # more than one page of the table
LOOK = "document.dispatchEvent(new Event('visibilitychange'))"


def looks_until(page: Page, sentence: str) -> None:
    """The page looks at the corpus again and again, as it does when its tab is opened, until its notice has a sentence."""
    page.wait_for_function(
        f"sentence => {{ {LOOK}; return document.getElementById('notice').textContent.includes(sentence); }}",
        arg=sentence,
        polling=200,
    )


def test_a_page_stays_with_its_snapshot_and_announces_a_newer_one(
    chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "POLL_S", 0.2)
    corpus = write_hard_catalog(tmp_path / "corpus", NUM_FIRST).root
    with (
        serving(corpus, tmp_path / "state") as site,
        opened(chromium, site, "/episodes") as page,
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        first = uids_of(page)
        assert page.inner_text("#notice") == ""
        grow(corpus, 7, 5000)
        looks_until(page, "Snapshot 2 exists; this page shows 1.")
        page.wait_for_selector("#reload")
        drawn_again(page, click("#next-page"))
        second = uids_of(page)
        assert len(first) + len(second) == NUM_FIRST == len({*first, *second})
        assert page.locator("#notice p").count() == 1
        snapshots = {
            parse_qs(urlsplit(url).query).get("snapshot", [""])[0]
            for url in asked
            if "/api/" in url and "/corpora" not in url
        }
        assert snapshots == {"1"}
        grow(corpus, 1, 6000, "run-3")
        looks_until(page, "Snapshot 1 of this page is not served any more")
        page.evaluate(click("thead .sort"))
        assert "snapshot 1 is not served" in page.inner_text("[role=alert]")
        page.click("#reload")
        page.wait_for_selector("#corpus:has-text('snapshot 3')")
        page.wait_for_selector("html[data-ready]")
        assert page.inner_text("#notice") == ""
        assert page.inner_text(".summary b") == str(NUM_FIRST + 8)
