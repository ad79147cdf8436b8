"""A code book: each vector becomes its nearest code (VQ-VAE, van den Oord et al. 2017), and codes that nothing is near to are moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.data.rng_keys import Purpose, key_of
from training.lara.settings import LatentActionSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantised:
    """Of [B, Q, C] latent actions. values: their codes, with the gradient of what came in (straight through); code: [B, Q] which;
    codebook, commitment: [B] sums of squared distances, the first moves codes alone, the second what came in alone."""

    values: Tensor
    code: Tensor
    codebook: Tensor
    commitment: Tensor


class CodeBook(nn.Module):
    """Codes, and how much each was used lately."""

    usage: Tensor  # [num_codes] averaged share of the vectors that chose each; they sum to 1

    def __init__(self, settings: LatentActionSettings) -> None:
        super().__init__()
        self.settings = settings
        num = settings.num_codes
        self.codes = nn.Parameter(torch.randn(num, settings.code_width) * 0.1)
        self.register_buffer("usage", torch.full((num,), 1.0 / num))

    def forward(self, z: Tensor) -> Quantised:
        """[B, Q, C]. Distances are taken in float32."""
        flat = z.float()
        codes = self.codes.float()
        code = torch.cdist(flat.detach(), codes.detach()[None]).argmin(-1)
        chosen = fn.embedding(code, codes)
        return Quantised(
            values=(flat + (chosen - flat).detach()).to(z.dtype),
            code=code,
            codebook=(chosen - flat.detach()).square().flatten(1).sum(1),
            commitment=(flat - chosen.detach()).square().flatten(1).sum(1),
        )

    @property
    def perplexity(self) -> float:
        """exp of the entropy of the use of late: num_codes where all are used alike, 1 where all vectors have one code."""
        return perplexity_of(self.usage)

    @property
    def rms(self) -> float:
        """Root mean square of an element of the codes, as they are used."""
        square = self.codes.detach().double().square().mean(1)
        usage = self.usage.double()
        return math.sqrt((usage * square).sum().item() / usage.sum().item())

    @torch.no_grad()
    def moved_codes(
        self, codes: Tensor, z: Tensor, code: Tensor, *, seed: int, step: int
    ) -> Tensor:
        """Note the use of a step, and give [num_codes, C] codes of which the dead ones lie where vectors of the step lie.

        The same on every rank, because all are given the vectors of all ranks. Which vector a code gets is a function of (seed, step).

        Args:
            codes: [num_codes, C] as they are, whole: FSDP2 keeps a piece on each rank.
            z: [M, C] vectors of the whole batch before they were quantised, code: [M] theirs.
        """
        s = self.settings
        if not len(code):
            return codes
        share = torch.bincount(code, minlength=s.num_codes).to(self.usage) / len(code)
        self.usage.lerp_(share, 1.0 - s.usage_decay)
        is_dead = self.usage < s.dead_share / s.num_codes
        generator = torch.Generator().manual_seed(
            int(key_of(seed, step, Purpose.REVIVED_CODES)) >> 1
        )
        order = torch.randperm(len(z), generator=generator)
        place = order.repeat(-(-s.num_codes // len(z)))[: s.num_codes].to(z.device)
        moved = torch.where(is_dead[:, None], z[place].to(codes), codes)
        self.usage.masked_fill_(is_dead, 1.0 / s.num_codes)
        self.usage.div_(self.usage.sum())
        return moved


def perplexity_of(counts: Tensor) -> float:
    """exp of the entropy of [num_codes] counts or shares."""
    share = counts.double() / counts.double().sum().clamp(min=1e-30)
    return float(torch.special.entr(share).sum().exp())
