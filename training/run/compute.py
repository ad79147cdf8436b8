"""FLOPs of a sample, FLOP/s of the device, model FLOPs utilisation (MFU), and the estimates that a plan prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.lara.lara import Lara
from training.lara.latent_action import LatentActionModel
from training.model.network import KnownInputs, Network, num_parameters
from training.model.settings import ModelSettings
from training.model.text import Text, TextLayout, equal_lengths
from training.recipe import TrainRecipe
from training.run.optimiser import trained
from training.tasks import TASKS
from training.trainable import Trainable

ROUNDS = 5
SIZE_OF = {"cuda": 8192, "cpu": 1024}  # of a square matrix: large enough that the kernel is all


def flops_per_sample(settings: ModelSettings, num_text: int, num_draws: int = 1) -> int:
    """Forward and backward of all draws of one sample with `num_text` tokens of text. Counted on a network without memory."""
    layout = equal_lengths(len(TASKS), num_text)
    return round(sum(flops_by_operator(settings, layout, num_draws).values()))


def flops_by_operator(
    settings: ModelSettings, layout: TextLayout, num_draws: int = 1, *, is_text_frozen: bool = True
) -> dict[str, float]:
    """As `flops_per_sample`, by the name of the operator: the mean of the samples of `layout`, whose tasks are all in turn.

    Args:
        is_text_frozen: else text features get a gradient too.
    """
    s, num_samples = settings, len(layout.text_of)
    size = num_samples * num_draws
    ones = torch.ones
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        known = KnownInputs(
            past=ones(size, s.num_past, s.num_image_tokens, s.latent_width),
            has_past=ones(size, s.num_past, s.num_views, dtype=torch.bool),
            history=ones(size, s.num_history, s.action_width),
            has_history=ones(size, s.num_history, s.action_width, dtype=torch.bool),
            embodiment=torch.zeros(size, dtype=torch.long),
            task=torch.arange(size) // num_draws % len(TASKS),
            state=ones(size, s.state_width) if s.state_width else None,
        )
        text = Text(
            values=ones(layout.num_rows, s.text_width).requires_grad_(not is_text_frozen),
            layout=layout,
        )
        action = ones(size, s.num_actions, s.action_width)
        has_action = torch.ones_like(action, dtype=torch.bool)
        future = ones(size, s.num_image_tokens, s.latent_width)
        outputs = Network(s)(known, text, action, has_action, future, ones(size))
        (outputs[0].sum() + outputs[1].sum()).backward()
    by_operator = counter.get_flop_counts()["Global"]
    return {str(name).removeprefix("aten."): n / num_samples for name, n in by_operator.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFlops:
    """Forward and backward of a sample, which grow with its text by the token."""

    without_text: int
    per_text_token: int

    @classmethod
    def of(cls, flops_with: Callable[[int], int]) -> SampleFlops:
        """By two lengths of text."""
        one, two = flops_with(1), flops_with(2)
        return cls(without_text=2 * one - two, per_text_token=two - one)

    def of_sample(self, num_text: float) -> float:
        return self.without_text + num_text * self.per_text_token


def flops_of_lara(lara: Lara) -> int:
    """Forward and backward of the latent action model on one sample. The projector's are left out: a millionth."""
    shape = lara.lam.shape
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = LatentActionModel(lara.settings.lam, shape)
        now = torch.ones(1, shape.num_tokens, shape.latent_width)
        has = torch.ones(1, shape.num_tokens, dtype=torch.bool)
        pair = model(now, now, has)
        quantised = pair.quantised
        (pair.change.sum() + quantised.codebook.sum() + quantised.commitment.sum()).backward()
    return int(counter.get_total_flops())


def matmul_peak(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Floating point operations a second of a square matrix product, the best of some rounds after a warm-up.

    Args:
        clock: seconds that only go up.
    """
    size = SIZE_OF[device.type]
    # of constants a GPU makes more a second, because fewer bits change
    seeded = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, dtype=dtype, device=device, generator=seeded) for _ in range(2))
    out = torch.empty_like(a)
    best = float("inf")
    for _ in range(ROUNDS + 1):
        _settle(device)
        began = clock()
        torch.mm(a, b, out=out)
        _settle(device)
        best = min(best, clock() - began)
    return 2.0 * size**3 / best


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


USUAL_SHARE = 0.4  # of the matmul peak: the target of the design for a sensible batch on a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one rank, where not pair otherwise."""

    parameters: dict[str, int]  # by part, of the whole network
    tokens: dict[str, int]  # of a sample
    samples_per_epoch: int
    steps_per_epoch: float
    flops_per_sample: float
    peak_flops: float
    memory: dict[str, int]  # bytes, by what they are for
    accumulate: int  # parts of a rank's batch, one after the other
    accumulate_by: str  # "recipe", "checkpoint" or "estimate"
    accumulate_of_80_gb: int | None  # by this estimate; None: no number of parts fits
    memory_by_parts: dict[int, int]  # bytes in all, in how many parts
    traffic: dict[
        str, int
    ]  # bytes that a rank sends in a step, and over how many ranks weights are sharded
    hours: float
    latents: dict[str, Any]  # that a global batch reads, and a second of these hours

    def as_object(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def parameters_of(learner: Trainable) -> dict[str, int]:
    """Trained parameters by part. The conditioner beside those of the network."""
    parts = {}
    if learner.lara is None or learner.network is not learner.lara.lam:
        parts = num_parameters(learner.network)
        del parts["total"]
    parts["conditioner"] = sum(p.numel() for p in trained(learner.conditioner).values())
    if learner.lara is not None:
        parts |= learner.lara.num_parameters()
    return parts | {"total": sum(parts.values())}


def tokens_of(settings: ModelSettings, num_text: int) -> dict[str, int]:
    """Of one sample: what attends to each other, and the text (with the one token of the network's own)."""
    joint = settings.num_registers + settings.num_image_tokens + settings.num_action_tokens
    return {
        "registers": settings.num_registers,
        "image": settings.num_image_tokens,
        "action": settings.num_action_tokens,
        "joint": joint,
        "text": num_text + 1,
    }


def hours_of(recipe: TrainRecipe, flops_per_sample: float, peak: float, world_size: int) -> float:
    """At USUAL_SHARE of `peak` on every rank, data never waited for."""
    samples = recipe.run.num_steps * recipe.run.batch_size
    return samples * flops_per_sample / (USUAL_SHARE * peak * world_size) / 3600
