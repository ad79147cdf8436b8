"""What a run will need, before it is begun: estimates, and named so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.learner import Learner
from training.model.network import num_parameters
from training.model.settings import ModelSettings
from training.recipe import TrainRecipe
from training.run.optimiser import trained

USUAL_SHARE = 0.4  # of the matmul peak: the target of the design for a sensible batch on a GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one rank, where not said otherwise."""

    parameters: dict[str, int]  # by part, of the whole network
    tokens: dict[str, int]  # of a sample
    samples_per_epoch: int
    steps_per_epoch: float
    flops_per_sample: float
    peak_flops: float
    memory: dict[str, int]  # bytes, by what they are for
    accumulate: int  # parts of a rank's batch, one after the other
    memory_by_parts: dict[int, int]  # bytes in all, in how many parts
    hours: float

    def as_object(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def parameters_of(learner: Learner) -> dict[str, int]:
    """Trained parameters by part; the conditioner beside those of the network."""
    parts = num_parameters(learner.network)
    conditioner = sum(p.numel() for p in trained(learner.conditioner).values())
    return {k: v for k, v in parts.items() if k != "total"} | {"conditioner": conditioner, "total": parts["total"] + conditioner}  # fmt: skip


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
