"""Planning: sample several chunks, predict the future image of each by forward dynamics, and carry out the chunk whose image has the highest value.

The idea is that of "Latent Policy Steering with Embodiment-Agnostic Pretrained World Models"; "Select Segments to Imitate" scores segments in a similar way.
Nothing of their code is used. All chunks of all observations are one batch: the number of passes of the network is that of Euler steps, twice.

Each candidate has noise of its own, and the first has that of a policy that does not plan. The noise of the images is the same for all candidates, so that
a difference of values comes from the actions. A chunk is judged by its image at `data.future_s` alone; what it does later is not seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.data.rng_keys import Purpose, key_of
from training.evaluation.draws import Sampler, asked
from training.model.network import KnownInputs
from training.model.text import Text
from training.recipe import TrainRecipe

Value = Callable[[Tensor, Tensor, Text, Tensor | None], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedChunks:
    """action: [B, K, E] the chosen ones. candidates: [B, N, K, E], and values: [B, N] of each."""

    action: Tensor
    candidates: Tensor
    values: Tensor


class Planner:
    """Chooses among `num_chunks` candidates; `about` is what a server and a rollout state of it."""

    def __init__(
        self,
        sampler: Sampler,
        value: Value,
        *,
        noise: Tensor,
        num_chunks: int,
        seed: int,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            value: from images [B, V * N, D], [B, V] which views there are, instructions (of fewer: see `Network`) and states to [B].
            noise: [1, K, E] of the first candidate.
        """
        self.sampler, self.value, self.num_chunks = sampler, value, num_chunks
        self.about = {"num_chunks": num_chunks, **(about or {})}
        more = [_noise(noise[0], seed, number) for number in range(1, num_chunks)]
        self.noise = torch.stack([noise[0].cpu(), *more])
        settings = sampler.learner.network.settings
        image = torch.empty(settings.num_image_tokens, settings.latent_width)
        self.image_noise = _noise(image, seed, 0)

    def chosen(
        self, known: KnownInputs, text: Text, *, future: Tensor, scored: Tensor
    ) -> PlannedChunks:
        """
        Args:
            known, text: of B observations, whose task is the policy's. future: [B, V * N, D] what is in place of an image that the policy does not see.
            scored: [B, K, E] bool, the elements of each embodiment.
        """
        size, num = len(scored), self.num_chunks
        each = repeated(known, num)
        is_asked = scored.repeat_interleave(num, dim=0)
        candidates = self.sampler.action(
            each,
            text,
            future=future.repeat_interleave(num, dim=0),
            scored=is_asked,
            noise=self.noise.to(future.device).repeat(size, 1, 1),
        )
        is_seen = each.has_past[:, -1]
        images = self.sampler.future(
            asked(each, Task.FORWARD_DYNAMICS),
            text,
            action=candidates,
            has_action=is_asked,
            noise=self.image_noise.to(future.device).expand(size * num, -1, -1),
            has_future=is_seen,
        )
        values = self.value(images, is_seen, text, each.state).float().view(size, num)
        by_observation = candidates.view(size, num, *candidates.shape[1:])
        best = values.argmax(dim=1)  # of equal values the first
        action = by_observation[torch.arange(size, device=best.device), best]
        return PlannedChunks(action=action, candidates=by_observation, values=values)


def repeated(known: KnownInputs, num: int) -> KnownInputs:
    """Each sample `num` times, beside itself."""
    changed = {
        field.name: value.repeat_interleave(num, dim=0)
        for field in dataclasses.fields(KnownInputs)
        if (value := getattr(known, field.name)) is not None
    }
    return dataclasses.replace(known, **changed)


def check_can_plan(recipe: TrainRecipe, *, where: str) -> None:
    """
    Raises:
        ConfigError: the run did not train what planning asks.
    """
    weights = recipe.run.loss_weights
    trained = {task for task in recipe.routing.trained if weights[task] > 0}
    absent = {Task.POLICY, Task.FORWARD_DYNAMICS} - trained
    if absent:
        problem = f"planning needs {', '.join(sorted(absent))}, which this run did not train"
        repair = "remove --plan, or train with a share for it (routing.shares)"
        raise ConfigError(problem, remedy=repair, where=where)


def _noise(like: Tensor, seed: int, number: int) -> Tensor:
    """Of one candidate alone, so that the first N of more candidates are the same N. 0 is that of the images."""
    generator = torch.Generator().manual_seed(int(key_of(seed, Purpose.PLAN_NOISE, number)))
    return torch.randn(like.shape, generator=generator)
