"""One way to run a training step, and the run's own loop of such steps: its loader, its copies, its optimiser and its log."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from schemas.manifest import load
from training.batch import Batch, Origin
from training.conditioning.hashed_words import NoTextReader
from training.conditioning.inputs import TextInputs
from training.conditioning.protocol import Conditioner
from training.data.loader import Loader
from training.data.prefetch import tensors_mapped
from training.learner import Learner
from training.model.network import KnownInputs, Network
from training.model.settings import Architecture, ModelSettings
from training.model.text import Text, TextLayout
from training.recipe import TrainRecipe, load_recipe
from training.run.compile_blocks import prepare_blocks
from training.run.compute import SampleFlops, flops_per_sample
from training.run.memory import Memory, fewest_parts, footprint_of, memory_of
from training.run.metrics import Grouping, Losses
from training.run.optimiser import EMA, adamw
from training.run.parallel import Ranks
from training.run.run_folder import append_log
from training.run.trainer import Hooks, Loop, Trainer
from training.tasks import TASKS

NUM_TEXT, TEXT_WIDTH, NUM_EMBODIMENTS = 64, 2560, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to run a step."""

    architecture: Architecture
    device: str
    batch_size: int
    num_steps: int
    precision: Literal["bf16", "fp32"] = "bf16"
    is_compiled: bool = False
    checkpointed: bool | Literal["selective"] = False
    num_patches: int = 196
    manifest: str = ""  # folder; "": one seeded batch again and again
    out: str = ""  # folder of the log; "": no file

    @property
    def settings(self) -> ModelSettings:
        return ModelSettings(
            **self.architecture.model_dump(),
            text_width=TEXT_WIDTH,
            num_embodiments=NUM_EMBODIMENTS,
            num_patches=self.num_patches,
        )


class FixedText(Conditioner):
    """Text features as they come."""

    width = TEXT_WIDTH

    def forward(self, inputs: TextInputs) -> Text:
        return Text(values=inputs.by_token["values"], layout=inputs.layout)


def text_layout(num_samples: int, num_texts: int, longest: int) -> TextLayout:
    """Texts of half to all of `longest` tokens, which samples have in turn."""
    half = longest // 2
    lengths = half + np.arange(num_texts) * half // max(num_texts - 1, 1)
    return TextLayout(num_tokens=lengths, text_of=np.arange(num_samples) % num_texts)


def batch_of(case: Case) -> Batch:
    """Seeded; the four tasks in turn; text of different lengths."""
    s, size = case.settings, case.batch_size
    generator = torch.Generator(case.device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, *shape, generator=generator, device=case.device)

    def ones(*shape: int) -> Tensor:
        return torch.ones(size, *shape, dtype=torch.bool, device=case.device)

    index = torch.arange(size, device=case.device)
    layout = text_layout(size, size, NUM_TEXT)
    text = torch.randn(layout.num_rows, TEXT_WIDTH, generator=generator, device=case.device)
    return Batch(
        known=KnownInputs(
            past=normal(s.num_past, s.num_image_tokens, s.latent_width),
            has_past=ones(s.num_past, s.num_views),
            history=normal(s.num_history, s.action_width),
            has_history=ones(s.num_history, s.action_width),
            embodiment=index % s.num_embodiments,
            task=index % len(TASKS),
        ),
        action=normal(s.num_actions, s.action_width),
        has_action=ones(s.num_actions, s.action_width),
        asked=ones(s.action_width),
        future=normal(s.num_image_tokens, s.latent_width),
        has_future=ones(s.num_views),
        action_t_s=0.1 * torch.arange(1, s.num_actions + 1, device=case.device),
        future_t_s=0.6,
        text_inputs=TextInputs(layout=layout, by_token={"values": text}),
        origin=Origin(row=np.arange(size), timestep=np.arange(size)),
    )


def recipe_of(case: Case) -> TrainRecipe:
    run = {
        "num_steps": 10**6,
        "batch_size": case.batch_size,
        "precision": case.precision,
        "checkpoint_activations": case.checkpointed,
        "log_every": 10**6,  # the last step of a loop has a line anyway
        "num_workers": 8 if case.device == "cuda" else 2,
        "loader": "process" if case.device == "cuda" else "threads",  # as in `lda_1b`
    }
    return TrainRecipe.model_validate({"name": "bench", "run": run, "optimiser": {"ema": 0.999}})


def lda_1b() -> Architecture:
    architecture = load_recipe("lda_1b").architecture
    assert isinstance(architecture, Architecture)
    return architecture


def estimated(case: Case) -> Callable[[int], Memory]:
    """Memory of a step with so many samples, as a run estimates it."""
    with FakeTensorMode():
        num_parameters = sum(p.numel() for p in Network(case.settings).parameters())
    footprint = footprint_of(case.settings, NUM_TEXT, recipe_of(case).run.num_draws, case.precision)

    def of(size: int) -> Memory:
        return memory_of(
            footprint,
            recipe_of(dataclasses.replace(case, batch_size=size)),
            num_layers=case.settings.num_layers,
            num_parameters=num_parameters,
            block_parameters=0,  # one process shares no weights
            root_parameters=0,
            world_size=1,
            num_parts=1,
        )

    return of


def batch_that_fits(case: Case, device_bytes: int) -> int:
    """The batch of a case, or a half of it, a quarter and so on, of which a step fits a device by the estimate of a run. One sample is tried whatever that says."""
    size, memory = case.batch_size, estimated(case)
    while size > 1 and fewest_parts({1: memory(size)}, device_bytes) is None:
        size //= 2
    return size


def trainer_of(case: Case) -> Trainer:
    recipe = recipe_of(case)
    device = torch.device(case.device)
    torch.manual_seed(0)
    with device:  # a thousand million random weights take long on a CPU
        network = Network(case.settings)
    learner = Learner(network, FixedText()).to(device)
    prepare_blocks(learner, checkpointed=case.checkpointed, compiled=case.is_compiled)
    return Trainer(
        learner=learner,
        model=learner,
        optimiser=adamw(learner, recipe.optimiser),
        averages=EMA(learner, recipe.optimiser.ema or 0.0),
        recipe=recipe,
        ranks=Ranks(),
        device=device,
        uid_of=str,
    )


def loop_of(case: Case, peak: float, lines: list[dict[str, Any]]) -> Loop:
    """That of a run, without checkpoints."""
    flops = SampleFlops.of(lambda num: flops_per_sample(case.settings, num))

    def keep_line(line: dict[str, Any]) -> None:
        if case.out:
            append_log(Path(case.out), line)
        lines.append(line)

    hooks = Hooks(
        clock_s=time.perf_counter,
        should_stop=lambda: False,
        on_log=keep_line,
        save=lambda done: None,
    )
    tiers = Grouping.of(["high", "low"] * case.batch_size)
    if case.manifest:
        tiers = Grouping.of(load(Path(case.manifest)).rows["tier"].to_pylist())
    return Loop(
        trainer=trainer_of(case),
        losses=Losses({"tier": tiers}),
        flops_per_sample=flops.without_text,
        flops_per_text_token=flops.per_text_token,
        peak=peak,
        hooks=hooks,
    )


def host_batches(case: Case) -> Iterator[Batch]:
    """As the loader gives them: on the CPU, pinned where there is a GPU."""
    batch = batch_of(dataclasses.replace(case, device="cpu"))
    if case.device == "cuda":
        batch = tensors_mapped(batch, Tensor.pin_memory)
    if not case.manifest:
        while True:
            yield batch
    loader = Loader(load(Path(case.manifest)), recipe_of(case), reader=NoTextReader())
    text = batch.text_inputs
    for loaded in loader.batches(pin_memory=case.device == "cuda"):
        yield dataclasses.replace(loaded, text_inputs=text)
