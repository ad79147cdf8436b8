"""One rank of a test of several: `python -m tests.training.ranks_main RANK WORLD_SIZE PORT OTHER_PORT FOLDER`. Steps by DDP, then by FSDP2."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils import _pytree as pytree

from schemas.errors import ConfigError
from schemas.supervision import Task
from tests.training.running import (
    CPU,
    HYBRIDS,
    LAM,
    batches,
    global_batch,
    joint,
    learner,
    loop,
    recipe,
    shared_by,
    snapshot_of,
    spoiled,
    trainer,
)
from training.batch import Batch, Origin
from training.data.sampler import Drawn
from training.lara.log import LaraLog
from training.run.checkpoint import checkpoint_of, write
from training.run.micro_batch import parts
from training.run.mishaps import SKIPPED_FILE, Mishaps, culprits
from training.run.optimiser import kept
from training.run.parallel import (
    Ranks,
    all_gather_rows,
    any_rank,
    full_tensor,
    joined,
    raise_on_any_rank,
    sum_over,
)
from training.run.restore import restore
from training.run.validation import Validation

NUM_STEPS, NUM_BEFORE = 3, 2  # steps in all, and before the checkpoint


def steps(how: str, ranks: Ranks, folder: Path) -> None:
    """`how`: "hsdp 2x1" is two copies of one rank each. Weights, averages and norms after NUM_STEPS, of which the last comes after going through a checkpoint. With LARA: what it has in the mean too."""
    lara = joint(weight_align=0.5, weight_lam=0.5)
    with_recipe = recipe(**shared_by(how), accumulate=2, num_draws=2, optimiser={"ema": 0.5}, lara=lara)  # fmt: skip
    made = trainer(with_recipe, ranks=ranks)
    given = batches(0, ranks)
    norms = [made.step(next(given), step).gradient_norm for step in range(NUM_BEFORE)]
    saved = snapshot_of(made, NUM_BEFORE)
    if saved is not None:
        write(folder / how / "checkpoints", saved, keep=1)
    sum_over(torch.zeros(1), ranks)  # the others wait for the file
    made = trainer(with_recipe, ranks=ranks, made=learner(seed=9, lara=with_recipe.lara))
    restore(made.learner, made.optimiser, made.averages, checkpoint_of(folder / how))
    told, last = LaraLog(LAM["num_codes"]), None
    for step in range(NUM_BEFORE, NUM_STEPS):
        last = made.step(next(given), step)
        norms.append(last.gradient_norm)
        assert last.lara is not None
        told.add(last.lara)
    assert made.averages is not None
    assert last is not None
    found = {name: full_tensor(p).clone() for name, p in kept(made.learner).items()}
    means = told.means(ranks)["lara"]
    del means["cosine_of_others"]  # which others is a matter of the parts
    found |= {f"lara {name}": torch.tensor(value) for name, value in means.items()}
    found["lara loss"] = torch.tensor(last.lara_loss)
    found |= {f"average.{name}": full_tensor(p).clone() for name, p in made.averages.values.items()}
    if ranks.is_first:
        save_file(found | {"norms": torch.tensor(norms)}, folder / f"{how}.safetensors")


def look_while_training(how: str, ranks: Ranks) -> None:
    """Held-out losses between steps change no weight and are those of one process, with the averages too."""
    with_recipe = recipe(parallel=how, eval_samples=4, optimiser={"ema": 0.5})
    looking, plain = (trainer(with_recipe, ranks=ranks) for _ in range(2))
    alone = trainer(recipe(optimiser={"ema": 0.5}))  # the whole batch in this process
    validation, of_one = (
        Validation(held_out(each), with_recipe, each) for each in (ranks, Ranks())
    )  # type: ignore[arg-type]
    for step, (mine, every) in enumerate(zip(batches(0, ranks), batches(0), strict=False)):
        if step == NUM_STEPS:
            break
        for each in (looking, plain):
            each.step(mine, step)
        alone.step(every, step)
        found = validation.run(looking.learner, looking.model, looking.averages, CPU).line
        wanted = of_one.run(alone.learner, alone.model, alone.averages, CPU).line
        for name in ("val_loss", "val_averages_loss"):
            assert abs(found[name] / wanted[name] - 1) < 1e-3, (how, step, name, found, wanted)  # type: ignore[operator]
        assert found["val_loss"] != found["val_averages_loss"]
    pairs = zip(looking.learner.parameters(), plain.learner.parameters(), strict=True)
    assert all(torch.equal(full_tensor(one), full_tensor(two)) for one, two in pairs), how


def leave_out_what_one_rank_spoils(how: str, ranks: Ranks, folder: Path) -> None:
    """The second rank's share of a step is not finite: no rank changes a weight, an average or a moment by it, and all know whose samples it was."""
    run = shared_by(how) | {"max_skipped_steps": 1, "log_every": 2}
    with_recipe = recipe(optimiser={"ema": 0.5}, **run)
    skipping, plain = (trainer(with_recipe, ranks=ranks) for _ in range(2))
    mishaps = Mishaps(folder / f"skipped {how} {ranks.rank}", with_recipe.run, ranks)
    given = spoiled(batches(0, ranks), {1} if ranks.rank == 1 else set())
    assert loop(skipping, mishaps).run(given, 0, NUM_STEPS) == NUM_STEPS
    for step, batch in zip(range(NUM_STEPS), batches(0, ranks), strict=False):
        if step != 1:
            plain.step(batch, step)
    assert mishaps.was_skipped(1), how
    assert mishaps.counts["skipped_steps"] == 1
    pairs = zip(skipping.learner.parameters(), plain.learner.parameters(), strict=True)
    assert all(torch.equal(full_tensor(one), full_tensor(two)) for one, two in pairs), how
    assert skipping.averages is not None
    assert plain.averages is not None
    for name, average in plain.averages.values.items():
        assert torch.equal(full_tensor(skipping.averages.values[name]), full_tensor(average)), how
    if ranks.is_first:
        (line,) = (folder / f"skipped {how} 0" / SKIPPED_FILE).read_text().splitlines()
        assert "uid4" in line, line
        assert "uid3" not in line, line


def rows_of_ranks_may_differ_in_number(ranks: Ranks) -> None:
    """A block-causal sample has a row more where it is one of the policy; who is to blame is told all the same."""
    num = 2 + ranks.rank
    origin = Origin(row=np.arange(num) + 10 * ranks.rank, timestep=np.arange(num))
    sums = torch.zeros(num)
    sums[-1] = float("nan")
    named = culprits(origin, torch.zeros(num, dtype=torch.long), sums, ranks)
    assert named == [(1, 1, 0), (12, 2, 0)], named


def held_out(ranks: Ranks) -> SimpleNamespace:
    """A loader that has four samples of the first task to look at."""

    def every(task: Task, num: int) -> Drawn:
        at = np.arange(num if task is Task.POLICY else 0)
        return Drawn(segment=at, now=at, task=np.zeros_like(at))

    def replaced_at(drawn: Drawn, *_: object, **__: object) -> Iterator[Batch]:
        made = list(parts(global_batch(7), 8))
        for now in drawn.now:
            yield replace(
                made[now], known=replace(made[now].known, task=torch.zeros(1, dtype=torch.long))
            )

    return SimpleNamespace(draws=SimpleNamespace(every=every), replaced_at=replaced_at, split="val")


def step_in_bf16(ranks: Ranks) -> torch.Tensor:
    """[4] mean errors of a step by FSDP2, where there are several ranks; layers before the blocks are given what the batch has, a block the stream of tokens, neither rounded."""
    made = trainer(recipe(parallel="fsdp2", precision="bf16"), ranks=ranks)
    network, given = made.learner.network, set[torch.dtype]()
    for part in (network.merge, network.action_in):
        part.register_forward_pre_hook(lambda _, them: given.update(dtypes_of(them)))
    network.blocks[0].register_forward_pre_hook(lambda _, them: given.update(dtypes_of(them[:2])))
    stepped = made.step(next(batches(0, ranks)), 0)
    assert given == {torch.float32, torch.long}
    return stepped.sums / stepped.counts


def dtypes_of(them: tuple[object, ...]) -> set[torch.dtype]:
    """No tensor is kept: a hook that keeps one holds the graph of the step, which holds the hook's module."""
    return {x.dtype for x in pytree.tree_leaves(them) if isinstance(x, torch.Tensor)}


def is_refused_together(ranks: Ranks) -> bool:
    """The second of two is: both know, and neither waits for the other."""
    try:
        with raise_on_any_rank(ranks):
            if not ranks.is_first:
                raise ConfigError("no checkpoint of step 2", where="ä")  # more bytes than letters
    except ConfigError as error:
        return str(error).endswith("ä: no checkpoint of step 2")
    return False


def gloo_threads() -> list[str]:
    """Names of the threads of this process that belong to a process group."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def fail_in_a_step(ranks: Ranks) -> None:
    """The frame of an error holds a trainer by FSDP2."""
    made = trainer(recipe(parallel="fsdp2"), ranks=ranks)
    made.step(next(batches(0, ranks)), 0)
    try:
        raise OSError("disk full")
    except OSError as error:
        raise ConfigError("planted", where=f"rank {ranks.rank}") from error


def is_left_after_an_error(ranks: Ranks) -> bool:
    """The group has no thread any more while the error is still handled."""
    try:
        with joined(ranks, CPU):
            fail_in_a_step(ranks)
    except ConfigError as error:
        return "planted" in str(error) and not gloo_threads()
    return False


def main() -> None:
    rank, world_size, port, other_port, folder = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = Ranks(rank=int(rank), world_size=int(world_size))
    torch.set_num_threads(1)
    with joined(ranks, CPU):
        assert all_gather_rows(torch.tensor([[ranks.rank]]), ranks).tolist() == [[0], [1]]
        assert any_rank(ranks, ranks.rank == 1, False) == [True, False]
        for how in ("ddp", "fsdp2"):
            steps(how, ranks, Path(folder))
            look_while_training(how, ranks)
        for how in HYBRIDS:
            steps(how, ranks, Path(folder))
        for how in ("ddp", "fsdp2", *HYBRIDS):
            leave_out_what_one_rank_spoils(how, ranks, Path(folder))
        rows_of_ranks_may_differ_in_number(ranks)
        half = step_in_bf16(ranks)
        if ranks.is_first:
            save_file({"bf16": half}, Path(folder) / "bf16.safetensors")
        assert is_refused_together(ranks)
        assert gloo_threads()
    assert not gloo_threads(), gloo_threads()
    os.environ["MASTER_PORT"] = other_port
    assert is_left_after_an_error(ranks), gloo_threads()


if __name__ == "__main__":
    main()
