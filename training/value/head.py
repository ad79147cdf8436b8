"""The network: tokens of an image are pooled by attention that the instruction steers, and a small perceptron gives the value."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.model.text import Text, padded
from training.value.settings import ValueSettings, ValueShape

NOT_SEEN = -1e4  # attention to a token of a view without an image; finite, so that an image without any view has a value too


class ValueHead(nn.Module):
    """Values in (0, 1) of images: 1 is the end of an episode that succeeds."""

    def __init__(self, shape: ValueShape, settings: ValueSettings) -> None:
        super().__init__()
        self.shape, width, heads = shape, settings.width, settings.num_heads
        num_tokens = shape.num_views * shape.num_patches
        self.norm = nn.LayerNorm(shape.latent_width, elementwise_affine=False)
        self.token = nn.Linear(shape.latent_width, width)
        self.places = nn.Parameter(torch.randn(num_tokens, width) * 0.02)
        self.text = nn.Linear(shape.text_width, width)
        self.state = nn.Linear(shape.state_width, width) if shape.state_width else None
        self.attend = nn.Linear(width, heads)
        self.hidden = nn.Linear((heads + 1) * width, 2 * width)
        self.out = nn.Linear(2 * width, 1)

    def forward(
        self, future: Tensor, has_future: Tensor, instruction: Tensor, state: Tensor | None
    ) -> Tensor:
        """[B] logits.

        Args:
            future: [B, V * N, D] latents. has_future: [B, V] bool, views that have an image.
            instruction: [B, C] of `mean_of`; or of fewer, each of which has equally many images here, beside each other.
            state: [B, S] of the moment from which the image is seen ahead, or None where the recipe has none.
        """
        condition: Tensor = self.text(instruction)
        condition = condition.repeat_interleave(len(future) // len(condition), dim=0)
        if self.state is not None:
            if state is None:
                raise ValueError("the value head expects a state, and there is none")
            condition = condition + self.state(state)
        tokens = fn.gelu(self.token(self.norm(future)) + self.places)
        is_seen = has_future.repeat_interleave(self.shape.num_patches, dim=1)
        attention = self.attend(tokens * (1 + condition[:, None]))
        attention = attention.masked_fill(~is_seen[..., None], NOT_SEEN).softmax(dim=1)
        pooled = torch.einsum("blh,blw->bhw", attention, tokens).flatten(1)
        hidden = fn.gelu(self.hidden(torch.cat([pooled, condition], dim=1)))
        logits: Tensor = self.out(hidden)[:, 0]
        return logits

    def value(self, future: Tensor, has_future: Tensor, text: Text, state: Tensor | None) -> Tensor:
        """[B] in (0, 1); see `forward`. text: of these samples or of fewer, as there."""
        return torch.sigmoid(self(future, has_future, mean_of(text), state))


def mean_of(text: Text) -> Tensor:
    """[B, C] the mean of the normalised tokens of each instruction, 0 of one without tokens."""
    each = padded(text)
    values = fn.layer_norm(each.values.float(), each.values.shape[-1:])
    has = each.has[..., None]
    return torch.where(has, values, 0.0).sum(1) / has.sum(1).clamp(min=1)
