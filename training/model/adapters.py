"""Between an embodiment's action elements and the network's width: a small layer of each embodiment, a large one for all.

LDA gives every embodiment layers of the full width, 233 M + 221 M for 32 of them (`models.md` 1.6), of which a rare robot sees few
samples. Here an embodiment has what can be its own: which elements there are and how they are scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.model.block import timestep_features

FEW = 16  # elements that an embodiment usually has of those of all: between 7 of a gripper and 69 of a hand


class Bank(nn.Module):
    """A linear layer for each of E embodiments: [B, L, n] and [B] to [B, L, m].

    Only the layers named in a batch get a gradient. AdamW moves the others too: by the momentum of earlier batches, and by decay (`weight`).

    Initial weights have the variance 1 / min(n, FEW). With 1 / n, the few elements that an embodiment has of 172 were drowned by
    the features of time beside them, and a small network did not learn any action in 300 steps.

    Each sample's layer is copied: with its gradient 3.9 MB of the 124 MB that a sample of `lda_1b` reads and writes outside of the blocks
    (`benchmarks/fusion_counts.py`). `torch.nn.functional.grouped_mm` would copy none, but takes rows of whole 16 bytes, and 172 elements in
    bf16 are not that.
    """

    def __init__(self, num_embodiments: int, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_embodiments, num_in, num_out))
        self.bias = nn.Parameter(torch.zeros(num_embodiments, num_out))
        nn.init.normal_(self.weight, std=min(num_in, FEW) ** -0.5)

    def forward(self, x: Tensor, embodiment: Tensor) -> Tensor:
        """Raises IndexError for an embodiment that has no layer (on a GPU: an assertion of the device)."""
        return torch.baddbmm(self.bias[embodiment][:, None], x, self.weight[embodiment])


class VectorEncoder(nn.Module):
    """[B, L, n] elements to [B, L, width] tokens; `with_time` also mixes in the flow time of each token."""

    def __init__(
        self, num_embodiments: int, num_in: int, inner: int, width: int, *, with_time: bool
    ) -> None:
        super().__init__()
        self.own = Bank(num_embodiments, num_in, inner)
        self.width = width
        self.with_time = with_time
        self.mix = nn.Linear(inner + (width if with_time else 0), width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, embodiment: Tensor, t: Tensor | None = None) -> Tensor:
        """`t` [B, L] in [0, 1]; 1 is clean."""
        tokens = self.own(x, embodiment)
        if self.with_time:
            if t is None:
                raise ValueError("this encoder needs the time of each token")
            tokens = torch.cat([tokens, timestep_features(t, self.width).to(tokens.dtype)], dim=-1)
        out: Tensor = self.out(fn.silu(self.mix(tokens)))
        return out


class VectorDecoder(nn.Module):
    """[B, L, width] tokens to [B, L, n] velocities; zero at first."""

    def __init__(self, num_embodiments: int, width: int, inner: int, num_out: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, inner)
        self.own = Bank(num_embodiments, inner, num_out)
        nn.init.zeros_(self.own.weight)

    def forward(self, tokens: Tensor, embodiment: Tensor) -> Tensor:
        out: Tensor = self.own(fn.silu(self.shared(tokens)), embodiment)
        return out
