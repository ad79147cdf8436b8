"""A block-causal network, sequences and conversations small enough for a test."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from training.causal.layout import FrameIndex
from training.causal.network import CausalInputs, CausalNetwork
from training.causal.settings import CausalModelSettings, CausalSampling
from training.model.text import PaddedText

SETTINGS = CausalModelSettings(
    width=24, num_layers=2, num_heads=2, ff_width=40, patch=1, adapter_width=8,
    latent_width=3, grid_height=2, grid_width=2, num_views=1, num_frames=4, text_width=7,
    action_width=5, actions_per_frame=2, num_embodiments=3,
)  # fmt: skip
SAMPLING = CausalSampling(
    chunk=1, window=5, video_steps=3, action_steps=2, video_guidance=2.0, action_guidance=1.5
)


def network(**changed: Any) -> CausalNetwork:
    """Seeded; every zero is replaced by noise, so that every path carries something."""
    torch.manual_seed(0)
    out = CausalNetwork(SETTINGS.model_copy(update=changed))
    with torch.no_grad():
        for p in out.parameters():
            p.add_((p == 0) * 0.05 * torch.randn_like(p))
    return out.eval()


def inputs(
    num_frames: int = 4,
    rows: int = 1,
    *,
    seed: int = 1,
    chunk: int = 1,
    window: int = 64,
    **changed: Any,
) -> CausalInputs:
    """Rows of one whole sample each, in which everything was recorded."""
    g, s = torch.Generator().manual_seed(seed), SETTINGS

    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, num_frames, *shape, generator=g)

    action = (s.actions_per_frame, s.action_width)
    whole = torch.ones(rows, num_frames, dtype=torch.bool)
    base = CausalInputs(
        index=FrameIndex(
            sample=torch.arange(rows)[:, None].expand(rows, num_frames),
            frame=torch.arange(num_frames).expand(rows, num_frames),
        ),
        noisy_video=normal(s.num_latents, s.latent_width),
        clean_video=normal(s.num_latents, s.latent_width),
        has_video=whole[..., None].expand(-1, -1, s.num_views),
        noisy_action=normal(*action),
        clean_action=normal(*action),
        shown=whole[..., None, None].expand(-1, -1, *action),
        has_action=whole[..., None, None].expand(-1, -1, *action),
        predicts=whole[..., None].expand(-1, -1, action[0]),
        embodiment=torch.arange(rows)[:, None].expand(rows, num_frames) % s.num_embodiments,
        video_level=torch.rand(rows, num_frames, generator=g),
        history_level=torch.rand(rows, num_frames, generator=g) * 0.3,
        action_level=torch.rand(rows, num_frames, generator=g),
        text_sample=torch.arange(rows)[:, None].expand(rows, 3),
        chunk=chunk,
        window=window,
    )
    return dataclasses.replace(base, **changed)


def text(rows: int = 1, *, seed: int = 5) -> PaddedText:
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 3, SETTINGS.text_width, generator=g)
    return PaddedText(values=values, has=torch.ones(rows, 3, dtype=torch.bool))
