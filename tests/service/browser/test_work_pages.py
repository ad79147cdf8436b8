"""Jobs, manifests and what the cart becomes. Jobs are started from a form, followed to their end, stopped, and found again; they are real processes over a copy of the demo's corpus."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.corpus import reviews
from ingest.corpus.layout import CorpusLayout
from jobs.demo.command import run
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from schemas.manifest import load
from schemas.review import ReviewKind
from tests.service.browser.conftest import SIZES, Site, opened, serving, uid_from
from tests.service.browser.test_episodes_page import uids_of
from tests.service.browser.test_shell import serious_findings
from tests.service.corpora import HOLDERS, HOSTILE, REVIEWER

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# Keeps every event stream that the page opens.
STREAMS = """() => { window.streams = [];
const Real = EventSource;
window.EventSource = class extends Real { constructor(address) { super(address); streams.push(this); } }; }"""


@pytest.fixture(scope="module", autouse=True)
def store(job_store: JobStore) -> JobStore:
    """With a job that ended long ago, whose problem and log hold a hostile text."""
    request = json.dumps({"kind": "manifest", "name": "old", "where": HOSTILE})
    job, _ = job_store.submit(key="old", kind="manifest", request=request, now_s=1e9)
    job_store.log_of(job.id).write_text("".join(f"line {k} {HOSTILE}\n" for k in range(3000)))
    job_store.claim(job.id, 1e9 + 1)
    job_store.finish(job.id, state="failed", now_s=1e9 + 61, exit_code=2, problem=HOSTILE)
    return job_store


JOB_DEADLINE_MS = 180_000
ENDED = ("succeeded", "failed", "cancelled", "interrupted")


def wait_for_state(page: Page, state: str) -> None:
    # a job is a process that imports all of a command, on a machine that runs other tests too
    ends = {*ENDED, state}
    selector = ", ".join(f"html[data-job$=' {each}']" for each in sorted(ends))
    page.wait_for_selector(selector, timeout=JOB_DEADLINE_MS)
    reached = page.get_attribute("html", "data-job") or ""
    assert reached.endswith(f" {state}"), page.inner_text(".job")


PAGES = {
    "job": "/jobs?job=1&kind=measure",
    "manifest": "/manifests?name=first",
    "difference": "/manifests?name=robots&with=first",
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_it_fits_and_axe_finds_nothing_serious(
    chromium: Browser, working_site: Site, name: str, size: str
) -> None:
    theme = {"wide": "light", "narrow": "dark"}[size]
    with opened(chromium, working_site, PAGES[name], size, theme) as page:
        if name == "job":
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
    """The test itself claims another job, so the queue stands still."""
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
            page.click("#run-again")
            page.wait_for_selector("html[data-job$=' queued']")
            page.click("#cancel-job")
            wait_for_state(page, "cancelled")
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
        assert page.locator("form, #cancel-job, #run-again").count() == 0


def test_a_manifest_is_opened_and_compared_by_keyboard(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, "/manifests") as page:
        names = page.locator("tbody a").all_inner_texts()  # other tests build manifests too
        for _ in range(names.index("robots") + 1):
            page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_selector(".manifest h2:text-is('robots')")
        assert "agibot_world" in page.inner_text("[aria-label='Hours by source']")
        assert "left.delta_position_m.x" in page.inner_text("text=Element >> xpath=ancestor::table")
        page.select_option("#compare-with", "first")
        page.wait_for_selector("[aria-label='Changes by reason']")
        assert "excluded by --where" in page.inner_text("[aria-label='Changes by reason']")
        address = page.url
    with opened(chromium, working_site, address.removeprefix(working_site.address)) as page:
        links = page.locator(".difference tbody a")
        assert links.count() > 0
        assert (links.first.get_attribute("href") or "").startswith("/episodes/")


def test_a_manifest_that_is_not_there_is_named(chromium: Browser, working_site: Site) -> None:
    with opened(chromium, working_site, "/manifests?name=%3Cimg%20src%3Dx%3E") as page:
        assert "no manifest" in page.inner_text("[role=alert]")
        assert page.locator("main img").count() == 0


ROBOTS = "/episodes?filter=source%3Aeq%3Aagibot_world"


def fill_cart(page: Page) -> list[str]:
    """Everything that matches is in the cart, and its dialog is open. The uids."""
    rows = uids_of(page)
    page.click("#add-all")
    page.wait_for_selector(f"#cart-count:text-is('{len(rows)}')")
    page.click("#cart-button")
    return rows


def test_the_cart_becomes_a_manifest_that_training_reads(
    chromium: Browser, working_site: Site, working_corpus: Path, tmp_path: Path
) -> None:
    with opened(chromium, working_site, ROBOTS) as page:
        rows = fill_cart(page)
        assert serious_findings(page) == []
        page.fill("#manifest-name", "chosen")
        page.press("#manifest-name", "Enter")
        page.click("dialog a:text-matches('Job [0-9]+')")
        wait_for_state(page, "succeeded")
        assert page.get_attribute("a:text('Manifest chosen')", "href") == "/manifests?name=chosen"
    folder = working_corpus / "manifests" / "chosen"
    assert sorted(set(load(folder).rows["uid"].to_pylist())) == sorted(rows)
    run(("train", str(folder), "--out", str(tmp_path / "run"), "--dry-run"), is_quiet=True)


def test_the_cart_becomes_a_review_of_each_episode(
    chromium: Browser, working_site: Site, working_corpus: Path
) -> None:
    with opened(chromium, working_site, ROBOTS, "narrow", token=REVIEWER) as page:
        rows = fill_cart(page)
        assert page.locator("#manifest-name").count() == 0
        page.select_option("#review-kind", "note")
        page.fill("[aria-label='Text of the review']", HOSTILE)
        for _ in range(2):  # what is sent again is stored once
            page.click("dialog button:text-is('Save')")
            page.wait_for_selector("text=3 of 3 reviews are stored.")
    stored = reviews.read(CorpusLayout(working_corpus))
    notes = [each.review for each in stored if each.review.kind == ReviewKind.NOTE]
    assert sorted(each.uid for each in notes) == sorted(rows)
    assert {(each.value, each.author) for each in notes} == {(HOSTILE, HOLDERS[REVIEWER].name)}


def test_more_than_the_cart_takes_is_refused_with_a_manifest_instead(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, ROBOTS) as page:
        answer = page.request.get(f"{working_site.address}/api/v1/episodes").json()
        page.route(
            "**/api/v1/episodes?*", lambda route: route.fulfill(json={**answer, "total": 10_001})
        )
        page.reload()
        page.click("#add-all")
        assert "the cart takes 10,000" in page.inner_text("dialog [role=alert]")
        page.click("dialog a")
        page.wait_for_url("**/jobs?kind=manifest*")
        where = page.locator(".job-options input >> nth=1").input_value()
        assert where == "(source = 'agibot_world')"


def test_a_cart_that_the_browser_cannot_store_says_so(
    chromium: Browser, working_site: Site
) -> None:
    with opened(chromium, working_site, ROBOTS) as page:
        page.evaluate(
            "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
        )
        fill_cart(page)
        assert "no room to store the cart" in page.inner_text("dialog")


def test_moved_thresholds_become_a_policy_that_a_job_takes(
    chromium: Browser, robots_and_hands: Path, tmp_path: Path
) -> None:
    """On a copy: the policy excludes everything, and other tests build manifests."""
    corpus = tmp_path / "corpus"
    shutil.copytree(robots_and_hands, corpus)
    store = JobStore(tmp_path / "state")
    with (
        serving(corpus, tmp_path / "state", JobRunner(store, corpus)) as site,
        opened(chromium, site, "/thresholds") as page,
    ):
        assert page.is_hidden("#policy-name")
        page.fill("#threshold-value", "-1")
        page.press("#threshold-value", "Enter")
        page.fill("#policy-name", "stricter")
        page.fill("#policy-note", HOSTILE[:40])
        page.press("#policy-note", "Enter")
        page.click("text=Compute tiers with it")
        page.wait_for_url("**/jobs?kind=tier&policy=stricter")
        page.wait_for_selector("#submit-job")
        assert page.input_value(".job-options select") == "stricter"
        page.click("#submit-job")
        wait_for_state(page, "succeeded")
        assert "stricter" in page.inner_text(".facts-list")


DRAWN = """() => [...document.querySelectorAll("canvas.latents")].map((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 8, canvas.width, 1);
    return new Set(Array.from({ length: canvas.width }, (_, x) => data.slice(4 * x, 4 * x + 4).join(" "))).size; })"""


def test_latents_are_a_lane_of_colours_for_each_camera(
    chromium: Browser, working_site: Site, demo_site: Site
) -> None:
    robot = f"/episodes/{uid_from(working_site, filter='source:eq:agibot_world')}"
    with opened(chromium, working_site, robot, without="**/geometry") as page:
        page.wait_for_function(f"Math.min(...({DRAWN})()) > 2")
        cameras = page.locator("figure[data-camera]").count()
        lanes = page.locator("canvas.latents")
        assert {"hand_left", "head"} == {
            text.split(",")[0] for text in page.locator(".lane-camera").all_inner_texts()
        }
        assert lanes.count() == cameras > 1
        assert "The largest change" in (lanes.first.get_attribute("aria-label") or "")
        assert serious_findings(page) == []
    with opened(chromium, demo_site, robot, without="**/geometry") as page:
        assert page.locator(".tracks").count() == 1
        assert page.locator("canvas.latents").count() == 0
    with opened(chromium, working_site, robot, "narrow", without="**/episodes/*/latents*") as page:
        assert "No latents" in page.inner_text(".tracks")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
