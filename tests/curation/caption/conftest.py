"""The corpus of the tests of captions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingest.corpus.layout import CorpusLayout, open_corpus
from jobs.demo.raw import egodex
from tests.faults.runs import run as ingest


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated hands: `NUM` episodes, each with one text. Nobody changes it."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("corpus")
    written = egodex.write(raw)
    ingest(written.root, out, source="egodex", options=dict(written.options))
    return out


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> CorpusLayout:
    """A copy to caption."""
    shutil.copytree(made, tmp_path / "corpus")
    return open_corpus(tmp_path / "corpus")
