"""One of two ranks that write checkpoints in parts: `python -m tests.training.shards_main RANK WORLD_SIZE PORT FOLDER`.

FOLDER/one has a checkpoint that one process wrote. What each way of sharing has in the end is left as FOLDER/<how>.safetensors.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.running import (
    CPU,
    HYBRIDS,
    batches,
    learner,
    recipe,
    shared_by,
    snapshot_of,
    trainer,
)
from training.recipe import TrainRecipe
from training.run import checkpoint, shards
from training.run.checkpoint import CheckpointWriter, checkpoint_of, checkpoints
from training.run.optimiser import MOMENTS, kept, trained
from training.run.parallel import Ranks, checkpoint_group, full_tensor, joined, sum_over
from training.run.restore import restore
from training.run.trainer import Trainer

PARALLEL = ("fsdp2", *HYBRIDS)
NUM_BEFORE, NUM_STEPS = 2, 4


def recipe_by(how: str) -> TrainRecipe:
    return recipe(**shared_by(how), accumulate=2, optimiser={"ema": 0.5})


def everything(made: Trainer) -> dict[str, Tensor]:
    """All that a checkpoint has, whole. Every rank must call this."""
    actual = {name: full_tensor(p) for name, p in kept(made.learner).items()}
    for name, p in trained(made.learner).items():
        state = made.optimiser.state[p]
        actual |= {f"{what}.{name}": full_tensor(state[what]) for what in (*MOMENTS, "step")}
    assert made.averages is not None
    actual |= {f"average.{name}": full_tensor(x) for name, x in made.averages.values.items()}
    return {name: x.detach().clone().contiguous() for name, x in actual.items()}


def restored(how: str, ranks: Ranks, run: Path, step: int | None = None) -> Trainer:
    made = trainer(recipe_by(how), ranks=ranks, made=learner(seed=9))
    restore(made.learner, made.optimiser, made.averages, checkpoint_of(run, step))
    return made


def stepped(made: Trainer, first: int, end: int, ranks: Ranks) -> None:
    given = batches(first, ranks)
    for step in range(first, end):
        made.step(next(given), step)


def go_through_a_checkpoint(how: str, ranks: Ranks, folder: Path) -> None:
    """Training goes on while it is written; the run that goes on from it is this run, to the bit."""
    group = checkpoint_group(recipe_by(how).run.parallel, ranks)
    writer = CheckpointWriter(folder / how, keep=3, group=group)
    may_end, begun = threading.Event(), shards.begin_write

    def slowly(*args: Any, begin: Any, **more: Any) -> Any:
        def held() -> None:
            assert may_end.wait(60)
            begin()

        return begun(*args, begin=held, **more)

    made = trainer(recipe_by(how), ranks=ranks)
    stepped(made, 0, NUM_BEFORE, ranks)
    at_save = everything(made)
    checkpoint.begin_write = slowly  # type: ignore[attr-defined]
    try:
        writer.save(partial(snapshot_of, made, NUM_BEFORE, is_gathered=False))
    finally:
        checkpoint.begin_write = begun  # type: ignore[attr-defined]
    stepped(made, NUM_BEFORE, NUM_STEPS, ranks)
    assert checkpoints(folder / how) == []  # it is held back until the steps are done
    sum_over(torch.zeros(1), ranks)
    may_end.set()
    writer.close()
    sum_over(torch.zeros(1), ranks)
    again = restored(how, ranks, folder / how)
    same(everything(again), at_save, how)
    stepped(again, NUM_BEFORE, NUM_STEPS, ranks)
    same(everything(again), everything(made), how)
    ours = {name: x for name, x in at_save.items() if ranks.is_first}
    from_one = everything(restored(how, ranks, folder / "one"))
    ours |= {f"from one {name}": x for name, x in from_one.items() if ranks.is_first}
    if ranks.is_first:
        save_file(ours, folder / f"{how}.safetensors")


def same(one: dict[str, Tensor], two: dict[str, Tensor], how: str) -> None:
    assert one.keys() == two.keys()
    for name, x in one.items():
        assert torch.equal(x, two[name]), (how, name)


def fail_on_one_rank(ranks: Ranks, folder: Path) -> None:
    """A disk that is full on one rank is told on both, and nothing is listed."""
    made = trainer(recipe_by("fsdp2"), ranks=ranks)
    writer = CheckpointWriter(folder / "full", keep=3, group=checkpoint_group("fsdp2", ranks))
    stepped(made, 0, 1, ranks)
    writer.save(partial(snapshot_of, made, 1, is_gathered=False))
    writer.wait()
    sum_over(torch.zeros(1), ranks)
    write_data = shards._Writer.write_data

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if not ranks.is_first:
        shards._Writer.write_data = full  # type: ignore[method-assign,assignment]
    writer.save(partial(snapshot_of, made, 2, is_gathered=False))
    with pytest.raises(OSError, match=r"rank 1: OSError: \[Errno 28\] No space left on device"):
        writer.wait()
    assert [each.state.step for each in checkpoints(folder / "full")] == [1]
    shards._Writer.write_data = write_data  # type: ignore[method-assign]
    writer.save(partial(snapshot_of, made, 3, is_gathered=False))  # the next one is whole
    writer.close()


def be_killed(ranks: Ranks, folder: Path) -> None:
    """One rank is killed after it has written half of the second checkpoint."""
    made = trainer(recipe_by("fsdp2"), ranks=ranks)
    writer = CheckpointWriter(folder / "killed", keep=3, group=checkpoint_group("fsdp2", ranks))
    stepped(made, 0, 1, ranks)
    writer.save(partial(snapshot_of, made, 1, is_gathered=False))
    writer.wait()
    sum_over(torch.zeros(1), ranks)
    split = shards._Writer._split_by_storage_plan

    def half(*args: Any) -> Any:
        actual = split(*args)
        return {number: actual[number] for number in sorted(actual)[:1]}

    if not ranks.is_first:
        shards._Writer._split_by_storage_plan = half  # type: ignore[method-assign,assignment]
        write_data = shards._Writer.write_data

        def killed(*args: Any) -> Any:
            write_data(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        shards._Writer.write_data = killed  # type: ignore[method-assign,assignment]
    writer.save(partial(snapshot_of, made, 2, is_gathered=False))
    writer.close()


def main() -> None:
    rank, world_size, port, folder = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks, where = Ranks(rank=int(rank), world_size=int(world_size)), Path(folder)
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        for how in PARALLEL:
            go_through_a_checkpoint(how, ranks, where)
        fail_on_one_rank(ranks, where)
        (where / f"done.{rank}").touch()
        be_killed(ranks, where)


if __name__ == "__main__":
    main()
