"""One rank of a test of several: `python -m tests.training.ranks_main RANK WORLD_SIZE PORT FOLDER`. Steps by DDP, then by FSDP2."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils import _pytree as pytree

from schemas.errors import ConfigError
from tests.training.running import CPU, batches, learner, recipe, snapshot_of, trainer
from training.run.checkpoint import checkpoint_of, write
from training.run.parallel import (
    Ranks,
    asked_by_any,
    joined,
    rows_of_all,
    sum_over,
    together,
    whole,
)
from training.run.restore import restore

NUM_STEPS, NUM_BEFORE = 3, 2  # steps in all, and before the checkpoint


def steps(how: str, ranks: Ranks, folder: Path) -> None:
    """Weights, averages and norms after NUM_STEPS, of which the last comes after going through a checkpoint."""
    with_recipe = recipe(parallel=how, accumulate=2, num_draws=2, optimiser={"ema": 0.5})
    made = trainer(with_recipe, ranks=ranks)
    given = batches(0, ranks)
    norms = [made.step(next(given), step).gradient_norm for step in range(NUM_BEFORE)]
    kept = snapshot_of(made, NUM_BEFORE)
    if kept is not None:
        write(folder / how / "checkpoints", kept, keep=1)
    sum_over(torch.zeros(1), ranks)  # the others wait for the file
    made = trainer(with_recipe, ranks=ranks, made=learner(seed=9))
    restore(made.learner, made.optimiser, made.averages, checkpoint_of(folder / how))
    norms += [made.step(next(given), step).gradient_norm for step in range(NUM_BEFORE, NUM_STEPS)]
    assert made.averages is not None
    found = {name: whole(p).clone() for name, p in made.learner.named_parameters()}
    found |= {f"average.{name}": whole(p).clone() for name, p in made.averages.values.items()}
    if ranks.is_first:
        save_file(found | {"norms": torch.tensor(norms)}, folder / f"{how}.safetensors")


def step_in_bf16(ranks: Ranks) -> torch.Tensor:
    """[4] mean errors of a step by FSDP2, where there are several ranks; the network is given what the batch has, a block the stream of tokens, neither rounded."""
    made = trainer(recipe(parallel="fsdp2", precision="bf16"), ranks=ranks)
    network, given = made.learner.network, list[torch.Tensor]()
    network.register_forward_pre_hook(lambda _, them: given.extend(tensors_of(them)))
    network.blocks[0].register_forward_pre_hook(lambda _, them: given.extend(tensors_of(them[:2])))
    stepped = made.step(next(batches(0, ranks)), 0)
    assert {x.dtype for x in given} == {torch.float32, torch.bool}
    return stepped.sums / stepped.counts


def tensors_of(them: tuple[object, ...]) -> list[torch.Tensor]:
    return [x for x in pytree.tree_leaves(them) if isinstance(x, torch.Tensor)]


def is_refused_together(ranks: Ranks) -> bool:
    """The second of two is: both know, and neither waits for the other."""
    try:
        with together(ranks):
            if not ranks.is_first:
                raise ConfigError("no checkpoint of step 2", where="ä")  # more bytes than letters
    except ConfigError as error:
        return str(error).endswith("ä: no checkpoint of step 2")
    return False


def main() -> None:
    rank, world_size, port, folder = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = Ranks(rank=int(rank), world_size=int(world_size))
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        assert rows_of_all(torch.tensor([[ranks.rank]]), ranks).tolist() == [[0], [1]]
        assert asked_by_any(ranks, ranks.rank == 1, False) == [True, False]
        for how in ("ddp", "fsdp2"):
            steps(how, ranks, Path(folder))
        half = step_in_bf16(ranks)
        if ranks.is_first:
            save_file({"bf16": half}, Path(folder) / "bf16.safetensors")
        assert is_refused_together(ranks)


if __name__ == "__main__":
    main()
