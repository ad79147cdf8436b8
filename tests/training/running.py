"""A trainer over synthetic batches: no corpus, no files."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tests.training.tiny import SETTINGS, batch
from training.batch import Batch
from training.conditioning.inputs import TextInputs
from training.conditioning.protocol import Conditioner
from training.lara.lara import Lara
from training.lara.latent_action import PictureShape
from training.lara.settings import JointStage, LaraSettings
from training.learner import Learner
from training.model.network import Network
from training.model.text import Text
from training.recipe import TrainRecipe
from training.run.checkpoint import CheckpointSnapshot, CheckpointState, snapshot
from training.run.communication import shard_ranks_of
from training.run.metrics import Grouping, Losses
from training.run.micro_batch import parts
from training.run.mishaps import Mishaps
from training.run.optimiser import EMA, adamw
from training.run.parallel import Ranks, wrapped
from training.run.trainer import Hooks, Loop, Trainer

Module = TypeVar("Module", bound=torch.nn.Module)
CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
GLOBAL_BATCH = 8
CENTRE = torch.tensor([[1.0, 2.0]])
NORMALISER = {"centre": CENTRE, "clip": None, "slots": ["a", "b"]}


class Told(Conditioner):
    """Words that are features already, through a layer that is trained and beside one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.width = SETTINGS.text_width
        self.learned = torch.nn.Linear(self.width, self.width)
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)

    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=self.learned(inputs.by_token["values"]), layout=inputs.layout)


def recipe(**run: Any) -> TrainRecipe:
    """fp32. A large eps: where a gradient is nearly zero Adam would make noise of rounding, and two ways of summing could not be compared."""
    optimiser = {"lr": 1e-2, "warmup_steps": 2, "min_lr": 1e-4, "eps": 1e-3} | run.pop(
        "optimiser", {}
    )
    seed = run.pop("seed", 3)
    lara = run.pop("lara", {"kind": "none"})
    given = {"num_steps": 6, "batch_size": GLOBAL_BATCH, "precision": "fp32", "log_every": 2} | run
    return TrainRecipe.model_validate(
        {"name": "test", "seed": seed, "run": given, "optimiser": optimiser, "lara": lara}
    )


HYBRIDS = ("hsdp 2x1", "hsdp 1x2")  # copies of the weights x ranks that share one


def shared_by(how: str) -> dict[str, Any]:
    """Keys of `run` of "ddp", "fsdp2" or one of `HYBRIDS`."""
    kind, _, mesh = how.partition(" ")
    return {"parallel": kind, "shard_ranks": int(mesh.partition("x")[2]) if mesh else None}


LAM = {"width": 16, "num_heads": 2, "num_layers": 1, "decoder_layers": 1, "num_queries": 2, "code_width": 4, "num_codes": 8}  # fmt: skip


def joint(**changed: Any) -> dict[str, Any]:
    """LARA beside the four tasks, as a recipe says it."""
    return {"kind": "joint", "after_block": 1, "lam": LAM, **changed}


def learner(*, seed: int = 0, lara: LaraSettings | None = None, **changed: Any) -> Learner:
    """The same weights each time; nothing starts at zero."""
    torch.manual_seed(seed)
    s = SETTINGS.model_copy(update=changed)
    made = _awake(Learner(Network(s), Told()))
    if isinstance(lara, JointStage):  # afterwards: the others are as without it
        shape = PictureShape(
            num_views=s.num_views, num_patches=s.num_patches, latent_width=s.latent_width
        )
        made.lara = _awake(Lara(lara, shape, change_std=s.change_std, policy_width=s.width))
    return made


def _awake(made: Module) -> Module:
    with torch.no_grad():
        for p in made.parameters():
            if p.requires_grad and not p.any():
                p.normal_(std=0.05)
    return made


def trainer(
    with_recipe: TrainRecipe, *, ranks: Ranks | None = None, made: Learner | None = None
) -> Trainer:
    ranks, made, run = ranks or Ranks(), made or learner(lara=with_recipe.lara), with_recipe.run
    model = wrapped(
        made, run.parallel, ranks, run.precision, shard_ranks=shard_ranks_of(run, ranks)
    )
    ema = with_recipe.optimiser.ema
    return Trainer(
        learner=made,
        model=model,
        optimiser=adamw(made, with_recipe.optimiser),
        averages=None if ema is None else EMA(made, ema),
        recipe=with_recipe,
        ranks=ranks,
        device=CPU,
        uid_of=lambda row: f"uid{row}",
    )


def global_batch(step: int) -> Batch:
    """Tasks in unequal numbers, in no order, so that ranks and parts have different counts."""
    tasks = [0, 0, 0, 1, 2, 3, 3, 0]
    turned = tasks[step % 8 :] + tasks[: step % 8]
    made = batch(turned, seed=100 + step)
    g = torch.Generator().manual_seed(200 + step)
    return dataclasses.replace(
        made,
        has_future=torch.rand(GLOBAL_BATCH, 1) < 2,
        later=torch.randn(made.future.shape, generator=g),
        has_later=torch.rand(GLOBAL_BATCH, 1, generator=g) < 0.8,
        may_teach=torch.rand(GLOBAL_BATCH, generator=g) < 0.7,
    )


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def two_ranks(module: str, *words: object) -> list[subprocess.Popen[str]]:
    """`python -m MODULE RANK 2 PORT WORDS`, twice at once."""
    shared = list(map(str, ("2", free_port(), *words)))
    return [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), *shared],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def batches(first: int, ranks: Ranks | None = None) -> Iterator[Batch]:
    """This rank's share of every global batch."""
    ranks, step = ranks or Ranks(), first
    while True:
        yield list(parts(global_batch(step), ranks.world_size))[ranks.rank]
        step += 1


def loop(
    made: Trainer,
    mishaps: Mishaps | None = None,
    on_log: Callable[[dict[str, Any]], None] = lambda line: None,
) -> Loop:
    """That saves nothing."""
    hooks = Hooks(
        clock_s=lambda: 0.0,
        should_stop=lambda: False,
        on_log=on_log,
        save=lambda done: None,
        mishaps=mishaps,
    )
    losses = Losses({"tier": Grouping.of(["high", "low"] * 64)})
    return Loop(trainer=made, losses=losses, flops_per_sample=1.0, peak=1.0, hooks=hooks)


def spoiled(given: Iterator[Batch], steps: set[int]) -> Iterator[Batch]:
    """Those of these steps have pictures that are no numbers."""
    for step, each in enumerate(given):
        broken = torch.full_like(each.future, float("nan"))
        yield dataclasses.replace(each, future=broken) if step in steps else each


def snapshot_of(made: Trainer, step: int, *, is_gathered: bool = True) -> CheckpointSnapshot | None:
    """None on ranks other than the first, where it is gathered."""
    state = CheckpointState(
        step=step,
        recipe=made.recipe.model_dump(mode="json"),
        recipe_sha256="r" * 64,
        manifest_name="m",
        manifest_sha256="m" * 64,
        model=SETTINGS,
        embodiments=("umi",),
    )
    of = made.learner, made.optimiser, made.averages, state, made.ranks, NORMALISER
    return snapshot(*of, is_gathered=is_gathered)


def weights(made: Learner) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in made.named_parameters()}
