"""In which precision the network computes: the same in training, evaluation and serving, so that what is measured and served is what was trained."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["bf16", "fp32"]  # as `run.precision` of a recipe has it


def computing(precision: Precision, device: torch.device) -> torch.autocast:
    """Around the network and its conditioner. Weights stay fp32; with bf16, matrix products are done in it, and what needs more stays fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
