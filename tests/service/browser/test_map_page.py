"""The map: boxes by mouse, keyboard and fields choose what REST chooses, the nearest episode opens, and its state stands in the address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.curation.dedup_cases import corpus
from tests.service.browser.conftest import SIZES, Site, opened, serving
from tests.service.browser.test_shell import serious_findings
from tests.service.corpora import HOSTILE, client_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SEEDS = [*np.random.default_rng(0).integers(0, 60, 120).tolist(), None, None]


def hostile(row: dict[str, Any]) -> None:
    row["tasks"] = [HOSTILE]


@pytest.fixture(scope="module")
def map_corpus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return corpus(tmp_path_factory.mktemp("map") / "corpus", SEEDS, episodes=hostile)


@pytest.fixture(scope="module")
def map_site(map_corpus: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(map_corpus, tmp_path_factory.mktemp("map-site")) as site:
        yield site


@pytest.fixture(scope="module")
def rest(map_corpus: Any, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(map_corpus, tmp_path_factory.mktemp("map-rest"))


def state(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def drawn(page: Page, act: Any) -> None:
    """Do something and wait until the map was drawn once more."""
    before = page.evaluate("document.documentElement.dataset.drawn")
    act()
    page.wait_for_selector(f"html:not([data-drawn='{before}'])")


def in_box(rest: TestClient, page: Page, space: str = "pictures") -> list[str]:
    """What REST has between the edges that the address names."""
    edges = state(page)["box"][0].split(",")
    names = [f"map.{space}_{axis}:{op}" for axis in "xy" for op in ("ge", "le")]
    filters = [f"{name}:{edge}" for name, edge in zip(names, edges, strict=True)]
    rows = rest.get("/api/v1/episodes", params={"filter": filters, "limit": 1000}).json()
    return [row["uid"] for row in rows["episodes"]]


def cart_of(page: Page) -> list[str]:
    uids: list[str] = page.evaluate(
        "JSON.parse(Object.entries(localStorage).find(([key]) => key.startsWith('eicorpus.cart'))[1]).map(row => row.uid)"
    )
    return uids


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_axe_finds_nothing_serious(
    chromium: Browser, map_site: Site, size: str
) -> None:
    theme = {"wide": "light", "narrow": "dark"}[size]
    with opened(chromium, map_site, "/map?colour=source", size, theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_findings(page) == []
        assert "2 without a signature" in page.inner_text(".summary")
        assert HOSTILE in page.inner_text(".map-box tbody tr:first-child")
        assert page.locator("img[src='x'], main script").count() == 0


def test_a_box_of_the_mouse_goes_into_the_cart(
    chromium: Browser, map_site: Site, rest: TestClient
) -> None:
    with opened(chromium, map_site, "/map") as page:
        stage = page.locator(".map-marks").bounding_box()
        assert stage is not None
        page.mouse.move(stage["x"] + 40, stage["y"] + 40)
        page.mouse.down()
        page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
        drawn(page, page.mouse.up)
        expected = in_box(rest, page)
        assert 0 < len(expected) < 120
        page.click("#add-box")
        page.locator(f"#cart-count:text-is('{len(expected)}')").wait_for()
        assert sorted(cart_of(page)) == sorted(expected)
        page.get_by_text("Show in Episodes").click()
        page.wait_for_selector("html[data-drawn] tbody tr")
        assert page.inner_text(".summary b") == str(len(expected))


def test_the_keyboard_draws_a_box_zooms_and_opens(
    chromium: Browser, map_site: Site, rest: TestClient
) -> None:
    with opened(chromium, map_site, "/map?space=motion") as page:
        for key in ("ArrowLeft", "ArrowDown"):
            for _ in range(2):
                page.keyboard.press(f"Shift+{key}")
        page.keyboard.press("b")
        for key in ("ArrowRight", "ArrowUp"):
            for _ in range(3):
                page.keyboard.press(f"Shift+{key}")
        drawn(page, lambda: page.keyboard.press("b"))
        expected = in_box(rest, page, "motion")
        assert expected
        page.keyboard.press("f")
        page.locator(f"#cart-count:text-is('{len(expected)}')").wait_for()
        drawn(page, lambda: page.keyboard.press("+"))
        x0, x1, *_ = map(float, state(page)["view"][0].split(","))
        drawn(page, lambda: page.keyboard.press("0"))
        assert "view" not in state(page)
        extent = rest.get("/api/v1/map", params={"space": "motion"}).json()["extent"]
        assert x1 - x0 == pytest.approx(0.6 * (extent[1] - extent[0]), rel=1e-3)
        drawn(page, lambda: page.keyboard.press("Escape"))
        assert "box" not in state(page)


def test_the_nearest_episode_is_shown_and_opens(
    chromium: Browser, map_site: Site, rest: TestClient
) -> None:
    answer = rest.get("/api/v1/map").json()
    x, y = answer["columns"]
    params = {"column": [x, y], "limit": 1000}
    row = next(r for r in rest.get("/api/v1/episodes", params=params).json()["episodes"] if r[x])
    x0, x1, y0, y1 = answer["extent"]
    with opened(chromium, map_site, "/map") as page:
        stage = page.locator(".map-marks").bounding_box()
        assert stage is not None
        left = stage["x"] + (row[x] - x0) / (x1 - x0) * stage["width"]
        top = stage["y"] + (y1 - row[y]) / (y1 - y0) * stage["height"]
        page.mouse.move(left + 1, top + 1)
        link = page.locator(".map-near a")
        link.wait_for()
        near = rest.get(
            "/api/v1/episodes", params={"filter": f"{x}:eq:{row[x]}", "limit": 1000}
        ).json()["episodes"]  # copies lie at the same place
        assert urlsplit(str(link.get_attribute("href"))).path.split("/")[-1] in {
            r["uid"] for r in near
        }
        assert HOSTILE in page.inner_text(".map-near")
        page.keyboard.press("Enter")
        page.wait_for_url("**/episodes/*")


def test_the_address_holds_the_state_and_filters_can_be_removed(
    chromium: Browser, map_site: Site, rest: TestClient
) -> None:
    with opened(chromium, map_site, "/map?filter=source:eq:oxe&view=-1,1,-1,1") as page:
        oxe = rest.get("/api/v1/map", params={"filter": "source:eq:oxe"}).json()["total"]
        assert f"of {oxe} episodes in view" in page.inner_text(".summary")
        drawn(page, lambda: page.select_option("#colour", "length"))
        assert page.inner_text(".map-legend h2") == "length timesteps"
        drawn(
            page,
            lambda: (
                page.fill("input[name=x_min]", "-0.5")
                or page.fill("input[name=x_max]", "0.5")
                or page.fill("input[name=y_min]", "-0.25")
                or page.fill("input[name=y_max]", "0.25")
                or page.click("text=Set the box")
            ),
        )
        own = state(page)
        assert (own["view"], own["box"], own["colour"]) == (
            ["-1,1,-1,1"],
            ["-0.5,0.5,-0.25,0.25"],
            ["length"],
        )
        address = page.url.removeprefix(map_site.address)
        drawn(page, lambda: page.click(".chip"))
        assert "filter" not in state(page)
        assert " of 122 episodes" in page.inner_text(".summary")
        drawn(page, page.go_back)
        assert page.locator(".chip").count() == 1
    with opened(chromium, map_site, address) as page:
        assert page.input_value("#colour") == "length"
        assert page.input_value("input[name=y_max]") == "0.25"


def test_a_corpus_without_signatures_says_so(chromium: Browser, toy_site: Site) -> None:
    with opened(chromium, toy_site, "/map") as page:
        assert "0 of 4 episodes in view; 4 without a signature" in page.inner_text(".summary")
        assert page.is_disabled("#add-box")
