"""A block-causal network under the trainer: what is drawn for a step, what each task of a sample trains, and the terms of the loss.

| task | shown as they were | predicted and scored |
|---|---|---|
| policy (tier high) | frames, actions | frames and actions |
| forward_dynamics (also tier low) | frames, actions | frames |
| visual_forecasting (also without actions) | frames | frames |

Actions that a task does not show are masked, not zero. The loss is L_action + L_video, each a mean over frames: the terms of `training/loss.py`
hold the former as policy, the latter as forward_dynamics where actions were shown and visual_forecasting where not; `weighted` divides both by all frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from schemas.supervision import Task
from training.batch import Batch
from training.causal.layout import NOWHERE, Blocks, drawn_blocks
from training.causal.network import CausalInputs, CausalNetwork
from training.causal.objective import (
    bell_weight,
    frame_errors,
    level_of,
    mixed_with_noise,
    noise_velocity,
    u_from,
)
from training.conditioning.protocol import Conditioner
from training.data.rng_keys import Purpose
from training.data.sequences import Sequences, sequences_of
from training.loss import Terms
from training.model.text import PaddedText, padded
from training.run.noise import normal_of, sample_keys, uniform_of
from training.tasks import INDEX, TASKS, is_any
from training.trainable import ScoredRows, Trainable

_CHANCE, _LEVELS, _VIDEO, _ACTION = range(4)  # which numbers of a sample
NEARER_TO_DATA = 0.5  # u of a noisy history: timestep ids from one half on, which LingBot-VA counts from noise to data


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CausalDraw:
    """Of B samples: u of their levels [B, F], 0 for a clean history; noise like what it is mixed with; [B] whose text is dropped."""

    blocks: Blocks
    video_u: Tensor
    history_u: Tensor
    action_u: Tensor
    video_noise: Tensor
    history_noise: Tensor
    action_noise: Tensor
    drops_text: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """What of B sequences counts. video: [B, F, N, 1]. action: [B, F, n, E]."""

    video: Tensor
    action: Tensor

    def rows_of(self, task: Tensor) -> ScoredRows:
        """The video row of every sample, then the action row of those that have one."""
        here = torch.arange(len(task), device=task.device)
        acts = here[is_any(task, Task.POLICY)]
        watches = torch.where(
            is_any(task, Task.VISUAL_FORECASTING),
            INDEX[Task.VISUAL_FORECASTING],
            INDEX[Task.FORWARD_DYNAMICS],
        )
        policy = torch.full_like(acts, INDEX[Task.POLICY])
        return ScoredRows(sample=torch.cat([here, acts]), task=torch.cat([watches, policy]))


class CausalLearner(Trainable):
    """One forward pass is one set of terms."""

    network: CausalNetwork

    def __init__(self, network: CausalNetwork, conditioner: Conditioner) -> None:
        super().__init__()
        self.network, self.conditioner, self.lara = network, conditioner, None

    @property
    def blocks(self) -> list[nn.Module]:
        return [*self.network.blocks]

    def drawn(
        self, batch: Batch, *, seed: int, step: int, first: int, num_draws: int
    ) -> tuple[CausalDraw]:
        """On the device of the batch. Each sample has a key of its own, as in `training/run/noise.py`; chunk and window are the step's.

        Raises:
            ValueError: several draws of a sample.
        """
        if num_draws != 1:
            raise ValueError(f"{num_draws} draws of a sample; a block-causal network has 1")
        objective, like = self.network.settings.objective, sequences_of(batch)
        size, num_frames = like.latents.shape[:2]
        device = batch.action.device
        keys = sample_keys(seed, step, Purpose.CAUSAL_NOISE, first=first, num=size, device=device)
        chance = uniform_of(keys, _CHANCE, (2,))
        uniform = uniform_of(keys, _LEVELS, (3, num_frames)).transpose(0, 1)
        u = u_from(uniform[:2])
        history_u = u_from(uniform[2], highest=NEARER_TO_DATA)
        latents = normal_of(keys, _VIDEO, (2, *like.latents.shape[1:]))
        is_noisy = chance[:, :1] < objective.noisy_history
        draw = CausalDraw(
            blocks=drawn_blocks(objective, seed=seed, step=step),
            video_u=u[0],
            history_u=torch.where(is_noisy, history_u, 0.0),
            action_u=u[1],
            video_noise=latents[:, 0],
            history_noise=latents[:, 1],
            action_noise=normal_of(keys, _ACTION, tuple(like.action.shape[1:])),
            drops_text=chance[:, 1] < objective.text_dropout,
        )
        return (draw,)

    def forward(self, batch: Batch, draw: CausalDraw) -> Terms:
        """The terms of these samples. In evaluation no text is dropped."""
        text = padded(self.conditioner(batch.text_inputs))
        if self.training:
            text = replace(text, has=text.has & ~draw.drops_text[:, None])
        objective, like = self.network.settings.objective, sequences_of(batch)
        inputs = self.inputs(like, draw, text)
        said_video, said_action = self.network(inputs, text)
        video_error = said_video - noise_velocity(like.latents, draw.video_noise)
        action_error = said_action - noise_velocity(like.action, draw.action_noise)
        scored = self._scored(like)
        video, _ = frame_errors(video_error.float().square(), scored.video.expand_as(video_error))
        action, _ = frame_errors(action_error.float().square(), scored.action)
        video = video * bell_weight(inputs.video_level, objective.video_shift)
        action = action * bell_weight(inputs.action_level, objective.action_shift)
        terms = self._terms(like, scored, video.sum(1), action.sum(1))
        return replace(terms, image_text=self.answer_loss(batch))

    def inputs(self, like: Sequences, draw: CausalDraw, text: PaddedText) -> CausalInputs:
        """What the network is shown."""
        objective = self.network.settings.objective
        video_level = level_of(draw.video_u, objective.video_shift)
        if objective.known_first:
            video_level = torch.where(like.index.frame == 0, 0.0, video_level)
        history_level = level_of(draw.history_u, objective.video_shift)
        action_level = level_of(draw.action_u, objective.action_shift)
        shown = like.asked[:, None, None].expand_as(like.action)
        acting = mixed_with_noise(like.action, draw.action_noise, action_level)
        is_policy = is_any(like.task, Task.POLICY)[:, None]
        is_present = like.index.sample != NOWHERE
        num_rows = like.action.shape[2]
        return CausalInputs(
            index=like.index,
            noisy_video=mixed_with_noise(like.latents, draw.video_noise, video_level),
            clean_video=mixed_with_noise(like.latents, draw.history_noise, history_level),
            has_video=like.has_video,
            noisy_action=torch.where(shown, acting, 0.0),
            clean_action=like.action,
            shown=shown,
            has_action=like.has_action,
            predicts=(is_policy & is_present)[..., None].expand(-1, -1, num_rows),
            embodiment=like.embodiment[:, None].expand_as(like.index.frame),
            video_level=video_level,
            history_level=history_level,
            action_level=action_level,
            text_sample=torch.zeros_like(text.has, dtype=torch.long),
            chunk=draw.blocks.chunk,
            window=draw.blocks.window,
        )

    def num_scored(self, batch: Batch) -> Tensor:
        """[4] frames."""
        like = sequences_of(batch)
        no_error = torch.zeros(len(like.task), device=like.task.device)
        return self._terms(like, self._scored(like), no_error, no_error).counts

    def rows_of(self, batch: Batch) -> ScoredRows:
        return self._scored(sequences_of(batch)).rows_of(batch.known.task)

    def _scored(self, like: Sequences) -> _Scored:
        """Frames that there are, but for a first one that was known; actions that were recorded, of which `rows_of` takes the policy's."""
        objective = self.network.settings.objective
        num_latents = like.latents.shape[2] // like.has_video.shape[2]
        video = like.has_video.repeat_interleave(num_latents, dim=2)
        if objective.known_first:
            video = video & (like.index.frame > 0)[..., None]
        return _Scored(video=video[..., None], action=like.has_action)

    def _terms(self, like: Sequences, scored: _Scored, video: Tensor, action: Tensor) -> Terms:
        """
        Args:
            video, action: [B] sums over frames.
        """
        rows = scored.rows_of(like.task)
        num_video = scored.video.flatten(2).any(dim=2).sum(1)
        num_action = scored.action.flatten(2).any(dim=2).sum(1)
        acts = rows.sample[len(like.task) :]
        sums = torch.cat([video, action[acts]])
        counts = torch.cat([num_video, num_action[acts]])
        of_task = torch.stack([is_any(rows.task, each) for each in TASKS])
        # what no sample scores has a gradient of 0, and none is missing: DDP waits for all of them
        nothing = 0.0 * (video.sum() + action.sum())
        return Terms(
            sums=torch.where(of_task, sums, 0.0).sum(1) + nothing,
            counts=torch.where(of_task, counts, 0).sum(1),
            sample_sums=sums.detach(),
            sample_counts=counts,
        )
