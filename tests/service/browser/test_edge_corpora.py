"""A corpus without episodes, and one with names that no page is made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.generators.corpus import commit, rows_of
from tests.service.browser.conftest import SIZES, Site, opened, serving, uid_from
from tests.service.browser.test_shell import serious_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

NAMES = ["x" * 200, "ذراع الروبوت يلتقط الكوب", "🤖 lifts the 🥤", "\u202etxt.exe"]


def empty_corpus(root: Path) -> Path:
    root.mkdir()
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "synthetic"}')
    return root


@pytest.fixture(scope="module")
def named_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An episode of each name, without files."""
    folder = tmp_path_factory.mktemp("named")
    root = empty_corpus(folder / "corpus")
    rows = rows_of(len(NAMES))
    for row, name in zip(rows["episodes"], NAMES, strict=True):
        row.update(hours=row["length"] / 36000, episode_id=name, source=name, embodiment=name)
        row.update(tasks=[name], task_counts=[row["length"]])
    commit(root, rows)
    with serving(root, folder / "state") as site:
        yield site


@pytest.mark.parametrize("size", SIZES)
def test_pages_fit_with_long_and_foreign_names(
    chromium: Browser, named_site: Site, size: str
) -> None:
    theme = {"wide": "light", "narrow": "dark"}[size]
    longest = uid_from(named_site, filter=f"source:eq:{NAMES[0]}")
    for path in ("/", "/episodes", f"/episodes/{longest}"):
        with opened(chromium, named_site, path, size, theme, without="**/geometry?*") as page:
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            assert serious_findings(page) == []
            if path == "/episodes":
                heights = page.evaluate(
                    "[...document.querySelectorAll('tbody tr')].map((row) => row.offsetHeight)"
                )
                assert max(heights) < 200


def test_a_corpus_without_episodes_says_what_adds_them(chromium: Browser, tmp_path: Path) -> None:
    with serving(empty_corpus(tmp_path / "corpus"), tmp_path / "state") as site:
        for path in ("/", "/episodes"):
            with opened(chromium, site, path) as page:
                assert "No episode yet." in page.inner_text("main .empty")
                assert serious_findings(page) == []
