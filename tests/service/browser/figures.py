"""Pictures of the pages for the documentation: `python -m tests.service.browser.figures` writes docs/figures/service-*.png from the demo's corpus."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from ingest.curation.tiers.policy import BUILT_IN, load_policy
from jobs.demo.command import run, steps
from jobs.service.job_runner import JobRunner
from jobs.service.job_store import JobStore
from jobs.service.thresholds import comparisons
from tests.service.browser.conftest import CHROMIUM, opened, serving, uid_from

FIGURES = Path(__file__).parents[3] / "docs" / "figures"
NUM_TRAINING_STEPS = 2  # the last of the demo; no page shows what they make


def build(folder: Path) -> Path:
    """The corpus of `eicorpus demo`, without its training."""
    for step in list(steps(folder))[:-NUM_TRAINING_STEPS]:
        step.prepare()
        for words in step.commands:
            run(words, is_quiet=True)
    corpus = folder / "corpus"
    run(
        ("manifest", "build", str(corpus), "reaching", "--where=source = 'metaworld_hdf5'"),
        is_quiet=True,
    )
    return corpus


def threshold_of(measurement: str) -> str:
    """Its name in an address."""
    policy, _ = load_policy(BUILT_IN)
    named = comparisons(policy).items()
    return next(name for name, (_, _, each) in named if each.measurement == measurement)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = build(Path(folder))
        state = Path(folder) / "state"
        jobs = JobRunner(JobStore(state), corpus)
        with serving(corpus, state, jobs) as site, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            hands = uid_from(site, filter="source:eq:egodex")
            pages: dict[str, tuple[str, Any]] = {
                "overview": ("/", "light"),
                "episodes": ("/episodes?sort=-measurements.acc_rms_m_s2", "light"),
                "episode": (f"/episodes/{hands}?t=7", "dark"),
                "thresholds": (f"/thresholds?at={threshold_of('acc_rms_m_s2')}", "light"),
                "map": ("/map?colour=source", "light"),
                "manifests": ("/manifests?name=first&with=reaching", "light"),
                "jobs": ("/jobs?kind=measure", "dark"),
            }
            for name, (path, theme) in pages.items():
                with opened(browser, site, path, theme=theme) as page:
                    if name == "episodes":
                        page.hover("tbody tr:nth-child(2)")
                        page.wait_for_selector(".contact-sheet img")
                    if name == "jobs":
                        page.click("#submit-job")
                        page.wait_for_selector(".job .state-succeeded")
                    picture = Image.open(io.BytesIO(page.screenshot()))
                    # rare colours stay: a tier may be on few pixels
                    small = picture.convert("RGB").quantize(
                        256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
                    )
                    small.save(FIGURES / f"service-{name}.png", optimize=True)
            browser.close()


if __name__ == "__main__":
    main()
