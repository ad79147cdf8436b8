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
# Bytes of activations of a token in a layer, over its width: 34 of a transformer layer in 16 bits without stored attention
# (Korthikanti et al. 2022, "Reducing activation recomputation", table 2), and about 8 for the attention to text.
BYTES_PER_ACTIVATION = 42
BYTES_CHECKPOINTED = 4  # its input and output only, 16 bits each


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one rank, where not said otherwise."""

    parameters: dict[str, int]  # by part, of the whole network
    tokens: dict[str, int]  # of a sample
    samples_per_epoch: int
    steps_per_epoch: float
    flops_per_sample: float
    peak_flops: float
    state_bytes: int  # weights, gradients, moments, averages
    activation_bytes: int
    hours: float

    def as_object(self) -> dict[str, Any]:
        """For `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def parameters_of(learner: Learner) -> dict[str, int]:
    """Trained parameters by part; the conditioner beside those of the network."""
    parts = num_parameters(learner.network)
    told = sum(p.numel() for p in trained(learner.conditioner).values())
    return {k: v for k, v in parts.items() if k != "total"} | {"conditioner": told, "total": parts["total"] + told}  # fmt: skip


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


def state_bytes(num: int, recipe: TrainRecipe, world_size: int) -> int:
    """Weights, gradients and two moments in fp32, averages where there are; FSDP2 divides them."""
    each = 16 + (4 if recipe.optimiser.ema is not None else 0)
    whole = num * each
    return whole // world_size if recipe.run.parallel == "fsdp2" else whole


def activation_bytes(settings: ModelSettings, recipe: TrainRecipe, world_size: int) -> int:
    """Of the samples that are in the network at once, all draws of them."""
    run = recipe.run
    samples = run.batch_size // world_size // run.accumulate * run.num_draws
    joint = settings.num_registers + settings.num_image_tokens + settings.num_action_tokens
    per = BYTES_CHECKPOINTED if run.checkpoint_activations else BYTES_PER_ACTIVATION
    once = BYTES_PER_ACTIVATION if run.checkpoint_activations else 0  # the layer that is done again
    factor = 1 if run.precision == "bf16" else 2
    return samples * joint * settings.width * (per * settings.num_layers + once) * factor


def hours_of(recipe: TrainRecipe, flops_per_sample: float, peak: float, world_size: int) -> float:
    """At USUAL_SHARE of `peak` on every rank, data never waited for."""
    samples = recipe.run.num_steps * recipe.run.batch_size
    return samples * flops_per_sample / (USUAL_SHARE * peak * world_size) / 3600
