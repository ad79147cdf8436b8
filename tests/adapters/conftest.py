"""What several modules of adapter tests read."""

from __future__ import annotations

import pytest

from jobs.demo.raw import Written, oxe


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A Bridge set as RLDS has it, generated; nobody changes it."""
    return oxe.write(tmp_path_factory.mktemp("oxe"))
