"""Two processes do what one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from schemas.errors import ConfigError
from tests.training.ranks_main import NUM_STEPS, step_in_bf16, steps
from tests.training.running import HYBRIDS, free_port, global_batch, two_ranks
from training.run.micro_batch import parts
from training.run.parallel import Ranks, device_for


@pytest.mark.slow
def test_two_ranks_are_one_by_ddp_and_by_fsdp2(tmp_path: Path) -> None:
    """Weights and averages after some steps and one checkpoint, which both write whole; different counts of tasks on each rank.

    Held-out losses between steps are those of one process. The ranks leave the group without a thread of it, also after an error.
    """
    programs = two_ranks("tests.training.ranks_main", free_port(), tmp_path)
    (tmp_path / "alone").mkdir()
    steps("ddp", Ranks(), tmp_path / "alone")
    told = [program.communicate(timeout=300)[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], told
    one = load_file(tmp_path / "alone/ddp.safetensors")
    assert len(one["norms"]) == NUM_STEPS
    for how in ("ddp", "fsdp2", *HYBRIDS):
        two = load_file(tmp_path / f"{how}.safetensors")
        assert two.keys() == one.keys()
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=f"{how} {name}")
    half = load_file(tmp_path / "bf16.safetensors")["bf16"]
    torch.testing.assert_close(half, step_in_bf16(Ranks()), rtol=1e-3, atol=0)


def test_shares_differ_in_what_they_score() -> None:
    """Else the test above could not tell sums from means of means."""
    counts = [
        torch.bincount(part.known.task, minlength=4).tolist() for part in parts(global_batch(0), 2)
    ]
    assert counts == [[3, 1, 0, 0], [1, 0, 1, 2]]


def test_a_device_that_is_not_there_is_refused() -> None:
    assert device_for(Ranks(), "cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="no device 'abacus'"):
        device_for(Ranks(), "abacus")
