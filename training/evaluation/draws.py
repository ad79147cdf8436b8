"""What a network says when it is asked: chunks and future pictures, sampled from noise that belongs to the sample alone.

Elements that the body does not have carry no noise and stay 0, as in training (`objective.py`). Those rows of a chunk that lie past the end of a
segment are asked for all the same: a policy that acts does not know where a segment will end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from schemas.supervision import Task
from training.batch import Batch, Origin
from training.conditioning.inputs import TextInputs
from training.data.rng_keys import Purpose, key_of
from training.flow import sampled
from training.learner import Learner
from training.model.network import KnownInputs
from training.model.text import Text
from training.precision import Precision, computing
from training.tasks import INDEX


def noise_of(origin: Origin, shape: tuple[int, ...], *, seed: int, place: int) -> Tensor:
    """[B, *shape] normal numbers, float32 on the CPU: the same for a sample in whatever batch and on whatever machine.

    Args:
        place: which noise of the sample; actions and pictures have different ones.
    """
    generator = torch.Generator()
    out = torch.empty(len(origin.row), *shape)
    for i, (row, timestep) in enumerate(zip(origin.row, origin.timestep, strict=True)):
        key = key_of(seed, Purpose.EVALUATION_NOISE, place, int(row), int(timestep))
        generator.manual_seed(int(key))
        out[i].normal_(generator=generator)
    return out


def asked(known: KnownInputs, task: Task) -> KnownInputs:
    """The same samples, of another task."""
    return dataclasses.replace(known, task=torch.full_like(known.task, INDEX[task]))


_ACTION, _PICTURE = 0, 1  # which noise of a sample


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleNoise:
    """That of the samples of a batch, made where it is needed, on the batch's device."""

    batch: Batch
    seed: int

    @property
    def action(self) -> Tensor:
        """[B, K, E]."""
        return self._like(self.batch.action, _ACTION)

    @property
    def picture(self) -> Tensor:
        """[B, V * N, D]."""
        return self._like(self.batch.future, _PICTURE)

    def _like(self, x: Tensor, place: int) -> Tensor:
        shape = tuple(x.shape[1:])
        return noise_of(self.batch.origin, shape, seed=self.seed, place=place).to(x.device)


class Answering(Protocol):
    """Who is evaluated: a trained network of some architecture, and how it is asked."""

    @property
    def learner(self) -> nn.Module: ...

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        ...

    def encode_text(self, text_inputs: TextInputs) -> Text:
        """The instructions of B samples."""
        ...

    def chunk(self, batch: Batch, text: Text, task: Task, noise: SampleNoise) -> Tensor:
        """[B, K, E] the normalised actions of a batch, of a task that says actions."""
        ...

    def picture(self, batch: Batch, text: Text, task: Task, noise: SampleNoise) -> Tensor:
        """[B, V * N, D] the latents of its future picture, of a task that says pictures."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampler:
    """A trained network of four tasks, and how it is asked: computing as in training, in `num_steps` of Euler.

    Noise, the steps and what is answered are float32 in either precision.
    """

    learner: Learner
    precision: Precision
    num_steps: int

    def chunk(self, batch: Batch, text: Text, task: Task, noise: SampleNoise) -> Tensor:
        """[B, K, E]; see `Answering`."""
        return self.action(
            asked(batch.known, task),
            text,
            future=batch.future,
            scored=batch.asked[:, None].expand_as(batch.has_action),
            noise=noise.action,
            has_future=batch.has_future,
        )

    def picture(self, batch: Batch, text: Text, task: Task, noise: SampleNoise) -> Tensor:
        """[B, V * N, D]; see `Answering`."""
        return self.future(
            asked(batch.known, task),
            text,
            action=batch.action,
            has_action=batch.has_action,
            noise=noise.picture,
            has_future=batch.has_future,
        )

    def encode_text(self, text_inputs: TextInputs) -> Text:
        """The instructions of B samples."""
        with computing(self.precision, text_inputs.device):
            text: Text = self.learner.conditioner(text_inputs)
        return text

    def action(
        self,
        known: KnownInputs,
        text: Text,
        *,
        future: Tensor,
        scored: Tensor,
        noise: Tensor,
        has_future: Tensor | None = None,
    ) -> Tensor:
        """[B, K, E] normalised chunk; `known.task` is a task that says actions. `future` counts only where the task sees it.

        Args:
            scored: [B, K, E] bool, all that the embodiment has: which of it will be recorded is unknown beforehand. noise: the same shape.
        """

        def velocity_at(x: Tensor, t: Tensor) -> Tensor:
            velocities = self.learner.network(
                known, text, x, scored, future, t, has_future=has_future
            )
            return torch.where(scored, velocities[0].float(), 0.0)

        return self._sampled(torch.where(scored, noise, 0.0), velocity_at)

    def future(
        self,
        known: KnownInputs,
        text: Text,
        *,
        action: Tensor,
        has_action: Tensor,
        noise: Tensor,
        has_future: Tensor | None = None,
    ) -> Tensor:
        """[B, V * N, D] latents; `known.task` is a task that says pictures. `action` [B, K, E] counts only where the task knows it."""

        def velocity_at(x: Tensor, t: Tensor) -> Tensor:
            velocities = self.learner.network(
                known, text, action, has_action, x, t, has_future=has_future
            )
            out: Tensor = velocities[1].float()
            return out

        return self._sampled(noise, velocity_at)

    def _sampled(self, noise: Tensor, velocity_at: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Autocast is around all steps, since it keeps the weights that it has cast until it ends (under `no_grad`, not under `inference_mode`); sums of float32 it leaves as they are."""
        with computing(self.precision, noise.device):
            return sampled(noise, velocity_at, num_steps=self.num_steps)
