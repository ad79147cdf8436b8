"""LARA beside the four tasks: the latent action model's own loss, and the alignment of the policy with it. Which sample trains what is decided here.

| sample | L_LAM | alignment |
|---|---|---|
| any tier, both pictures of a view there | yes | |
| the same, task policy, segment that may teach the policy | yes | yes |
| inverse or forward dynamics, forecasting, low tier, a missing picture | by its pictures | no |
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from schemas.supervision import Task
from training.batch import Batch
from training.lara.latent_action import LatentActionModel, PictureShape
from training.lara.settings import JointStage, LatentActionStage
from training.model.network import Tap
from training.model.precondition import Std, channel_std
from training.tasks import is_any

TERMS = ("reconstruction", "codebook", "commitment", "alignment")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaraTerms:
    """sums, counts: [B, 4] of each sample, by TERMS: squared errors and elements; alignment is 1 - cos, and a draw counts 1.

    For the log, without gradient: copied [B] squared error of saying that nothing changes, strange [B] sums of the cosine with another sample's
    latent action; z [B, Q, C] and code [B, Q], is_scored [B] whether they are of pictures that are there.
    """

    sums: Tensor
    counts: Tensor
    copied: Tensor
    strange: Tensor
    z: Tensor
    code: Tensor
    is_scored: Tensor


class Projector(nn.Module):
    """A hidden state [B, width] to a latent action [B, Q * C]: one linear layer, as the release's."""

    def __init__(self, width: int, lam: LatentActionModel) -> None:
        super().__init__()
        self.linear = nn.Linear(width, lam.settings.num_queries * lam.settings.code_width)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.linear(hidden)
        return out


class Lara(nn.Module):
    """The latent action model, and in the joint stage the projector."""

    unit: Tensor  # [D] `change_std` of each channel

    def __init__(
        self,
        settings: LatentActionStage | JointStage,
        shape: PictureShape,
        *,
        change_std: Std,
        policy_width: int | None,
    ) -> None:
        """
        Args:
            change_std: how far latents move from one picture to the next, of each channel or of all; errors are in units of it.
            policy_width: of the hidden states that are aligned; None where there is no policy.
        """
        super().__init__()
        self.settings, self.change_std = settings, change_std
        unit = channel_std(change_std, shape.latent_width)
        self.register_buffer("unit", unit, persistent=False)
        self.lam = LatentActionModel(settings.lam, shape)
        self.projector = None if policy_width is None else Projector(policy_width, self.lam)
        self.is_frozen = isinstance(settings, JointStage) and settings.freeze_lam
        self.lam.requires_grad_(not self.is_frozen)

    def num_parameters(self) -> dict[str, int]:
        """By part."""
        parts = {f"latent action {k}": n for k, n in self.lam.num_parameters().items()}
        if self.projector is not None:
            parts["projector"] = sum(p.numel() for p in self.projector.parameters())
        return parts

    def tap(self) -> Tap | None:
        """Where the policy's hidden states are to be taken; None where nothing is aligned."""
        return Tap(self.settings.after_block) if isinstance(self.settings, JointStage) else None

    def forward(self, batch: Batch, tap: Tap | None, num_draws: int) -> LaraTerms:
        """
        Args:
            tap: filled by the policy's pass over `num_draws` draws of each sample, beside each other.
        """
        seen = pairs_of(batch)
        pair = self.lam(seen.now, seen.later, seen.has)
        change = (seen.later - seen.now) / self.unit
        error = torch.where(seen.has[..., None], pair.change.float() - change, 0.0).square()
        copied = torch.where(seen.has[..., None], change, 0.0).square().flatten(1).sum(1)
        is_scored = seen.has.any(1)
        aligned, strange = self._alignment(batch, tap, pair.z, num_draws)
        columns = [
            error.flatten(1).sum(1),
            torch.where(is_scored, pair.quantised.codebook, 0.0),
            torch.where(is_scored, pair.quantised.commitment, 0.0),
            aligned,
        ]
        return LaraTerms(
            sums=torch.stack(columns, dim=1),
            counts=scored_of(batch, self.settings, num_draws),
            copied=copied.detach(),
            strange=strange,
            z=pair.z.detach().float(),
            code=pair.quantised.code,
            is_scored=is_scored,
        )

    def _alignment(
        self, batch: Batch, tap: Tap | None, z: Tensor, num_draws: int
    ) -> tuple[Tensor, Tensor]:
        """[B] sums of 1 - cos, and of the cosine with the sample before it in the batch, in float32."""
        none = z.new_zeros(len(z), dtype=torch.float32)
        if tap is None or self.projector is None or not isinstance(self.settings, JointStage):
            return none, none
        hidden, target = tap.hidden(self.settings.action), z.flatten(1)
        if self.settings.stop_gradient == "to_policy":
            hidden = hidden.detach()
        if self.settings.stop_gradient == "to_lam":
            target = target.detach()
        projected = self.projector(hidden).float().view(len(z), num_draws, -1)
        cosine = fn.cosine_similarity(projected, target.float()[:, None], dim=-1).sum(1)
        other = target.float().detach().roll(1, dims=0)[:, None]
        strange = fn.cosine_similarity(projected.detach(), other, dim=-1).sum(1)
        may = is_aligned(batch)
        return torch.where(may, num_draws - cosine, 0.0), torch.where(may, strange, 0.0)

    def loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """What is descended, of [4] sums of a part and [4] counts of the whole batch."""
        mean = sums / counts.clamp(min=1)
        lam = mean[0] + mean[1] + self.settings.lam.beta * mean[2]
        if isinstance(self.settings, LatentActionStage):
            return lam
        weight_lam = 0.0 if self.is_frozen else self.settings.weight_lam
        return weight_lam * lam + self.settings.weight_align * mean[3]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PicturePairs:
    """[B, L, D] latents of now and later, and [B, L] where both are there."""

    now: Tensor
    later: Tensor
    has: Tensor


def pairs_of(batch: Batch) -> PicturePairs:
    """The picture of now with the one that the latent action leads to: `Batch.later`, or the future picture where the batch has no other."""
    later, has_later = (
        (batch.future, batch.has_future)
        if batch.later is None or batch.has_later is None
        else (batch.later, batch.has_later)
    )
    has = batch.known.has_past[:, -1] & has_later
    num_patches = later.shape[1] // has.shape[1]
    return PicturePairs(
        now=batch.known.past[:, -1], later=later, has=has.repeat_interleave(num_patches, dim=1)
    )


def is_aligned(batch: Batch) -> Tensor:
    """[B] samples whose policy is compared with the latent action."""
    assert batch.may_teach is not None
    return is_any(batch.known.task, Task.POLICY) & batch.may_teach & pairs_of(batch).has.any(1)


def scored_of(batch: Batch, settings: LatentActionStage | JointStage, num_draws: int) -> Tensor:
    """[B, 4] how much each sample scores of each term: known from the masks, before anything is computed."""
    has, lam = pairs_of(batch).has, settings.lam
    elements = has.sum(1) * batch.future.shape[-1]
    quantised = has.any(1) * lam.num_queries * lam.code_width
    is_joint = isinstance(settings, JointStage)
    draws = is_aligned(batch) * num_draws if is_joint else torch.zeros_like(elements)
    return torch.stack([elements, quantised, quantised, draws], dim=1).float()
