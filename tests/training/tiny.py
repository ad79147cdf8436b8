"""A network and batches small enough for a test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.batch import Batch, Origin
from training.conditioning.inputs import TextInputs
from training.model.network import KnownInputs, Network
from training.model.settings import ModelSettings
from training.model.text import Text, TextLayout
from training.tasks import TASKS

SETTINGS = ModelSettings(
    width=32, num_layers=2, num_heads=4, num_registers=3, latent_width=6, num_patches=4, text_width=10,
    action_width=5, num_history=2, num_actions=6, num_embodiments=3, adapter_width=8,
)  # fmt: skip


def network(*, awake: bool = True, **changed: Any) -> Network:
    """A seeded network; `awake` replaces every zero by noise, so that every path carries something."""
    torch.manual_seed(0)
    made = Network(SETTINGS.model_copy(update=changed))
    if awake:
        with torch.no_grad():
            for p in made.parameters():
                p.add_((p == 0) * 0.05 * torch.randn_like(p))
    return made.eval()


class ScriptedNetwork(torch.nn.Module):
    """A network whose answer a test writes down: `velocities` of actions and of the future image."""

    def forward(
        self,
        known: KnownInputs,
        text: Text,
        action: torch.Tensor,
        has_action: torch.Tensor,
        future: torch.Tensor,
        t: torch.Tensor,
        *,
        has_future: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.velocities(known, action, future, t)

    def velocities(
        self,
        known: KnownInputs,
        action: torch.Tensor,
        future: torch.Tensor,
        t: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        raise NotImplementedError


def batch(
    tasks: list[int] | None = None, *, seed: int = 1, num_text: int = 5, s: ModelSettings = SETTINGS
) -> Batch:
    """Samples of these tasks (all four by default), with some history, actions and words missing."""
    g = torch.Generator().manual_seed(seed)
    task = torch.tensor(list(range(len(TASKS))) if tasks is None else tasks)
    size = len(task)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(size, *shape, generator=g)

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(size, *shape, generator=g) < 0.7

    known = KnownInputs(
        past=normal(s.num_past, s.num_image_tokens, s.latent_width),
        has_past=chance(s.num_past, s.num_views),
        history=normal(s.num_history, s.action_width),
        has_history=chance(s.num_history, s.action_width),
        embodiment=torch.arange(size) % s.num_embodiments,
        task=task,
        state=normal(s.state_width) if s.state_width else None,
    )
    action, has_action = (
        normal(s.num_actions, s.action_width),
        chance(s.num_actions, s.action_width),
    )
    return Batch(
        known=known,
        action=action,
        has_action=has_action,
        asked=has_action.any(dim=1),
        future=normal(s.num_image_tokens, s.latent_width),
        has_future=torch.ones(size, s.num_views, dtype=torch.bool),
        action_t_s=0.1 * torch.arange(1, s.num_actions + 1),
        future_t_s=0.3,
        text_inputs=inputs_of(normal(num_text, s.text_width), chance(num_text)),
        origin=Origin(row=np.arange(size), timestep=3 * np.arange(size)),
    )


def text_of(made: Batch) -> Text:
    """The words of these samples, as a conditioner would tell them."""
    return Text(values=made.text_inputs.by_token["values"], layout=made.text_inputs.layout)


def packed(values: torch.Tensor, has: torch.Tensor) -> Text:
    """Texts [B, T, C], each sample's own, with the tokens [B, T] that there are."""
    lengths, numbers = has.sum(dim=1).numpy(), np.arange(len(has))
    return Text(values=values[has], layout=TextLayout(num_tokens=lengths, text_of=numbers))


def inputs_of(values: torch.Tensor, has: torch.Tensor) -> TextInputs:
    """The same for a conditioner whose features are text already."""
    text = packed(values, has)
    return TextInputs(layout=text.layout, by_token={"values": text.values})


def chosen(text: Text, samples: list[int]) -> Text:
    """Of some samples, in another order, one perhaps several times."""
    layout = TextLayout(num_tokens=text.layout.num_tokens, text_of=text.layout.text_of[samples])
    return Text(values=text.values, layout=layout)


def tokens_of(text: Text, sample: int) -> torch.Tensor:
    """[T, C] of one sample."""
    each = torch.split(text.values, text.layout.num_tokens.tolist())
    return each[text.layout.text_of[sample]]


def noise_of(made: Batch, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Times [B], action noise and picture noise."""
    g = torch.Generator().manual_seed(seed)
    t = torch.rand(len(made.known.task), generator=g)
    return (
        t,
        torch.randn(made.action.shape, generator=g),
        torch.randn(made.future.shape, generator=g),
    )
