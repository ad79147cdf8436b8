"""The learning rate of a step: linear warm-up, then half a cosine down to `min_lr` (Loshchilov & Hutter 2017, without restarts)."""

from __future__ import annotations

import math

from training.recipe import OptimiserSettings


def lr_at(step: int, settings: OptimiserSettings, num_steps: int) -> float:
    """The rate with which step `step` (from 0) changes the weights; a function of it alone, so there is nothing to save.

    Step `warmup_steps - 1` is the first at full rate, and the last step is nearly at `min_lr`. A warm-up longer than the run never ends.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    share = min(1.0, (step - warmup) / max(1, num_steps - warmup))
    down = 0.5 * (1.0 + math.cos(math.pi * share))
    return settings.min_lr + (settings.lr - settings.min_lr) * down
