"""What a step sends, by hand: 48 GPUs on six machines, as in the run that the LDA paper describes."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from training.recipe import RunSettings
from training.run.communication import shard_ranks_of, traffic_of
from training.run.parallel import Ranks

GB = 10**9
SIX_BY_EIGHT = Ranks(world_size=48, local_world_size=8)
ONE = Ranks(world_size=8, local_world_size=8)


def of(ranks: Ranks, *, num_parts: int = 1, **run: object) -> tuple[float, float]:
    """GB within a machine and between machines, of 1.0 B parameters in blocks."""
    found = traffic_of(
        RunSettings.model_validate(run),
        ranks,
        num_parameters=GB,
        block_parameters=GB,
        num_parts=num_parts,
    )
    return found.within_machine / GB, found.between_machines / GB


def test_sharding_in_a_machine_sends_a_tenth_between_machines() -> None:
    """A full shard gathers 2 B twice and reduces 4 B of each parameter over all ranks; a hybrid one does so in its machine and all-reduces an eighth."""
    assert of(SIX_BY_EIGHT, parallel="fsdp2") == pytest.approx((0.0, 8 * 47 / 48))
    assert of(SIX_BY_EIGHT, parallel="hsdp") == pytest.approx((8 * 7 / 8, 8 / 8 * 5 / 6))
    assert of(SIX_BY_EIGHT, parallel="ddp") == pytest.approx((0.0, 8 * 47 / 48))
    assert of(ONE, parallel="fsdp2") == pytest.approx((8 * 7 / 8, 0.0))
    assert of(Ranks(), parallel="hsdp") == (0.0, 0.0)


def test_parts_gather_again_and_reduce_once() -> None:
    assert of(ONE, parallel="fsdp2", num_parts=3)[0] == pytest.approx((3 * 4 + 4) * 7 / 8)
    assert of(ONE, parallel="fsdp2", precision="fp32")[0] == pytest.approx(12 * 7 / 8)
    assert of(ONE, parallel="ddp", num_parts=3)[0] == pytest.approx(8 * 7 / 8)


def test_groups_divide_the_ranks() -> None:
    assert shard_ranks_of(RunSettings(parallel="hsdp"), SIX_BY_EIGHT) == 8
    assert shard_ranks_of(RunSettings(parallel="hsdp", shard_ranks=4), SIX_BY_EIGHT) == 4
    with pytest.raises(ConfigError, match=r"48 ranks are not divisible into groups of 5"):
        shard_ranks_of(RunSettings(parallel="hsdp", shard_ranks=5), SIX_BY_EIGHT)
