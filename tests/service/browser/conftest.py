"""One server over two corpora and one Chromium for all tests of the browser's pages."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import uvicorn

from jobs.demo.command import raw_of, run
from jobs.service.credentials import Access, Caller
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import HOLDERS, TOKEN, app_of

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

    def login(self, token: str = TOKEN) -> str:
        return f"{self.address}/login?code={self.access.new_code(Caller(holder=HOLDERS[token]))}"


@contextmanager
def serving(corpus: Path, state: Path, jobs: JobRunner | None = None) -> Iterator[Site]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = app_of(corpus, state, jobs=jobs)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.access)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def uid_from(site: Site, **parameters: str) -> str:
    """The first episode of a selection, as REST has it."""
    query = urlencode({**parameters, "limit": "1"})
    request = Request(f"{site.address}/api/v1/episodes?{query}")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urlopen(request, timeout=30) as answer:
        uid: str = json.load(answer)["episodes"][0]["uid"]
    return uid


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
def robots_and_hands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of the demo, measured, with tiers and captions: a robot with two cameras, and hands with 21 points."""
    folder = tmp_path_factory.mktemp("robots-and-hands")
    corpus = str(folder / "corpus")
    steps = [("measure", corpus), ("tier", corpus), ("caption", corpus, "--backend", "rules")]
    for name in ("agibot_world", "egodex"):
        raw_of(name, folder / name)
        run(("ingest", name, str(folder / name), "--out", corpus), is_quiet=True)
    for step in steps:
        run(step, is_quiet=True)
    return folder / "corpus"


@pytest.fixture(scope="session")
def working_corpus(robots_and_hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's corpus for tests that change it, with latents and two manifests."""
    corpus = tmp_path_factory.mktemp("working") / "corpus"
    shutil.copytree(robots_and_hands, corpus)
    run(
        ("latents", "images", str(corpus), "--encoder", "dinov3_tiny", "--untrained", "0"),
        is_quiet=True,
    )
    shares = ("--val=0.34", "--test=0")
    run(("manifest", "build", str(corpus), "first", *shares), is_quiet=True)
    where = "--where=source = 'agibot_world'"
    run(("manifest", "build", str(corpus), "robots", *shares, where), is_quiet=True)
    return corpus


@pytest.fixture(scope="session")
def job_store(tmp_path_factory: pytest.TempPathFactory) -> JobStore:
    return JobStore(tmp_path_factory.mktemp("working-state"))


@pytest.fixture(scope="session")
def working_site(working_corpus: Path, job_store: JobStore) -> Iterator[Site]:
    """A server that runs jobs, as processes of their own."""
    runner = JobRunner(job_store, working_corpus)
    with serving(working_corpus, job_store.folder.parent, runner) as site:
        yield site


@pytest.fixture(scope="session")
def demo_site(robots_and_hands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(robots_and_hands, tmp_path_factory.mktemp("demo-site")) as site:
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
    browser: Browser,
    site: Site,
    path: str,
    size: str = "wide",
    theme: Any = "light",
    without: str = "",
    token: str = TOKEN,
) -> Iterator[Page]:
    """A page of a signed-in user, drawn. At the end nothing has failed in it.

    Args:
        without: addresses that are answered by 404: drawing in space takes seconds where there is no GPU.
        token: of the user.
    """
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, accept_downloads=True
    )
    context.set_default_timeout(DEADLINE_MS)
    context.add_init_script(WATCH)
    page = context.new_page()
    if without:
        page.route(without, lambda route: route.fulfill(status=404, json={}))
    try:
        page.goto(site.login(token))
        page.goto(site.address + path)
        page.wait_for_selector("html[data-ready]")
        yield page
        assert page.evaluate("problems") == []
    finally:
        context.close()
