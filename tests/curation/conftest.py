"""What several modules of curation tests take apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    """A copy to change of the corpus that the module has `made`."""
    return shutil.copytree(made, tmp_path / "corpus")
