"""Pictures of the pages for the documentation: `python -m tests.service.browser.figures` writes docs/figures/service-*.png from the demo's corpus."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from jobs.demo.command import run, steps
from tests.service.browser.conftest import CHROMIUM, opened, serving, uid_from

FIGURES = Path(__file__).parents[3] / "docs" / "figures"
NUM_TRAINING_STEPS = 2  # the last of the demo; no page shows what they make


def build(folder: Path) -> Path:
    """The corpus of `eicorpus demo`, without its training."""
    for step in list(steps(folder))[:-NUM_TRAINING_STEPS]:
        step.prepare()
        for words in step.commands:
            run(words, is_quiet=True)
    return folder / "corpus"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = build(Path(folder))
        with serving(corpus, Path(folder) / "state") as site, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            hands = uid_from(site, filter="source:eq:egodex")
            pages: dict[str, tuple[str, Any]] = {
                "overview": ("/", "light"),
                "episodes": ("/episodes?sort=-measurements.acc_rms_m_s2", "light"),
                "episode": (f"/episodes/{hands}?t=7", "dark"),
                "thresholds": ("/thresholds", "light"),
            }
            for name, (path, theme) in pages.items():
                with opened(browser, site, path, theme=theme) as page:
                    if name == "episodes":
                        page.hover("tbody tr:nth-child(2)")
                        page.wait_for_selector(".contact-sheet img")
                    picture = Image.open(io.BytesIO(page.screenshot()))
                    # rare colours stay: a tier may be on few pixels
                    small = picture.convert("RGB").quantize(
                        256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
                    )
                    small.save(FIGURES / f"service-{name}.png", optimize=True)
            browser.close()


if __name__ == "__main__":
    main()
