"""How well a block-causal network says the next frame and the actions that lead to it, beside copying the last frame and standing still."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from schemas.supervision import Task
from training.batch import Batch
from training.causal.layout import NOWHERE, Blocks
from training.causal.learner import CausalDraw, CausalLearner
from training.causal.objective import sampling_levels
from training.data.normalise import Normaliser
from training.data.rng_keys import key_of
from training.data.sequences import Sequences, sequences_of
from training.model.network import Text
from training.tasks import INDEX

PURPOSE = 16  # of the keys of noise


@dataclass(frozen=True, slots=True, kw_only=True)
class NextFrameErrors:
    """Means over the last frames of N samples, each of which had an earlier frame.

    forecast, copy: squared error of latents, and that of the frame before. action, middle, still: squared error of normalised motions where
    they were recorded, that of the middle of their range, and that of no motion at all; None where there were no motions.
    """

    num_samples: int
    forecast: float
    copy: float
    action: float | None
    middle: float | None
    still: float | None


@torch.no_grad()
def next_frame_errors(
    learner: CausalLearner,
    batches: Iterable[Batch],
    normaliser: Normaliser,
    motions: Tensor,
    *,
    seed: int = 0,
) -> NextFrameErrors:
    """Of policy samples: all frames but the last are shown as they were.

    Args:
        motions: [E] bool, elements of actions that are 0 where nothing moves.

    Raises:
        ValueError: there is no sample with two frames.
    """
    learner.eval()
    sums, counts = torch.zeros(5, dtype=torch.float64), torch.zeros(2)
    for batch in batches:
        like, text = sequences_of(batch), learner.conditioner(batch.text_inputs)
        latents, action = sampled_last(learner, like, text, seed=seed)
        has = (like.index.sample[:, -2:] != NOWHERE).all(dim=1)
        video = torch.stack([latents, like.latents[:, -2]]) - like.latents[:, -1]
        sums[:2] += video.square().mean(dim=(2, 3))[:, has].double().sum(1)
        scored = like.has_action[:, -1] & motions & has[:, None, None]
        still = normaliser.encode(torch.zeros_like(action), like.embodiment)
        acting = torch.stack([action, torch.zeros_like(action), still]) - like.action[:, -1]
        sums[2:] += acting.square()[:, scored].double().sum(1)
        counts += torch.stack([has.sum(), scored.sum()])
    num, num_actions = counts.tolist()
    if not num:
        raise ValueError("no sample with two frames")
    video_means, action_means = (sums[:2] / num).tolist(), (sums[2:] / max(num_actions, 1)).tolist()
    return NextFrameErrors(
        num_samples=int(num),
        forecast=video_means[0],
        copy=video_means[1],
        action=action_means[0] if num_actions else None,
        middle=action_means[1] if num_actions else None,
        still=action_means[2] if num_actions else None,
    )


@torch.no_grad()
def sampled_last(
    learner: CausalLearner, like: Sequences, text: Text, *, seed: int
) -> tuple[Tensor, Tensor]:
    """[B, N, D] the last frame and [B, n, E] the normalised actions that lead to it, each frame a chunk of its own. Without a cache."""
    settings = learner.network.settings
    sampling, objective = settings.sampling, settings.objective
    generator = torch.Generator().manual_seed(int(key_of(seed, PURPOSE)))
    x = torch.randn(like.latents[:, -1].shape, generator=generator).to(like.latents)
    a = torch.randn(like.action[:, -1].shape, generator=generator).to(like.action)
    a = torch.where(like.asked[:, None], a, 0.0)
    like = replace(like, task=torch.full_like(like.task, INDEX[Task.POLICY]))
    shown = learner.inputs(like, _no_noise(like, settings.sampling.window), text)
    network = learner.network
    for level, later in _steps(sampling.video_steps, objective.video_shift):
        now = replace(
            shown,
            noisy_video=_with_last(shown.noisy_video, x),
            video_level=_with_last(shown.video_level, torch.full_like(x[:, 0, 0], level)),
        )
        x = x + (later - level) * network(now, text)[0][:, -1]
    shown = replace(shown, clean_video=_with_last(shown.clean_video, x))
    for level, later in _steps(sampling.action_steps, objective.action_shift):
        now = replace(
            shown,
            noisy_action=_with_last(shown.noisy_action, a),
            action_level=_with_last(shown.action_level, torch.full_like(a[:, 0, 0], level)),
        )
        a = a + (later - level) * torch.where(
            like.asked[:, None], network(now, text)[1][:, -1], 0.0
        )
    return x, a


def _with_last(frames: Tensor, last: Tensor) -> Tensor:
    return torch.cat([frames[:, :-1], last[:, None]], dim=1)


def _no_noise(like: Sequences, window: int) -> CausalDraw:
    none = torch.zeros(like.latents.shape[:2], device=like.latents.device)
    return CausalDraw(
        blocks=Blocks(chunk=1, window=window),
        video_u=none,
        history_u=none,
        action_u=none,
        video_noise=torch.zeros_like(like.latents),
        history_noise=torch.zeros_like(like.latents),
        action_noise=torch.zeros_like(like.action),
        drops_text=torch.zeros_like(like.task, dtype=torch.bool),
    )


def _steps(num_steps: int, shift: float) -> list[tuple[float, float]]:
    return list(pairwise(sampling_levels(num_steps, shift, torch.device("cpu")).tolist()))
