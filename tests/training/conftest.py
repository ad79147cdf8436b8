"""One corpus for all tests of training; made once in each test process."""

from __future__ import annotations

import pytest
import torch

from schemas.manifest import Manifest, load
from tests.training.corpus import Trainable, make


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    """Read it only; `trainable.copied(tmp_path / "corpus")` is yours."""
    return make(tmp_path_factory.mktemp("trainable"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors here are tiny: threads that wait for each other, beside other test processes, took ten times as long."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def manifest(trainable: Trainable) -> Manifest:
    """Of that corpus, with latents for every row."""
    return load(trainable.manifest)
