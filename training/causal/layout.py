"""Where every token of a sequence belongs: [noisy video | clean video | noisy action | clean action], each part frame by frame.

Chunk k has `chunk` frames. Its video has order index 2k and its actions 2k + 1 (`wan_va/modules/model.py`), so a chunk's actions
come after its frames: they are the motions that lead to them. The actions of frame f end at frame f.

A row may hold several samples one after the other. Sample -1 is padding, or something that was not recorded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from training.causal.settings import CausalModelSettings, CausalObjective
from training.data.rng_keys import Purpose, key_of, uniform

NOWHERE = -1  # the sample of what is not there
NUM_PARTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Of one step: frames of a chunk, and how many order indices a token may look back."""

    chunk: int
    window: int


def drawn_blocks(objective: CausalObjective, *, seed: int, step: int) -> Blocks:
    """One draw a step, the same on every rank: chunk and window uniform over their ranges, both ends included."""
    key = key_of(seed, step, Purpose.CAUSAL_BLOCKS)

    def between(low: int, high: int, index: int) -> int:
        return low + min(int(uniform(key, index) * (high - low + 1)), high - low)

    return Blocks(chunk=between(*objective.chunk, 0), window=between(*objective.window, 1))


class Tokens(NamedTuple):
    """L tokens of B rows, as the mask rule sees them. All are [B, L]: `sample` and `order` numbers, `is_clean` bool.

    A tuple, because FSDP2 looks for tensors in nothing else of ours.
    """

    sample: Tensor
    order: Tensor
    is_clean: Tensor

    def joined(self, later: Tokens) -> Tokens:
        """These, and others after them."""
        return Tokens(*(torch.cat(pair, dim=1) for pair in zip(self, later, strict=True)))

    def part(self, which: slice) -> Tokens:
        return Tokens(*(each[:, which] for each in self))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenLayout:
    """`tokens`; `places` [B, L, 3] of frame, row and column, for RoPE; `slot` [L] which noise level of the row a token has.

    Levels are numbered part by part, frame by frame; `sizes` are the lengths of the parts.
    """

    tokens: Tokens
    places: Tensor
    slot: Tensor
    sizes: tuple[int, ...]

    def part(self, which: slice) -> TokenLayout:
        """Of these tokens alone. Levels keep their numbers."""
        return replace(
            self,
            tokens=self.tokens.part(which),
            places=self.places[:, which],
            slot=self.slot[which],
            sizes=(len(self.slot[which]),),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameIndex:
    """F frames of B rows: `sample` [B, F], -1 for padding; `frame` [B, F] its number in that sample, from 0."""

    sample: Tensor
    frame: Tensor


def video_tokens(
    index: FrameIndex, has: Tensor, chunk: int, settings: CausalModelSettings, *, is_clean: bool
) -> TokenLayout:
    """Tokens of frames.

    Args:
        has: [B, F, V] views that there are.
    """
    s = settings
    rows, columns = s.grid_height // s.patch, s.grid_width // s.patch
    device = index.frame.device
    view, y, x = (
        axis.flatten()
        for axis in torch.meshgrid(
            torch.arange(s.num_views, device=device),
            torch.arange(rows, device=device),
            torch.arange(columns, device=device),
            indexing="ij",
        )
    )
    frame = index.frame[..., None].expand(*index.frame.shape, len(view))
    sample = torch.where(has, index.sample[..., None], NOWHERE)
    sample = sample.repeat_interleave(rows * columns, dim=2)
    across = torch.stack([y, x + view * columns], dim=-1).float()
    places = torch.cat(
        [frame[..., None].float(), across.expand(*frame.shape, 2)], dim=-1
    )  # [B, F, P, 3]
    return _layout(sample, 2 * (frame // chunk), places, is_clean=is_clean)


def action_tokens(index: FrameIndex, has: Tensor, chunk: int, *, is_clean: bool) -> TokenLayout:
    """Tokens of the actions that lead to frames: row j of n ends at frame f - 1 + (j + 1) / n.

    Args:
        has: [B, F, n] rows that there are.
    """
    num = has.shape[2]
    ends = (torch.arange(num, device=has.device) + 1) / num - 1
    frame = index.frame[..., None].expand(has.shape)
    sample = torch.where(has, index.sample[..., None], NOWHERE)
    beside = torch.full((*has.shape, 2), -1.0, device=has.device)
    places = torch.cat([(frame + ends)[..., None], beside], dim=-1)
    return _layout(sample, 2 * (frame // chunk) + 1, places, is_clean=is_clean)


def _layout(sample: Tensor, order: Tensor, places: Tensor, *, is_clean: bool) -> TokenLayout:
    """Of [B, F, P] and places [B, F, P, 3]."""
    num_frames, each = sample.shape[1:]
    slot = torch.arange(num_frames, device=sample.device).repeat_interleave(each)
    clean = torch.full_like(sample, is_clean, dtype=torch.bool)
    tokens = Tokens(*(x.flatten(1) for x in (sample, order, clean)))
    return TokenLayout(tokens=tokens, places=places.flatten(1, 2), slot=slot, sizes=(len(slot),))


def laid_out(parts: list[TokenLayout], num_frames: int) -> TokenLayout:
    """Parts one after the other; the levels of part p are those from p * num_frames on."""
    tokens = parts[0].tokens
    for part in parts[1:]:
        tokens = tokens.joined(part.tokens)
    return TokenLayout(
        tokens=tokens,
        places=torch.cat([part.places for part in parts], dim=1),
        slot=torch.cat([part.slot + p * num_frames for p, part in enumerate(parts)]),
        sizes=tuple(len(part.slot) for part in parts),
    )


def training_layout(
    index: FrameIndex,
    has_video: Tensor,
    noisy_actions: Tensor,
    clean_actions: Tensor,
    chunk: int,
    settings: CausalModelSettings,
) -> TokenLayout:
    """The four parts.

    Args:
        has_video: [B, F, V]. noisy_actions, clean_actions: [B, F, n] rows that are predicted, and that are shown as they were.
    """
    parts = [
        video_tokens(index, has_video, chunk, settings, is_clean=False),
        video_tokens(index, has_video, chunk, settings, is_clean=True),
        action_tokens(index, noisy_actions, chunk, is_clean=False),
        action_tokens(index, clean_actions, chunk, is_clean=True),
    ]
    return laid_out(parts, index.frame.shape[1])
