"""Jobs: started from a form, followed to their end, stopped, and found again in the history. The jobs are real processes over a copy of the demo's corpus."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from tests.service.browser.conftest import SIZES, Site, opened, serving
from tests.service.browser.test_shell import serious_findings
from tests.service.corpora import HOSTILE, REVIEWER

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Keeps every event stream that the page opens.
STREAMS = """() => { window.streams = [];
const Real = EventSource;
window.EventSource = class extends Real { constructor(address) { super(address); streams.push(this); } }; }"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> JobStore:
    """With a job that ended long ago, whose problem and log hold a hostile text."""
    store = JobStore(tmp_path_factory.mktemp("jobs-state"))
    request = json.dumps({"kind": "manifest", "name": "old", "where": HOSTILE})
    job, _ = store.submit(key="old", kind="manifest", request=request, now_s=1e9)
    store.log_of(job.id).write_text("".join(f"line {k} {HOSTILE}\n" for k in range(3000)))
    store.claim(job.id, 1e9 + 1)
    store.finish(job.id, state="failed", now_s=1e9 + 61, exit_code=2, problem=HOSTILE)
    return store


@pytest.fixture(scope="module")
def working_site(
    robots_and_hands: Path, store: JobStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The demo's corpus under a server that runs jobs."""
    corpus = tmp_path_factory.mktemp("working") / "corpus"
    shutil.copytree(robots_and_hands, corpus)
    with serving(corpus, store.folder.parent, JobRunner(store, corpus)) as site:
        yield site


def wait_for_state(page: Page, state: str) -> None:
    page.wait_for_selector(f"html[data-job$=' {state}']")


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_axe_finds_nothing_serious(
    chromium: Browser, working_site: Site, size: str
) -> None:
    theme = {"wide": "light", "narrow": "dark"}[size]
    with opened(chromium, working_site, "/jobs?job=1&kind=measure", size, theme) as page:
        wait_for_state(page, "failed")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_findings(page) == []
        other = {"light": "dark", "dark": "light"}[theme]
        page.emulate_media(color_scheme=other)  # type: ignore[arg-type]
        assert [each for each in serious_findings(page) if each.startswith("color")] == []


def test_a_finished_job_keeps_its_log_and_texts_stay_text(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, "/jobs?job=1") as page:
        wait_for_state(page, "failed")
        log = page.inner_text(".log >> nth=0")
        assert log.startswith("… 1,000 earlier lines")
        assert "line 2999" in log
        assert HOSTILE[:28] in page.inner_text(".job .failure")
        assert page.locator("img, main script").count() == 0


def test_a_job_is_started_by_keyboard_and_followed_to_its_end(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, "/jobs") as page:
        page.evaluate(STREAMS)
        kinds = page.locator("#job-kind option").all_inner_texts()
        assert "tier" in kinds
        assert not {"build", "plan"} & set(kinds)  # the server has no spec
        page.keyboard.press("n")
        page.keyboard.type("tier")
        page.wait_for_selector(".job-options select")
        page.focus("#submit-job")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs?job=*")
        wait_for_state(page, "succeeded")
        assert "policy" in page.inner_text(".facts-list")
        assert "succeeded" in page.inner_text("[role=status].visually-hidden")
        # or the browser opens it again and again
        assert page.evaluate("streams.map((each) => each.readyState)") == [2]


def test_a_job_is_followed_where_no_stream_can_be_opened(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, "/jobs") as page:
        page.route("**/events", lambda route: route.fulfill(status=503, json={}))
        page.select_option("#job-kind", "verify")
        page.check(".tick-field input")
        page.click("#submit-job")
        wait_for_state(page, "succeeded")
        assert "deep=true" in page.inner_text(".job-head")


def test_a_waiting_job_is_cancelled(chromium: Browser, working_site: Site, store: JobStore) -> None:
    """Another job is claimed by nobody's process but by the test, so the queue stands still."""
    blocker, _ = store.submit(
        key="blocker", kind="dedup", request='{"kind":"dedup"}', now_s=time.time()
    )
    with store.holding(blocker.id) as lock:
        assert lock is not None
        store.claim(blocker.id, time.time())
        with opened(chromium, working_site, "/jobs?kind=report") as page:
            page.click("#submit-job")
            wait_for_state(page, "queued")
            page.click("#cancel-job")
            wait_for_state(page, "cancelled")
            assert page.locator("#cancel-job").count() == 0
        store.finish(blocker.id, state="cancelled", now_s=time.time())


def test_an_option_that_does_not_fit_is_refused_in_the_form(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, "/jobs?kind=manifest&where=nonsense&name=ok") as page:
        name = page.locator(".job-options input >> nth=0")
        assert name.input_value() == "ok"
        assert page.locator(".job-options input >> nth=1").input_value() == "nonsense"
        name.fill("../up")
        page.click("#submit-job")
        assert "does not match" in name.evaluate("(input) => input.validationMessage")
        assert page.evaluate("new URLSearchParams(location.search).get('job')") is None


def test_the_history_has_pages(chromium: Browser, working_site: Site, store: JobStore) -> None:
    for number in range(30):
        job, _ = store.submit(
            key=f"many-{number}", kind="dedup", request='{"kind":"dedup"}', now_s=2e9
        )
        store.cancel(job.id, 2e9)
    with opened(chromium, working_site, "/jobs") as page:
        first = page.locator("tbody a").all_inner_texts()
        drawn = page.evaluate("document.documentElement.dataset.drawn")
        page.click("#older-jobs")
        page.wait_for_selector(f"html:not([data-drawn='{drawn}'])")
        second = page.locator("tbody a").all_inner_texts()
        assert "before=" in page.url
        assert not set(first) & set(second)
        assert any("1 manifest" in text for text in second)
        page.go_back()
        page.wait_for_function(
            "(text) => document.querySelector('tbody a').innerText === text", arg=first[0]
        )


def test_a_server_without_jobs_says_so(chromium: Browser, demo_site: Site) -> None:
    with opened(chromium, demo_site, "/jobs") as page:
        assert "takes no jobs" in page.inner_text("main")
        assert page.locator("#submit-job").count() == 0


def test_a_role_that_may_not_start_jobs_is_offered_none(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, "/jobs?job=1", token=REVIEWER) as page:
        wait_for_state(page, "failed")
        assert page.locator("tbody a").count() > 0
        assert page.locator("form, #cancel-job").count() == 0
