"""A server that does not answer, and a session that ends, while a page is open: the page says so, and goes on by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.service.browser.conftest import Site, opened, serving
from tests.service.browser.test_shell import serious_findings
from tests.service.corpora import HOLDERS, TOKEN

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.generators.corpus import WrittenCatalog

LOST = "#connection:has-text('The server does not answer.')"
ENDED = "#connection:has-text('The session has ended.')"
LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
# What a user clicks on each page, which asks the server for something.
CLICKED = {
    "/episodes": ".sort >> nth=1",
    "/thresholds": ".threshold-list button >> nth=1",
    "/map": "button:text-is('Zoom in')",
    "/manifests?name=first": "tbody a >> nth=1",
    "/jobs": "#submit-job",
}


@pytest.mark.parametrize("path", CLICKED)
def test_a_page_goes_on_when_the_server_answers_again(
    chromium: Browser, working_site: Site, path: str
) -> None:
    with opened(chromium, working_site, path) as page:
        page.context.set_offline(True)
        page.click(CLICKED[path])
        page.wait_for_selector(LOST)
        page.wait_for_selector("main :text('The server does not answer.')")
        page.context.set_offline(False)
        page.wait_for_selector("#connection:empty", state="attached")
        if path != "/jobs":  # its form waits for the user
            page.wait_for_selector("main :text('The server does not answer.')", state="detached")
        page.wait_for_selector("main [aria-busy]", state="detached")


def test_a_page_says_that_its_session_ended_until_there_is_another(
    chromium: Browser, hard: WrittenCatalog, tmp_path: Path
) -> None:
    with (
        serving(hard.root, tmp_path) as site,
        opened(chromium, site, "/episodes", "narrow", "dark") as page,
    ):
        rows = page.locator("tbody tr").count()
        site.access.replace({f"{TOKEN}-of-today": HOLDERS[TOKEN]})
        page.evaluate(LOOK)
        page.wait_for_selector(ENDED)
        assert page.locator("tbody tr").count() == rows
        assert serious_findings(page) == []
        site.access.replace(HOLDERS)
        page.context.new_page().goto(site.login())
        page.evaluate(LOOK)
        page.wait_for_selector("#connection:empty", state="attached")
