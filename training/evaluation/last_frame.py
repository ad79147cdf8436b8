"""A block-causal network asked for the last frame of samples and for the motions to it, many samples at once: what `eicorpus eval` scores.

All frames before are shown as they were, each a chunk of its own, and nothing is cached. For one sample `CausalSampler` says the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from schemas.supervision import Task
from training.batch import Batch
from training.causal.layout import Blocks
from training.causal.learner import CausalDraw, CausalLearner
from training.causal.network import CausalInputs
from training.causal.objective import sampling_levels
from training.causal.settings import CausalObjective
from training.conditioning.inputs import TextInputs
from training.data.sequences import Sequences, sequences_of
from training.evaluation.draws import SampleNoise, asked
from training.model.text import PaddedText, Text, padded
from training.precision import Precision, computing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LastFrameSampler:
    """As `training.evaluation.draws.Answering` says. Guidance is the recipe's."""

    learner: CausalLearner
    precision: Precision
    video_steps: int
    action_steps: int

    def encode_text(self, text_inputs: TextInputs) -> Text:
        """The instructions of B samples."""
        with computing(self.precision, text_inputs.device):
            text: Text = self.learner.conditioner(text_inputs)
        return text

    @torch.no_grad()
    def chunk(self, batch: Batch, text: Text, task: Task, noise: SampleNoise) -> Tensor:
        """[B, K, E]: the last frame is denoised first, and the motions look at what came of it, as when it acts."""
        like, own_text = sequences_to_the_last(batch, task), padded(text)
        shown = self._shown(like, own_text)
        shown = replace(
            shown,
            clean_video=_with_last(shown.clean_video, self._frame(shown, own_text, noise.picture)),
        )
        sampling, objective = self.learner.network.settings.sampling, self._objective
        has = like.asked[:, None]

        def velocity(x: Tensor, level: Tensor) -> Tensor:
            now = replace(
                shown,
                noisy_action=_with_last(shown.noisy_action, x),
                action_level=_with_last(shown.action_level, level.expand(len(x))),
            )
            velocity_at = self._guided(now, own_text, 1, sampling.action_guidance)
            return torch.where(has, velocity_at, 0.0)

        first = torch.where(has, noise.action, 0.0)
        return self._denoised(first, velocity, self.action_steps, objective.action_shift)

    @torch.no_grad()
    def picture(self, batch: Batch, text: Text, task: Task, noise: SampleNoise) -> Tensor:
        """[B, V * N, D]."""
        own_text = padded(text)
        shown = self._shown(sequences_to_the_last(batch, task), own_text)
        return self._frame(shown, own_text, noise.picture)

    @property
    def _objective(self) -> CausalObjective:
        return self.learner.network.settings.objective

    def _frame(self, shown: CausalInputs, text: PaddedText, noise: Tensor) -> Tensor:
        guidance = self.learner.network.settings.sampling.video_guidance

        def velocity(x: Tensor, level: Tensor) -> Tensor:
            now = replace(
                shown,
                noisy_video=_with_last(shown.noisy_video, x),
                video_level=_with_last(shown.video_level, level.expand(len(x))),
            )
            return self._guided(now, text, 0, guidance)

        return self._denoised(noise, velocity, self.video_steps, self._objective.video_shift)

    def _guided(self, inputs: CausalInputs, text: PaddedText, part: int, guidance: float) -> Tensor:
        """Of the last frame: the velocity of its latents (part 0) or of its motions (part 1)."""
        network = self.learner.network
        velocity: Tensor = network(inputs, text)[part][:, -1].float()
        if guidance == 1.0:
            return velocity
        without = replace(text, has=torch.zeros_like(text.has))
        plain: Tensor = network(inputs, without)[part][:, -1].float()
        return plain + guidance * (velocity - plain)

    def _denoised(
        self,
        noise: Tensor,
        velocity: Callable[[Tensor, Tensor], Tensor],
        num_steps: int,
        shift: float,
    ) -> Tensor:
        """Euler steps from level 1 to 0, in float32."""
        x = noise.float()
        with computing(self.precision, x.device):
            for level, later in pairwise(sampling_levels(num_steps, shift, x.device)):
                x = x + (later - level) * velocity(x, level)
        return x

    def _shown(self, like: Sequences, text: PaddedText) -> CausalInputs:
        """The sequence without any noise."""
        zeros = torch.zeros(like.latents.shape[:2], device=like.latents.device)
        draw = CausalDraw(
            blocks=Blocks(chunk=1, window=self.learner.network.settings.sampling.window),
            video_u=zeros,
            history_u=zeros,
            action_u=zeros,
            video_noise=torch.zeros_like(like.latents),
            history_noise=torch.zeros_like(like.latents),
            action_noise=torch.zeros_like(like.action),
            drops_text=torch.zeros_like(like.task, dtype=torch.bool),
        )
        return self.learner.inputs(like, draw, text)


def sequences_to_the_last(batch: Batch, task: Task) -> Sequences:
    """The samples of this task. The last frame is asked for though the segment may end before it: who acts does not know where it will end."""
    like = sequences_of(replace(batch, known=asked(batch.known, task)))
    sample, has_video = like.index.sample.clone(), like.has_video.clone()
    sample[:, -1] = sample[:, -2]
    has_video[:, -1] = has_video[:, -2]
    return replace(like, index=replace(like.index, sample=sample), has_video=has_video)


def _with_last(frames: Tensor, last: Tensor) -> Tensor:
    return torch.cat([frames[:, :-1], last[:, None]], dim=1)
