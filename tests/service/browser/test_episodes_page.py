"""The table of episodes: what is chosen stands in the address, the keyboard reaches everything, and the cart keeps its rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from tests.service.browser.conftest import Site, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def uids_of(page: Page) -> list[str]:
    rows: list[str] = page.evaluate(
        "[...document.querySelectorAll('tbody tr')].map(row => row.dataset.uid)"
    )
    return rows


def drawn_again(page: Page, act: str) -> None:
    """Run a line of the page's own language and wait until the table was drawn once more."""
    before = page.evaluate("document.documentElement.dataset.drawn")
    page.evaluate(act)
    page.wait_for_selector(f"html:not([data-drawn='{before}'])")


def click(selector: str) -> str:
    return f"document.querySelector({selector!r}).click()"


def asked(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def from_rest(client: TestClient, **parameters: object) -> list[str]:
    answer = client.get("/api/v1/episodes", params={"limit": 50, **parameters})  # type: ignore[arg-type]
    return [row["uid"] for row in answer.json()["episodes"]]


def test_pages_follow_each_other_and_the_way_back(
    chromium: Browser, hard_site: Site, client: TestClient
) -> None:
    """The same rows as REST's, in its order, over a column with ties and unknown values."""
    every = from_rest(client, limit=300, sort="-measurements.tied")
    with opened(chromium, hard_site, "/episodes?sort=-measurements.tied") as page:
        read = uids_of(page)
        assert page.get_attribute("th[aria-sort]", "aria-sort") == "descending"
        first = read
        while page.is_enabled("#next-page"):
            drawn_again(page, click("#next-page"))
            read = [*read, *uids_of(page)]
        assert read == every
        assert asked(page)["page"] == ["6"]
        for _ in range(5):
            drawn_again(page, click("#previous-page"))
        assert uids_of(page) == first


def test_the_address_holds_the_whole_state(chromium: Browser, hard_site: Site) -> None:
    with opened(chromium, hard_site, "/episodes") as page:
        drawn_again(page, click("[data-name=source] input"))
        drawn_again(page, click("[data-name=embodiment] input"))
        drawn_again(page, click("thead th:last-child .sort"))
        drawn_again(page, click("#next-page"))
        rows, address = uids_of(page), page.url
        checked = page.locator(".facets input:checked").count()
    with opened(chromium, hard_site, address.removeprefix(hard_site.address)) as page:
        assert uids_of(page) == rows
        assert page.locator(".facets input:checked").count() == checked == 2


def test_a_facet_narrows_the_rows(chromium: Browser, hard_site: Site, client: TestClient) -> None:
    with opened(chromium, hard_site, "/episodes?q=towel") as page:
        drawn_again(page, click("[data-name=source] label:last-of-type input"))
        (chosen,) = asked(page)["filter"]
        assert uids_of(page) == from_rest(client, filter=chosen, q="towel")
        drawn_again(page, click(".chip"))
        assert uids_of(page) == from_rest(client, q="towel")


def test_the_focus_stays_where_the_page_is_drawn_again(chromium: Browser, demo_site: Site) -> None:
    focused = "document.activeElement.dataset.focus ?? document.activeElement.id"
    with opened(chromium, demo_site, "/episodes") as page:
        page.focus("[data-name=source] input")
        facet = page.evaluate(focused)
        drawn_again(page, "document.activeElement.click()")
        assert page.evaluate(focused) == facet
        assert page.is_checked(":focus")
        page.focus(".sort >> nth=0")
        for direction in ("ascending", "descending"):
            drawn_again(page, "document.activeElement.click()")
            assert page.locator("th:has(:focus)").get_attribute("aria-sort") == direction
        page.focus("#add-column")
        drawn_again(
            page,
            "const menu = document.activeElement; menu.selectedIndex = 1; menu.dispatchEvent(new Event('change'))",
        )
        assert page.evaluate(focused) == "add-column"


def test_the_keyboard_reaches_an_episode(chromium: Browser, hard_site: Site) -> None:
    with opened(chromium, hard_site, "/episodes") as page:
        page.keyboard.press("/")
        page.keyboard.type("towel")
        page.wait_for_url("**/episodes?q=towel")
        page.wait_for_selector("html:not(:has([aria-busy]))")  # that of the last letter
        page.keyboard.press("Escape")
        for key in ("j", "j", "j", "k", "f"):
            page.keyboard.press(key)
        second = uids_of(page)[1]
        assert page.locator("tr[data-current]").get_attribute("data-uid") == second
        assert page.locator("tr[data-in-cart]").get_attribute("data-uid") == second
        assert page.inner_text("#cart-count") == "1"
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/episodes/{second}?q=towel")


def test_the_cart_is_kept_and_exported(chromium: Browser, hard_site: Site, tmp_path: Path) -> None:
    with opened(chromium, hard_site, "/episodes") as page:
        page.check("#all-rows")
        rows = uids_of(page)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.is_checked("#all-rows")
        page.click("#cart-button")
        with page.expect_download() as download:
            page.click("text=Export CSV")
        download.value.save_as(tmp_path / "cart.csv")
        lines = list(csv.DictReader(io.StringIO((tmp_path / "cart.csv").read_text())))
        assert [line["uid"] for line in lines] == rows
        page.click("text=Empty the cart")
        assert page.inner_text("#cart-count") == "0"


@pytest.mark.parametrize("path", ["/episodes?filter=nonsense", "/episodes?cursor=nonsense"])
def test_a_wrong_address_gets_the_message_of_the_server(
    chromium: Browser, hard_site: Site, path: str
) -> None:
    with opened(chromium, hard_site, path) as page:
        assert page.inner_text("[role=alert]").strip()


def test_a_row_shows_its_contact_sheet(chromium: Browser, toy_site: Site) -> None:
    with opened(chromium, toy_site, "/episodes") as page:
        page.hover("tbody tr:nth-child(2)")
        page.wait_for_selector(".contact-sheet img")
        assert page.evaluate("document.querySelector('.contact-sheet img').naturalWidth") > 300
        page.hover("h1, .brand")
        page.wait_for_selector(".contact-sheet", state="hidden")


def test_a_search_without_a_match_shows_no_empty_facets(chromium: Browser, demo_site: Site) -> None:
    with opened(chromium, demo_site, "/episodes?q=nosuchword") as page:
        assert "No episode matches" in page.inner_text("main")
        assert page.locator(".facets legend").count() == 0
        page.fill("#search", "")
        page.wait_for_selector(".facets legend >> text=Tier")
