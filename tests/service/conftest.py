"""Corpora and clients that the tests of the service share."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.curation import lifecycle_corpus
from tests.generators.corpus import WrittenCatalog
from tests.service.corpora import client_of, write_hard_catalog


@pytest.fixture(scope="session")
def hard(tmp_path_factory: pytest.TempPathFactory) -> WrittenCatalog:
    return write_hard_catalog(tmp_path_factory.mktemp("service") / "corpus")


@pytest.fixture(scope="session")
def client(hard: WrittenCatalog, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """Over the catalog of `corpora.py`; it has no files of episodes."""
    return client_of(hard.root, tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes with videos. Not to be changed: copy it."""
    return lifecycle_corpus.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_client(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(toy, tmp_path_factory.mktemp("toy-state"))
