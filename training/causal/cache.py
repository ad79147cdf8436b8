"""Keys and values of frames and actions that are known, kept between two chunks: the attention mask of training without its cost.

What is kept is only what clean tokens computed: noisy ones are never looked at later. A predicted chunk is kept too, so that its actions can look at its
frames, and dropped as a whole when the true one is observed. `LVA` shows all slots to every query (its pull request 108); here
`training.causal.mask.may_attend` decides for cached keys as for others, so a cached forward pass equals one over everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from training.causal.layout import Tokens
from training.causal.network import KeyValue


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CachedBlock:
    """Clean tokens of one order index: `order`, and keys and values of every block of the network."""

    order: int
    tokens: Tokens
    keys: tuple[KeyValue, ...]
    is_predicted: bool


@dataclass(slots=True, kw_only=True)
class CausalCache:
    """Of one conversation. `window`: order indices that a token looks back; what nothing will look at any more is let go."""

    window: int
    blocks: list[CachedBlock] = field(default_factory=list)

    def add(self, block: CachedBlock) -> None:
        """After those that are there. The next query has a higher order index than `block.order`.

        A prediction pushes out no observed block: it may be dropped, and then the window ends earlier again.
        """
        self.blocks.append(block)
        oldest = block.order + 1 - self.window
        self.blocks = [
            each
            for each in self.blocks
            if each.order >= oldest or (block.is_predicted and not each.is_predicted)
        ]

    def drop_predicted(self) -> None:
        """Nothing of a prediction is left."""
        self.blocks = [each for each in self.blocks if not each.is_predicted]

    @property
    def num_tokens(self) -> int:
        return sum(each.tokens.sample.shape[1] for each in self.blocks)

    def tokens(self) -> Tokens | None:
        """Of all blocks, in their order."""
        out: Tokens | None = None
        for each in self.blocks:
            out = each.tokens if out is None else out.joined(each.tokens)
        return out

    def past(self) -> list[KeyValue] | None:
        """By block of the network, what was computed before."""
        if not self.blocks:
            return None
        return [
            KeyValue(
                key=torch.cat([kept.key for kept in layer], dim=2),
                value=torch.cat([kept.value for kept in layer], dim=2),
            )
            for layer in zip(*(each.keys for each in self.blocks), strict=True)
        ]
