"""One server over two corpora and one Chromium for all tests of the browser's pages."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from jobs.service.security import Access
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import app_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
DEADLINE_MS = 30_000
SIZES = {"wide": (1400, 900), "narrow": (390, 844)}
# Registered before any script of the page: a listener of a module comes too late for what the page itself inserts.
WATCH = """
window.problems = [];
addEventListener("securitypolicyviolation", (event) => problems.push(`${event.violatedDirective} ${event.blockedURI}`), true);
addEventListener("error", (event) => problems.push(String(event.message)));
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@dataclass(frozen=True)
class Site:
    """A server of one corpus."""

    address: str
    access: Access

    def login(self) -> str:
        return f"{self.address}/login?code={self.access.new_code()}"


@contextmanager
def serving(corpus: Path, state: Path) -> Iterator[Site]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = app_of(corpus, state)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.access)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def hard_site(hard: WrittenCatalog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """300 episodes with hostile names and unknown values, without files."""
    with serving(hard.root, tmp_path_factory.mktemp("hard-site")) as site:
        yield site


@pytest.fixture(scope="session")
def toy_site(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Four episodes with a video each."""
    with serving(toy, tmp_path_factory.mktemp("toy-site")) as site:
        yield site


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("NOT RUN: playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("NOT RUN: there is no chromium (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, site: Site, path: str, size: str = "wide", theme: Any = "light"
) -> Iterator[Page]:
    """A page of a signed-in user, drawn. At the end nothing has failed in it."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, accept_downloads=True
    )
    context.set_default_timeout(DEADLINE_MS)
    context.add_init_script(WATCH)
    page = context.new_page()
    try:
        page.goto(site.login())
        page.goto(site.address + path)
        page.wait_for_selector("html[data-ready]")
        yield page
        assert page.evaluate("problems") == []
    finally:
        context.close()
