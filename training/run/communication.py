"""What a step sends between ranks: counted by the sizes of parameters, for rings, before the first step. Nothing of it was measured.

| `run.parallel` | within a machine | between machines |
|---|---|---|
| `ddp` | one all-reduce of gradients over all ranks | the same ring crosses machines |
| `fsdp2` | weights of blocks gathered twice a part and all others once, gradients reduced and scattered, over all ranks | the same ring |
| `hsdp` | the same, within a group of `run.shard_ranks` | an all-reduce of each rank's piece of the gradients |
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import ConfigError
from training.recipe import RunSettings
from training.run.parallel import Ranks

_GRADIENT = 4  # bytes: gradients are reduced in fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes that a rank sends in a step, by where they go. shard_ranks: of how many ranks each has a piece; copies: of the weights, on how many groups of ranks."""

    within_machine: int
    between_machines: int
    shard_ranks: int
    copies: int

    def as_object(self) -> dict[str, int]:
        """For `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def shard_ranks_of(run: RunSettings, ranks: Ranks) -> int:
    """How many ranks share one copy of the weights.

    Raises:
        ConfigError: that does not divide all ranks.
    """
    if run.parallel == "ddp" or ranks.is_alone:
        return 1
    if run.parallel == "fsdp2":
        return ranks.world_size
    size = run.shard_ranks or min(ranks.local_world_size, ranks.world_size)
    if ranks.world_size % size:
        problem = f"{ranks.world_size} ranks are not divisible into groups of {size}"
        repair = "set run.shard_ranks to a divisor of the number of ranks"
        raise ConfigError(problem, remedy=repair, where="recipe key run.shard_ranks")
    return size


def traffic_of(
    run: RunSettings, ranks: Ranks, *, num_parameters: int, block_parameters: int, num_parts: int
) -> Traffic:
    """
    Args:
        num_parameters: that are trained. block_parameters: of all that is gathered in turn, in the precision of computing; the rest is in fp32.
    """
    shard = shard_ranks_of(run, ranks)
    copies = ranks.world_size // shard
    cast = 2 if run.precision == "bf16" else 4
    # of blocks forwards and backwards; what is outside of them stays from one to the other
    gathered = 2 * cast * block_parameters + 4 * (num_parameters - block_parameters)
    # a ring sends all but one's own piece
    inner = (num_parts * gathered + _GRADIENT * num_parameters) * (shard - 1) // shard
    outer = 2 * _GRADIENT * num_parameters // shard * (copies - 1) // copies
    on_one = ranks.local_world_size
    crosses = {"inner": shard > on_one, "outer": ranks.world_size > on_one}
    between = inner * crosses["inner"] + outer * crosses["outer"]
    return Traffic(
        within_machine=inner + outer - between,
        between_machines=between,
        shard_ranks=shard,
        copies=copies,
    )
