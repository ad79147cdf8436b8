"""`tiny` ends with the weights of the run without the fault, or with a record of what it left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.training_faults import FAULTY, Faults, Outcome
from tests.training.corpus import make

pytestmark = pytest.mark.slow
EXPECTED: dict[str, tuple[Callable[[Faults], Outcome], list[int], str]] = {
    "eio": (Faults.failing_reads, [0], "6 reads failed, 0 samples replaced"),
    "cut": (Faults.unreadable_latent, [0, 0], "samples of that episode"),
    "nan": (Faults.step_that_is_not_finite, [0, 0], f"skipped.jsonl: step {FAULTY}"),
    "lost": (Faults.lost_cache, [0, 0], "the cache is made again"),
    "killed": (Faults.killed_rank, [1, -9, 0, 0], "resumed from step"),
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    folder = tmp_path_factory.mktemp("faults")
    runs = Faults(folder, make(folder / "made"))
    assert runs.command("clean") == 0
    return runs


@pytest.mark.parametrize("name", EXPECTED)
def test_a_fault_is_cured_or_written_down(faults: Faults, name: str) -> None:
    meet, ends, record = EXPECTED[name]
    outcome = meet(faults)
    assert outcome.is_same, outcome
    assert outcome.ends == ends
    assert record in outcome.record
