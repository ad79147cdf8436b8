"""One of two ranks that try how many samples fit: `python -m tests.training.parts_main RANK WORLD_SIZE PORT FOLDER`.

FOLDER/RANK.json has, by way of sharing, the sizes that were tried and the parts that were chosen; FOLDER/<how>.safetensors the weights after a step.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from tests.training.running import CPU, batches, recipe, shared_by, trainer
from training.batch import Batch
from training.run.memory import USABLE, bytes_of
from training.run.optimiser import kept, trained
from training.run.parallel import Ranks, full_tensor, joined, own_shard
from training.run.session import Session

PARALLEL = ("ddp", "fsdp2")
BASE, EACH = 10**6, (10**6, 10**5)  # bytes of either rank, and of each of its samples
DEVICE = (10**9, BASE + 25 * 10**5)  # either alone would take its four samples at once


def tried(how: str, ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Trials are real: each is a forward and backward pass, in which ranks that tried other sizes would wait for each other."""
    made = trainer(recipe(**shared_by(how), accumulate="auto"), ranks=ranks)
    batch, sizes = next(batches(0, ranks)), list[int]()
    session: Any = SimpleNamespace(
        loader=SimpleNamespace(batch=lambda step: batch),
        device=CPU,
        ranks=ranks,
        learner=made.learner,
    )
    weights = sum(own_shard(p.detach()).nbytes for p in trained(made.learner).values())
    later = 2 * weights + bytes_of(batch)

    def peak_of(some: Batch) -> int:
        made.rehearse(some)
        sizes.append(len(some.known.task))
        return BASE + EACH[ranks.rank] * sizes[-1]

    device_bytes = round((DEVICE[ranks.rank] + later) / USABLE)
    chosen = Session.tried(session, made, peak_of, lambda: BASE - weights, device_bytes)
    chosen.step(batch, 0)
    whole = {name: full_tensor(p).clone() for name, p in kept(chosen.learner).items()}
    if ranks.is_first:
        save_file(whole, folder / f"{how}.safetensors")
    return {"sizes": sizes, "parts": chosen.recipe.run.num_parts}


def main() -> None:
    rank, world_size, port, folder = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = Ranks(rank=int(rank), world_size=int(world_size))
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        actual = {how: tried(how, ranks, Path(folder)) for how in PARALLEL}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(actual))


if __name__ == "__main__":
    main()
