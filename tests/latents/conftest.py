"""One corpus for all tests of a process; each works on a copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ingest.models.encoder import ImageEncoder
from tests.latents.corpora import TINY, build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Two that wait for each other on a busy machine take ten times as long for so little."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("latents"))


@pytest.fixture
def corpus(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "corpus"))


@pytest.fixture(scope="session")
def tiny() -> ImageEncoder:
    return ImageEncoder.open(TINY)
