"""What several modules of adapter tests read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.registry import ADAPTERS
from jobs.demo.raw import Written, oxe
from tests import generators


@pytest.fixture(scope="module")
def pristine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A download of the source that the module is named after, generated; no test changes it."""
    module = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    source = max((name for name in ADAPTERS if module.startswith(name)), key=len)
    return generators.write(source, tmp_path_factory.mktemp(source))


@pytest.fixture
def root(pristine: Written, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    return Path(shutil.copytree(pristine.root, tmp_path / "raw"))


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A Bridge set as RLDS has it, generated; nobody changes it."""
    return oxe.write(tmp_path_factory.mktemp("oxe"))
