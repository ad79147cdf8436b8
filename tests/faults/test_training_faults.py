"""`tiny` ends with the weights of the run without the fault, or with a record of what it left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from typer.testing import CliRunner

from jobs.cli import app
from tests.faults.training_faults import FAULTY, Faults, Outcome
from tests.training.corpus import make
from training.policy.policy import Policy, PolicySettings
from training.run.checkpoint import checkpoint_of

pytestmark = pytest.mark.slow
EXPECTED: dict[str, tuple[Callable[[Faults], Outcome], list[int], str]] = {
    "eio": (Faults.failing_reads, [0], "6 reads failed, 0 samples replaced"),
    "cut": (Faults.unreadable_latent, [0, 0], "samples of that episode"),
    "nan": (Faults.step_that_is_not_finite, [0, 0], f"skipped.jsonl: step {FAULTY}"),
    "lost": (Faults.lost_cache, [0, 0], "the cache is made again"),
    "killed": (Faults.killed_rank, [1, -9, 0, 0], "resumed from step"),
    "loader": (Faults.killed_loader, [0], "restarts of the loader: 1"),
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


def test_what_two_ranks_wrote_in_parts_is_served_and_evaluated(faults: Faults) -> None:
    assert faults.by_two_ranks("served") == [0, 0]
    run = faults.folder / "served"
    assert checkpoint_of(run).is_sharded
    raw, averaged = (
        Policy.load(run, settings=PolicySettings(use_averages=ema), device="cpu")
        for ema in (False, True)
    )
    pairs = zip(raw.learner.parameters(), averaged.learner.parameters(), strict=True)
    assert any(not torch.equal(one, two) for one, two in pairs)
    words = ["eval", str(run), "--ema", "--max-samples", "4", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, words, standalone_mode=False)
    assert done.exception is None, done.exception
