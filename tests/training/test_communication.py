"""What a step sends, by hand: 48 GPUs on six machines, as in the run that the LDA paper describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from tests.training.running import two_ranks
from training.recipe import RunSettings
from training.run.communication import shard_ranks_of, traffic_of
from training.run.parallel import Ranks

GB = 10**9
SIX_BY_EIGHT = Ranks(world_size=48, local_world_size=8)
ONE = Ranks(world_size=8, local_world_size=8)


def of(
    ranks: Ranks, *, num_parts: int = 1, in_blocks: float = 1.0, **run: object
) -> tuple[float, float]:
    """GB within a machine and between machines, of 1.0 B parameters, all in blocks or so many of them."""
    found = traffic_of(
        RunSettings.model_validate(run),
        ranks,
        num_parameters=GB,
        block_parameters=round(in_blocks * GB),
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


def test_weights_outside_of_blocks_are_gathered_once() -> None:
    """0.75 B in blocks in bf16 and twice, 0.25 B in fp32 and once, for each part; then gradients."""
    once = 0.75 * 2 * 2 + 0.25 * 4
    for num_parts in (1, 3):
        found = of(ONE, parallel="fsdp2", in_blocks=0.75, num_parts=num_parts)
        assert found == pytest.approx(((num_parts * once + 4) * 7 / 8, 0.0))


@pytest.mark.slow
def test_two_ranks_send_and_hold_what_is_counted(tmp_path: Path) -> None:
    """A step of two parts by FSDP2, measured. It pads what it sends, by a thousandth here, and rounds a rank's piece."""
    programs = two_ranks("tests.training.gathers_main", tmp_path)
    stderr = [program.communicate(timeout=300)[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], stderr
    for rank in range(2):
        of_cases = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(of_cases) == 4
        for found in of_cases.values():
            assert found.keys() == {"sent", "held", "unreduced", "gathered"}
            for measured, expected in found.values():
                assert measured > 0
                assert expected == pytest.approx(measured, rel=0.005)


def test_groups_divide_the_ranks() -> None:
    assert shard_ranks_of(RunSettings(parallel="hsdp"), SIX_BY_EIGHT) == 8
    assert shard_ranks_of(RunSettings(parallel="hsdp", shard_ranks=4), SIX_BY_EIGHT) == 4
    with pytest.raises(ConfigError, match=r"48 ranks are not divisible into groups of 5"):
        shard_ranks_of(RunSettings(parallel="hsdp", shard_ranks=5), SIX_BY_EIGHT)
