"""Reviews in the browser: by the keyboard, for a range, undone, sent again after a lost answer; and what the next writer makes of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.corpus import snapshot
from jobs.demo.command import run
from jobs.service import keeper
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from tests.service.browser.conftest import Site, opened, serving, uid_from
from tests.service.browser.test_episode_page import seek
from tests.service.corpora import READER, REVIEWER

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


# Until the server serves a snapshot.
SERVES = """
async (number) => {
  while ((await (await fetch("/api/v1/corpora")).json()).corpora[0].snapshot !== number) await new Promise((resolve) => setTimeout(resolve, 100));
}
"""


@pytest.fixture(scope="module")
def corpus(robots_and_hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(robots_and_hands, tmp_path_factory.mktemp("reviewed") / "corpus"))


@pytest.fixture(scope="module")
def site(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("reviewed-state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper, "POLL_S", 0.2)
        jobs = JobRunner(JobStore(folder / "jobs"), corpus)
        with serving(corpus, folder / "state", jobs) as served:
            yield served


def rows(page: Page) -> list[list[str]]:
    """Decision, timesteps, author and state of the list."""
    cells: list[list[str]] = page.evaluate(
        """[...document.querySelectorAll('.reviews tbody tr')].map((row) => [...row.cells].slice(0, 4).map(
            (cell) => cell.textContent.replace(/,.*UTC/, '')))"""
    )
    return cells


def wait_for_rows(page: Page, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelectorAll('.reviews tbody tr').length === count", arg=count
    )


def test_a_review_of_the_browser_is_published_by_the_next_write_and_changes_the_tier(
    chromium: Browser, corpus: Path, site: Site
) -> None:
    path = f"/episodes/{uid_from(site, filter='source:eq:agibot_world')}"
    with opened(chromium, site, path, without="**/geometry*", token=REVIEWER) as page:
        assert page.inner_text(".facts .tier") != "excluded"
        busy = {"error": {"code": "busy", "message": "other reviews are being stored"}}
        page.route(
            "**/api/v1/reviews?*", lambda route: route.fulfill(status=503, json=busy), times=1
        )
        page.keyboard.press("4")
        page.keyboard.press("Enter")
        wait_for_rows(page, 1)
        assert rows(page) == [["excluded", "whole episode", "Ada", "pending"]]
        run(("tier", str(corpus)), is_quiet=True)
        page.evaluate(SERVES, snapshot.load(corpus, None).number)
        page.reload()
        page.wait_for_selector(".facts .tier-excluded")
        assert "reviewed by Ada" in page.inner_text(".reasons >> nth=0")
        wait_for_rows(page, 1)
        assert rows(page) == [["excluded", "whole episode", "Ada", "published"]]


def test_a_range_is_marked_by_keys_and_a_correction_stands_beside_its_caption(
    chromium: Browser, site: Site
) -> None:
    path = f"/episodes/{uid_from(site, filter='source:eq:egodex')}"
    with opened(
        chromium, site, path, "narrow", "dark", without="**/geometry*", token=REVIEWER
    ) as page:
        seek(page, 3)
        page.keyboard.press("[")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("]")
        page.keyboard.press("c")
        page.wait_for_selector("#review-value:focus")
        caption = page.input_value("#review-value")
        page.keyboard.press("End")
        page.keyboard.type(" slowly")
        shaded = page.locator(".chosen-range").bounding_box()
        assert shaded is not None
        assert shaded["width"] > 0
        page.route("**/api/v1/reviews?*", lambda route: (route.fetch(), route.abort()), times=1)
        page.click("text=Send review")
        page.wait_for_selector("#review-status:has-text('Send it again')")
        page.click("text=Send review")  # the same review: it is stored once
        wait_for_rows(page, 1)
        assert rows(page)[0][:3] == [f"Correct the caption: {caption} slowly", "3–5", "Ada"]
        correction = page.locator("caption:has-text('Corrections') >> xpath=..")
        assert correction.locator("ins").all_inner_texts() == ["slowly"]
        assert "pending" in correction.inner_text()
        page.click(".undo")
        wait_for_rows(page, 2)
        assert rows(page)[0][0] == "Note: withdrawn"
        assert rows(page)[1][3] == "pending, superseded"
        assert page.locator(".undo").count() == 0
        assert page.locator("caption:has-text('Corrections')").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_role_read_sees_reviews_and_cannot_send(chromium: Browser, site: Site) -> None:
    path = f"/episodes/{uid_from(site, filter='source:eq:egodex')}"
    with opened(chromium, site, path, without="**/geometry*", token=READER) as page:
        assert page.locator(".reviews form").count() == 0
        page.keyboard.press("x")
        assert "The role read sees reviews" in page.inner_text(".reviews")
        page.keyboard.press("?")
        assert "review:" not in page.inner_text("dialog")
