"""Pictures on the page of `eicorpus report`, and the command that writes it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.corpus.layout import REPORT
from ingest.report import pictures
from ingest.report.style import STYLE
from ingest.verify.corpus import verify
from jobs.cli import app
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import build
from tests.curation.report_cases import Page, assert_inert, page_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real videos, 48 x 32, and a caption of each."""
    return build(tmp_path_factory.mktemp("pictures"))


def images(page: Page) -> Iterator[np.ndarray[Any, Any]]:
    for name, attributes in page.tags:
        if name == "img":
            data = base64.b64decode((attributes["src"] or "").partition(",")[2])
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            yield picture


def test_pictures_are_inside_the_page(toy: Path) -> None:
    found = list(images(page_of(toy)))
    assert len(found) == 4
    # 0.8 s: the least there is, 4 tiles of 160 px in a row
    assert found[0].shape == (107, 4 * 160, 3)


def test_the_budget_bounds_the_page(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = max(len(a["src"] or "") for t, a in page_of(toy).tags if t == "img")
    monkeypatch.setattr(
        pictures.Sheets.__init__, "__kwdefaults__", {"budget_bytes": one, "left_out": 0}
    )
    page = page_of(toy)
    assert len(list(images(page))) == 1
    assert any("3 images are omitted" in text for text in page.texts)


def test_a_video_that_is_gone_says_so(toy: Path, tmp_path: Path) -> None:
    corpus = shutil.copytree(toy, tmp_path / "corpus")
    for video in corpus.glob("datasets/*/*/videos/*/*/*.mp4"):
        video.unlink()
    page = page_of(corpus)
    assert list(images(page)) == []
    assert sum(text.startswith("no picture: ") for text in page.texts) == 4


def test_the_command(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(toy), "--html", str(out), "--json"])
    answer = json.loads(result.stdout)["result"]
    assert answer["num_bytes"] == out.stat().st_size < 20 * 2**20
    assert_inert(out.read_text())
    assert STYLE in out.read_text()


def test_a_report_may_not_lie_just_anywhere_in_the_corpus(toy: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(toy), "--html", str(toy / "mine.html")])
    assert isinstance(result.exception, ConfigError)
    assert not (toy / "mine.html").exists()


def test_the_report_of_a_corpus_is_known_to_verify_and_goes_with_an_erased_episode(
    toy: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(toy, tmp_path / "corpus"))
    assert CliRunner().invoke(app, ["report", str(root)]).exit_code == 0
    assert (root / REPORT).is_file()
    assert [each for each in verify(root) if REPORT in each.path] == []
    with Catalog.open(root) as catalog:
        uid = catalog.sql("SELECT uid FROM episodes ORDER BY uid").to_series()[0]
    assert CliRunner().invoke(app, ["forget", str(root), uid]).exit_code == 0
    assert not (root / REPORT).exists()
