"""What every page has in common: it fits, it can be read by everyone, it loads nothing foreign, and names from data stay text."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from jobs.service.security import PLOTLY_STYLES
from tests.service.browser.conftest import SIZES, Site, opened
from tests.service.corpora import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATHS = {"overview": "/", "episodes": "/episodes?sort=-measurements.tied&q=task"}


def serious_findings(page: Page) -> list[str]:
    """Serious and critical findings of axe-core, run in the page as it is."""
    source = files("axe_playwright_python").joinpath("axe.min.js").read_text()
    page.evaluate(f"() => {{ {source} }}")
    results = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']}: {node['html'][:200]}"
        for each in results["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PATHS)
def test_a_page_fits_its_window_and_axe_finds_nothing_serious(
    chromium: Browser, hard_site: Site, name: str, size: str
) -> None:
    theme = {"wide": "light", "narrow": "dark"}[size]
    with opened(chromium, hard_site, PATHS[name], size, theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_findings(page) == []
        other = {"light": "dark", "dark": "light"}[theme]
        page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
        assert [each for each in serious_findings(page) if each.startswith("color")] == []


def test_a_name_from_data_is_text(chromium: Browser, hard_site: Site) -> None:
    with opened(chromium, hard_site, "/episodes?limit=100") as page:
        page.get_by_label(
            HOSTILE
        ).click()  # `check` looks for the box again, which is another by then
        page.wait_for_selector("html[data-drawn='2']")
        assert HOSTILE in page.inner_text("tbody tr:first-child .task")
        assert page.locator("img[src='x'], main script").count() == 0


def test_a_visitor_without_a_session_gets_no_page(chromium: Browser, hard_site: Site) -> None:
    context = chromium.new_context()
    assert context.request.get(hard_site.address + "/episodes").status == 401
    context.close()


def test_the_hashes_of_the_policy_are_those_of_the_installed_plotly(chromium: Browser) -> None:
    """Without a policy, plotly.js inserts its style elements: their texts have the hashes that the header allows."""
    context = chromium.new_context()
    page = context.new_page()
    page.goto("about:blank")
    page.evaluate(files("plotly").joinpath("package_data", "plotly.min.js").read_text())
    page.evaluate("() => Plotly.newPlot(document.body, [{y: [1, 2]}])")
    texts = page.evaluate("[...document.querySelectorAll('style')].map(each => each.textContent)")
    context.close()
    digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
    assert {f"'sha256-{digest}'" for digest in digests} == set(PLOTLY_STYLES)


def test_a_name_in_a_table_is_not_broken_where_there_is_room_beside_it(
    chromium: Browser, demo_site: Site
) -> None:
    with opened(chromium, demo_site, "/", "narrow") as page:
        name = page.locator("th:text-is('Discovered')")
        text_lines = "(th) => { const text = document.createRange(); text.selectNodeContents(th); return text.getClientRects().length; }"
        assert name.evaluate(text_lines) == 1


def test_the_keys_are_listed(chromium: Browser, hard_site: Site) -> None:
    with opened(chromium, hard_site, "/episodes") as page:
        page.keyboard.press("?")
        assert "next row" in page.inner_text("dialog")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")


def test_an_address_that_is_no_page_says_so_and_leads_back(
    chromium: Browser, hard_site: Site
) -> None:
    with opened(chromium, hard_site, "/no/such?q=<b>") as page:
        assert "/no/such is no page" in page.inner_text("main")
        assert page.get_attribute("html", "data-ready") == "failed"
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            assert serious_findings(page) == []
        page.get_by_role("link", name="Overview").first.click()
        page.wait_for_selector("html[data-ready=true]")
