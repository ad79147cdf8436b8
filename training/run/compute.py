"""How much arithmetic a sample costs, how much this device can do, and so how well it is used (MFU).

MFU counts what the mathematics of the trained network needs, forward and backward: not what is computed again to save memory, nor
what a frozen language model does. The peak is measured here and now with one matrix product, not taken from a leaflet.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.model.network import KnownInputs, Network, Text
from training.model.settings import ModelSettings
from training.tasks import TASKS

ROUNDS = 5
SIZE_OF = {"cuda": 8192, "cpu": 1024}  # of a square matrix: large enough that the kernel is all


def flops_per_sample(settings: ModelSettings, num_text: int, num_draws: int = 1) -> int:
    """Forward and backward of all draws of one sample with `num_text` tokens of text. Counted on a network without memory."""
    s, num_samples = settings, len(TASKS)
    size = num_samples * num_draws
    ones = torch.ones
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        known = KnownInputs(
            past=ones(size, s.num_past, s.num_image_tokens, s.latent_width),
            has_past=ones(size, s.num_past, s.num_views, dtype=torch.bool),
            history=ones(size, s.num_history, s.action_width),
            has_history=ones(size, s.num_history, s.action_width, dtype=torch.bool),
            embodiment=torch.zeros(size, dtype=torch.long),
            task=torch.arange(size) // num_draws,
            state=ones(size, s.state_width) if s.state_width else None,
        )
        text = Text(
            values=ones(num_samples, num_text, s.text_width),
            has=ones(num_samples, num_text, dtype=torch.bool),
        )
        action = ones(size, s.num_actions, s.action_width)
        has_action = torch.ones_like(action, dtype=torch.bool)
        future = ones(size, s.num_image_tokens, s.latent_width)
        outputs = Network(s)(known, text, action, has_action, future, ones(size))
        (outputs[0].sum() + outputs[1].sum()).backward()
    return int(counter.get_total_flops()) // num_samples


def matmul_peak(device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Floating point operations a second of a square matrix product, the best of some rounds after a warm-up.

    Args:
        clock: seconds that only go up.
    """
    size = SIZE_OF[device.type]
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
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
