"""A threshold is moved by dragging its line or by the keyboard, and the tiers that it would give are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service.browser.conftest import SIZES, Site, opened
from tests.service.browser.test_shell import serious_findings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def hours_then(page: Page) -> list[str]:
    rows: list[str] = page.evaluate(
        "[...document.querySelectorAll('[aria-label^=Tiers] tbody tr')].map((row) => row.cells[5].textContent)"
    )
    return rows


def wait_for_answer(page: Page, before: str) -> None:
    page.wait_for_selector(f"html:not([data-drawn='{before}'])")
    page.wait_for_selector("[role=status]:not([aria-busy])", state="attached")


def drawn(page: Page) -> str:
    return str(page.evaluate("document.documentElement.dataset.drawn"))


@pytest.fixture(scope="module")
def tracking(demo_site: Site, chromium: Browser) -> str:
    """The name of the threshold on `tracking_error_m`: with a low one no segment is high."""
    with opened(chromium, demo_site, "/thresholds") as page:
        page.click("text=tracking_error_m")
        page.wait_for_url("**at=*")
        return str(page.evaluate("new URLSearchParams(location.search).get('at')"))


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_axe_finds_nothing_serious(
    chromium: Browser, demo_site: Site, size: str
) -> None:
    theme = {"wide": "light", "narrow": "dark"}[size]
    with opened(chromium, demo_site, "/thresholds", size, theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_findings(page) == []


def test_a_dragged_threshold_changes_tiers_and_the_address(
    chromium: Browser, demo_site: Site, tracking: str
) -> None:
    with opened(chromium, demo_site, f"/thresholds?at={tracking}") as page:
        before, now = drawn(page), hours_then(page)
        assert page.locator("#no-change").count() == 1
        line = page.locator(".threshold-line").bounding_box()
        assert line is not None
        y = line["y"] + line["height"] / 2
        page.mouse.move(line["x"] + line["width"] / 2, y)
        page.mouse.down()
        page.mouse.move(0, y, steps=4)
        page.mouse.up()
        wait_for_answer(page, before)
        page.fill("#threshold-value", "-1")
        before = drawn(page)
        page.press("#threshold-value", "Enter")
        wait_for_answer(page, before)
        moved = hours_then(page)
        assert moved != now
        address = page.url
    with opened(chromium, demo_site, address.removeprefix(demo_site.address)) as page:
        assert hours_then(page) == moved
        before = drawn(page)
        page.click("text=Policy's value")
        wait_for_answer(page, before)
        assert hours_then(page) == now


def test_the_keyboard_moves_a_threshold(chromium: Browser, demo_site: Site, tracking: str) -> None:
    with opened(chromium, demo_site, f"/thresholds?at={tracking}") as page:
        value = float(page.input_value("#threshold-value"))
        before = drawn(page)
        page.focus("#threshold")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        wait_for_answer(page, before)
        assert float(page.input_value("#threshold-value")) > value
        assert "threshold=" in page.url
        page.focus(".threshold-list button >> nth=1")
        page.keyboard.press("Enter")
        page.wait_for_selector(".threshold-list [aria-current]:focus")


def test_episodes_at_the_threshold_are_listed_and_put_into_the_cart(
    chromium: Browser, demo_site: Site, tracking: str
) -> None:
    with opened(chromium, demo_site, f"/thresholds?at={tracking}", "narrow") as page:
        page.click("#show-nearest")
        page.wait_for_selector(".nearest tbody tr")
        count = page.locator(".nearest tbody tr").count()
        distances = page.evaluate(
            "[...document.querySelectorAll('.nearest tbody tr')].map((row) => Number(row.cells[4].textContent))"
        )
        assert distances == sorted(distances)
        page.click("text=Put them into the cart")
        assert page.inner_text("#cart-count") == str(count)
        page.click("#agreement summary")
        page.wait_for_selector("text=No published review judges a tier yet.")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_findings(page) == []
