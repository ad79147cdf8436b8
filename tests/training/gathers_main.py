"""One of two ranks that FSDP2 shares weights over: `python -m tests.training.gathers_main RANK WORLD_SIZE PORT FOLDER`.

FOLDER/RANK.json has, by way of sharing and precision, bytes that a rank sent in a step of two parts, bytes of gradients that it held before the second,
and of whole weights that it had when the first forward pass was over; beside each what is expected before the first step.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from tests.training.running import CPU, batches, recipe, shared_by, trainer
from training.run import trainer as trainers
from training.run.build import trained_and_in_turn
from training.run.communication import traffic_of
from training.run.memory import Footprint, memory_of
from training.run.parallel import Ranks, gradients_between_parts, joined
from training.run.trainer import Trainer

CASES = [(how, precision) for how in ("fsdp2", "hsdp 1x2") for precision in ("fp32", "bf16")]

# By the names of torch before and since 2.13: of how much of its result a rank of so many sends, in a ring.
COLLECTIVES: dict[str, Callable[[int], float]] = {
    "all_gather_into_tensor": lambda n: (n - 1) / n,
    "all_gather_single": lambda n: (n - 1) / n,
    "reduce_scatter_tensor": lambda n: n - 1,
    "reduce_scatter_single": lambda n: n - 1,
}


@contextmanager
def counted_sends(world_size: int) -> Iterator[list[int]]:
    """Bytes of each collective of FSDP2 that a rank sends in a ring."""
    sent: list[int] = []

    def counted(work: Callable[..., Any], pieces: float) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            output: Tensor = given[0] if given else more.get("output", more.get("output_tensor"))
            sent.append(round(output.nbytes * pieces))
            return work(*given, **more)

        return call

    with ExitStack() as stack:
        for name, pieces in COLLECTIVES.items():
            if hasattr(dist, name):
                call = counted(getattr(dist, name), pieces(world_size))
                stack.enter_context(patch.object(dist, name, call))
        yield sent


def held_gradients(model: torch.nn.Module) -> int:
    """Bytes that FSDP2 keeps of gradients that are not reduced. torch has no public name for them."""
    sizes = []
    for module in model.modules():
        group = module._get_fsdp_state()._fsdp_param_group if isinstance(module, FSDPModule) else None  # fmt: skip
        for each in [] if group is None else group.fsdp_params:
            whole = getattr(each, "_unsharded_param", None)
            found = (each.unsharded_accumulated_grad, None if whole is None else whole.grad)
            sizes += [x.nbytes for x in found if x is not None]
    return sum(sizes)


def whole_weights(made: Trainer) -> int:
    """Bytes of parameters that are no pieces now."""
    return sum(p.nbytes for p in made.model.parameters() if p.requires_grad and not isinstance(p, DTensor))  # fmt: skip


def of_a_step(how: str, precision: str, ranks: Ranks) -> dict[str, tuple[int, int]]:
    """(counted in a step, expected) of each figure."""
    made = trainer(recipe(**shared_by(how), accumulate=2, precision=precision), ranks=ranks)
    num_parameters, in_turn = trained_and_in_turn(made.learner)
    run = made.recipe.run
    expected = traffic_of(
        run, ranks, num_parameters=num_parameters, block_parameters=sum(in_turn), num_parts=2
    )
    memory = memory_of(
        Footprint(block=0, stream=0, rest=0, batch=0), made.recipe, num_layers=len(in_turn),
        num_parameters=num_parameters, block_parameters=0,
        root_parameters=num_parameters - sum(in_turn), world_size=ranks.world_size, num_parts=2,
    )  # fmt: skip
    made.step(next(batches(0, ranks)), 0)
    held, whole = list[int](), list[int]()
    no_sync = trainers.no_sync

    @contextmanager
    def watched(model: torch.nn.Module, *, is_last: bool) -> Iterator[None]:
        with no_sync(model, is_last=is_last):
            yield
        held.append(held_gradients(model))

    hook = made.model.register_forward_hook(lambda *_: whole.append(whole_weights(made)))
    with counted_sends(ranks.world_size) as sent, patch.object(trainers, "no_sync", watched):
        made.step(next(batches(1, ranks)), 1)
    hook.remove()
    own = 4 * num_parameters // ranks.world_size  # of the whole gradients, which `state` has
    assert held[1] == 0
    return {
        "sent": (sum(sent), expected.within_machine),
        "held": (held[0], gradients_between_parts(made.model)),
        "unreduced": (held[0] - own, memory.unreduced),
        "gathered": (whole[0], memory.gathered),
    }


def main() -> None:
    rank, world_size, port, folder = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    size = int(world_size)
    ranks = Ranks(rank=int(rank), world_size=size, local_rank=int(rank), local_world_size=size)
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        found = {" ".join(case): of_a_step(*case, ranks) for case in CASES}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
