"""AdamW whose parameter groups differ in decay (only of matrices) and rate, and the learning-rate schedule: linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from training.model.adapters import Bank
from training.recipe import OptimiserSettings
from training.run.parallel import own_shard


def lr_at(step: int, settings: OptimiserSettings, num_steps: int) -> float:
    """The rate with which step `step` (from 0) changes the weights. A function of it alone, so there is nothing to save.

    Step `warmup_steps - 1` is the first at full rate, and the last step is nearly at `min_lr`. A warm-up longer than the run never ends.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    down = 0.5 * (1.0 + math.cos(math.pi * share))
    return settings.min_lr + (settings.lr - settings.min_lr) * down


MATRICES = (nn.Linear, Bank)  # whose `weight` decays
MOMENTS = ("exp_avg", "exp_avg_sq")
LARA = "lara."  # of a learner: how the names of LARA's parts begin
TEXT_LAYERS = "conditioner.layers."  # and those of layers of a language model


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name. What is frozen is in no optimiser and in no checkpoint."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def kept(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint has: what is trained, and all of LARA's parts, by name; a frozen latent action model and the use of its codes are among them."""
    lara = {k: v for k, v in module.state_dict(keep_vars=True).items() if k.startswith(LARA)}
    return {**trained(module), **lara}


def decaying(module: nn.Module) -> set[str]:
    """The names of the parameters that decay."""
    return {
        f"{name}.weight" if name else "weight"
        for name, child in module.named_modules()
        if isinstance(child, MATRICES) and child.weight.requires_grad
    }


def adamw(module: nn.Module, settings: OptimiserSettings, text_lr: float | None = None) -> AdamW:
    """Over `trained(module)`, its rate still to be set. The kernels for all parameters at once ("fused") where there are any.

    Args:
        text_lr: of the layers of a language model; None: as all others.
    """
    parameters, decays = trained(module), decaying(module)
    is_text = {name: name.startswith(TEXT_LAYERS) for name in parameters}
    text_scale = 1.0 if text_lr is None else text_lr / settings.lr
    groups = [
        {
            "params": [
                p
                for name, p in parameters.items()
                if (name in decays, is_text[name]) == (has_decay, of_text)
            ],
            "weight_decay": settings.weight_decay if has_decay else 0.0,
            "lr_scale": text_scale if of_text else 1.0,
        }
        for of_text in sorted(set(is_text.values()))
        for has_decay in (True, False)
    ]
    return AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True)


def set_lr(optimiser: AdamW, lr: float) -> None:
    """For the next step: `lr`, times the `lr_scale` of a group."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]


def step_where(optimiser: AdamW, is_finite: Tensor, lr: float) -> None:
    """A step of the fused optimiser. Where `is_finite` [] is False its kernel leaves weights, moments and their count of steps; the host does not wait for it."""
    set_lr(optimiser, lr)
    flagged: Any = optimiser  # as a gradient scaler tells the kernel
    flagged.found_inf = (~is_finite).float()
    try:
        optimiser.step()
    finally:
        del flagged.found_inf


def gradient_norm(module: nn.Module) -> Tensor:
    """The root of the sum of squares of all gradients, over all ranks that hold a piece of them."""
    gradients = [p.grad for p in trained(module).values() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clip(module: nn.Module, norm: Tensor, most: float) -> None:
    """Scale all gradients down so that their norm is at most `most`."""
    torch.nn.utils.clip_grads_with_norm_(trained(module).values(), most, norm)


class EMA:
    """Averaged weights (Polyak & Juditsky 1992): average <- decay * average + (1 - decay) * weight after each step, in fp32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in trained(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, is_finite: Tensor) -> None:
        """After a step of the optimiser. Where `is_finite` [] is False they stay: weights may have moved away from them in steps before."""
        share = torch.where(is_finite, 1.0 - self.decay, 0.0)
        # one kernel for each: `torch._foreach_lerp_` would take a weight for each of them, and three `foreach` operators read and write 2.7 times as much
        for average, p in zip(self.values.values(), trained(module).values(), strict=True):
            own_shard(average).lerp_(own_shard(p.detach()), share)
