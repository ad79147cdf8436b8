"""The block-causal transformer: video and action tokens through the same blocks, with embedders, time embedders and heads of their own.

The blocks are those of Wan2.2-TI2V-5B, from which LingBot-VA starts: self-attention with normalised queries and keys and RoPE over (frame, row,
column), cross-attention to text, a feed-forward layer, all modulated by the noise level of the token's frame. Written anew. Departures: gates and
heads start at zero; an embodiment has small layers of its own; a learned token stands before the text, so that a dropped text leaves one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.causal.layout import FrameIndex, TokenLayout, Tokens, training_layout
from training.causal.mask import attend_where, mask_for, padded_length
from training.causal.objective import velocity_to
from training.causal.settings import CausalModelSettings
from training.model.adapters import VectorDecoder, VectorEncoder
from training.model.attention import attend, join_heads, split_heads
from training.model.block import rotate, timestep_features
from training.model.text import PaddedText

if TYPE_CHECKING:
    from training.causal.mask import Mask

TIME_FEATURES = 256
NUM_SHIFTS = 6  # shift, scale, gate of self-attention; shift, scale, gate of the feed-forward layer
HEAD_SHIFTS = 2


class KeyValue(NamedTuple):
    """[B, H, L, W] each, of one block: turned by RoPE, ready to be attended to."""

    key: Tensor
    value: Tensor


class CausalWords(NamedTuple):
    """Text that every block attends to. values: [B, T, width]. has: [B, L or 1, T] bool, what each token may see."""

    values: Tensor
    has: Tensor


class Levels(NamedTuple):
    """Noise levels in [0, 1] of frames, as the embedders of time tell them. base: [B, M, 6 * width]. plain: [B, M, width], for the heads."""

    base: Tensor
    plain: Tensor

    def joined(self, later: Levels) -> Levels:
        return Levels(*(torch.cat(pair, dim=1) for pair in zip(self, later, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CausalInputs:
    """B rows of F frames with n rows of actions each, as a training pass sees them.

    noisy_video, clean_video: [B, F, N, D] latents. has_video: [B, F, V]. noisy_action, clean_action: [B, F, n, E].
    shown: [B, F, n, E] elements that the noisy actions have; has_action: the same of the clean ones. predicts: [B, F, n] rows that are predicted.
    embodiment: [B, F]. video_level, history_level, action_level: [B, F] noise of the noisy video, its clean copy, and the noisy actions.
    text_sample: [B, T] whose sample each token of text is. window, chunk: of this step.
    """

    index: FrameIndex
    noisy_video: Tensor
    clean_video: Tensor
    has_video: Tensor
    noisy_action: Tensor
    clean_action: Tensor
    shown: Tensor
    has_action: Tensor
    predicts: Tensor
    embodiment: Tensor
    video_level: Tensor
    history_level: Tensor
    action_level: Tensor
    text_sample: Tensor
    chunk: int
    window: int


class TimeEmbedder(nn.Module):
    """Noise levels [B, M] to what blocks and heads are modulated by."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time = nn.Sequential(
            nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.project = nn.Linear(width, NUM_SHIFTS * width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, level: Tensor) -> Levels:
        plain = self.time(timestep_features(level, TIME_FEATURES).to(self.project.weight.dtype))
        return Levels(base=self.project(fn.silu(plain)), plain=plain)


class CausalAttention(nn.Module):
    """Projections of one attention, queries and keys normalised over the whole width."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.query_norm, self.key_norm = nn.RMSNorm(width), nn.RMSNorm(width)

    def queries(self, x: Tensor) -> Tensor:
        return split_heads(self.query_norm(self.query(x)), self.num_heads)

    def keys_and_values(self, x: Tensor) -> KeyValue:
        key = split_heads(self.key_norm(self.key(x)), self.num_heads)
        return KeyValue(key=key, value=split_heads(self.value(x), self.num_heads))


class CausalBlock(nn.Module):
    """[B, L, width] through one block."""

    def __init__(self, settings: CausalModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.width = width
        self.attention = CausalAttention(width, settings.num_heads)
        self.to_text = CausalAttention(width, settings.num_heads)
        nn.init.zeros_(self.to_text.out.weight)  # this branch has no gate: it starts silent
        nn.init.zeros_(self.to_text.out.bias)
        self.text_norm = nn.LayerNorm(width)
        self.ff = nn.Sequential(
            nn.Linear(width, settings.ff_width),
            nn.GELU(approximate="tanh"),
            nn.Linear(settings.ff_width, width),
        )
        self.shifts = nn.Parameter(torch.zeros(NUM_SHIFTS * width))

    def forward(
        self,
        x: Tensor,
        base: Tensor,
        slot: Tensor,
        angle: Tensor,
        mask: Mask,
        words: CausalWords,
        past: KeyValue | None = None,
        *,
        keeps_own: bool = False,
    ) -> tuple[Tensor, KeyValue | None]:
        """
        Args:
            base: [B, M, 6 * width] of `Levels`. slot: [L] which of the M each token has. angle: [B, 1, L, head_width / 2].
            mask: of queries x and keys [past, x]. past: what was computed before.

        Returns:
            The tokens, and the keys and values of x alone where they are to be kept: a training pass that is computed again must not hold them.
        """
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (base + self.shifts)[:, slot].chunk(
            NUM_SHIFTS, dim=-1
        )
        asking = fn.layer_norm(x, (self.width,)) * (1 + scale) + shift
        own = self.attention.keys_and_values(asking)
        own = KeyValue(key=rotate(own.key, angle), value=own.value)
        query = rotate(self.attention.queries(asking), angle)
        key, value = own
        if past is not None:
            key, value = torch.cat([past.key, key], dim=2), torch.cat([past.value, value], dim=2)
        attended = join_heads(attend_where(query, key, value, mask))
        x = x + gate * self.attention.out(attended)
        reading = self.to_text.queries(self.text_norm(x))
        text = self.to_text.keys_and_values(words.values)
        x = x + self.to_text.out(
            join_heads(attend(reading, text.key, text.value, words.has[:, None]))
        )
        return x + ff_gate * self.ff(
            fn.layer_norm(x, (self.width,)) * (1 + ff_scale) + ff_shift
        ), own if keeps_own else None


class CausalNetwork(nn.Module):
    """Velocities eps - x of noisy frames and noisy actions; noise levels run from 0 (data) to 1 (noise)."""

    def __init__(self, settings: CausalModelSettings) -> None:
        super().__init__()
        self.settings = settings
        s, width = settings, settings.width
        patch_width = s.patch**2 * s.latent_width
        self.video_in = nn.Linear(patch_width, width)
        self.action_in = VectorEncoder(
            s.num_embodiments, 2 * s.action_width, s.adapter_width, width, with_time=False
        )
        nn.init.zeros_(self.action_in.own.weight[:, s.action_width :])  # which elements there are
        self.video_time, self.action_time = TimeEmbedder(width), TimeEmbedder(width)
        self.text_in = nn.Sequential(
            nn.Linear(s.text_width, width), nn.GELU(approximate="tanh"), nn.Linear(width, width)
        )
        self.no_text = nn.Parameter(torch.randn(s.text_width) * 0.02)
        self.blocks = nn.ModuleList(CausalBlock(s) for _ in range(s.num_layers))
        self.video_shifts = nn.Parameter(torch.zeros(HEAD_SHIFTS, width))
        self.action_shifts = nn.Parameter(torch.zeros(HEAD_SHIFTS, width))
        self.video_out = nn.Linear(width, patch_width)
        nn.init.zeros_(self.video_out.weight)
        nn.init.zeros_(self.video_out.bias)
        self.action_out = VectorDecoder(s.num_embodiments, width, s.adapter_width, s.action_width)

    def forward(self, inputs: CausalInputs, text: PaddedText) -> tuple[Tensor, Tensor]:
        """[B, F, N, D] and [B, F, n, E] velocities of the noisy parts; of padding and what is not predicted they mean nothing."""
        i = inputs
        num_frames = i.index.frame.shape[1]
        clean_rows = i.has_action.any(dim=3)
        layout = training_layout(
            i.index, i.has_video, i.predicts, clean_rows, i.chunk, self.settings
        )
        x = torch.cat(
            [
                self.embed_video(i.noisy_video),
                self.embed_video(i.clean_video),
                self.embed_action(i.noisy_action, i.shown, i.embodiment),
                self.embed_action(i.clean_action, i.has_action, i.embodiment),
            ],
            dim=1,
        )
        video = self.video_time(torch.cat([i.video_level, i.history_level], dim=1))
        acting = self.action_time(
            torch.cat([i.action_level, torch.zeros_like(i.action_level)], dim=1)
        )
        x, layout = _padded(x, layout) if x.is_cuda else (x, layout)
        mask = mask_for(layout.tokens, layout.tokens, i.window, flex=x.is_cuda)
        words = self.words(text, i.text_sample, layout.tokens)
        x, _ = self.run(x, video.joined(acting), layout, mask, words, keeps_own=False)
        sizes = layout.sizes
        frames = x[:, : sizes[0]]
        actions = x[:, sizes[0] + sizes[1] :][:, : sizes[2]]
        return (
            self.read_video(
                frames,
                video.plain[:, :num_frames],
                i.noisy_video,
                i.video_level,
                known_before(i, known_first=self.settings.objective.known_first),
            ),
            self.read_action(actions, acting.plain[:, :num_frames], i.embodiment),
        )

    def run(
        self,
        x: Tensor,
        levels: Levels,
        layout: TokenLayout,
        mask: Mask,
        words: CausalWords,
        past: list[KeyValue] | None = None,
        *,
        keeps_own: bool,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Through all blocks. past: of each block; what is new is given back where it is to be kept."""
        angle = self.angles(layout.places)
        own = []
        for number, block in enumerate(self.blocks):
            before = None if past is None else past[number]
            x, each = block(
                x, levels.base, layout.slot, angle, mask, words, before, keeps_own=keeps_own
            )
            if each is not None:
                own.append(each)
        return x, own

    def angles(self, places: Tensor) -> Tensor:
        """[B, L, 3] frame, row and column to [B, 1, L, head_width / 2]: a third of the pairs turns with each, the rest of them with the frame (Wan)."""
        pairs = self.settings.head_width // 2
        across = pairs // 3
        parts = [
            places[..., axis, None] * 10_000.0 ** (-torch.arange(num, device=places.device) / num)
            for axis, num in ((0, pairs - 2 * across), (1, across), (2, across))
        ]
        return torch.cat(parts, dim=-1)[:, None]

    def words(self, text: PaddedText, text_sample: Tensor, tokens: Tokens) -> CausalWords:
        """Each token sees the text of its own sample, and the token of our own."""
        first = self.no_text.expand(len(text.values), 1, -1).to(text.values.dtype)
        shown = torch.where(text.has[..., None], text.values, 0.0)
        own = (tokens.sample[:, :, None] == text_sample[:, None, :]) & text.has[:, None, :]
        return CausalWords(
            values=self.text_in(torch.cat([first, shown], dim=1)),
            has=fn.pad(own, (1, 0), value=True),
        )

    def embed_video(self, latents: Tensor) -> Tensor:
        """[B, F, N, D] to [B, F * P, width]."""
        s, p = self.settings, self.settings.patch
        rows, columns = s.grid_height // p, s.grid_width // p
        cut = latents.reshape(*latents.shape[:2], s.num_views, rows, p, columns, p, -1)
        tokens = cut.transpose(4, 5).flatten(5).flatten(1, 4)
        out: Tensor = self.video_in(tokens)
        return out

    def read_video(
        self, tokens: Tensor, plain: Tensor, noisy: Tensor, level: Tensor, before: Tensor
    ) -> Tensor:
        """[B, F * P, width], levels as embedded [B, F, width] and plain [B, F], the noisy frames and what was known before them [B, F, N, D], to their velocity."""
        s, p = self.settings, self.settings.patch
        rows, columns = s.grid_height // p, s.grid_width // p
        cut = self.video_out(self._shifted(tokens, plain, self.video_shifts))
        cut = cut.reshape(*plain.shape[:2], s.num_views, rows, columns, p, p, s.latent_width)
        out: Tensor = cut.transpose(4, 5).flatten(2, 6)
        if s.video_head == "velocity":
            return out
        return velocity_to(out + before if s.video_head == "change" else out, noisy, level)

    def embed_action(self, action: Tensor, has: Tensor, embodiment: Tensor) -> Tensor:
        """[B, F, n, E] to [B, F * n, width]."""
        batch, num_frames = embodiment.shape
        shown = torch.cat([torch.where(has, action, 0.0), has.to(action.dtype)], dim=-1)
        tokens: Tensor = self.action_in(shown.flatten(0, 1), embodiment.flatten())
        return tokens.view(batch, num_frames * action.shape[2], -1)

    def read_action(self, tokens: Tensor, plain: Tensor, embodiment: Tensor) -> Tensor:
        """[B, F * n, width] and levels [B, F, width] to [B, F, n, E]."""
        batch, num_frames = embodiment.shape
        shifted = self._shifted(tokens, plain, self.action_shifts)
        rows = shifted.reshape(batch * num_frames, -1, self.settings.width)
        out: Tensor = self.action_out(rows, embodiment.flatten())
        return out.view(batch, num_frames, *out.shape[1:])

    def _shifted(self, tokens: Tensor, plain: Tensor, shifts: Tensor) -> Tensor:
        """Normalised, then shifted and scaled by the level of each token's frame."""
        each = plain.repeat_interleave(tokens.shape[1] // plain.shape[1], dim=1)
        normed = fn.layer_norm(tokens, (self.settings.width,))
        return normed * (1 + each + shifts[1]) + each + shifts[0]


def known_before(inputs: CausalInputs, *, known_first: bool) -> Tensor:
    """[B, F, N, D] the last frame before each frame's chunk, as the network is shown it: of the first chunk its frame 0 where that is known, else 0."""
    i, number = inputs, inputs.index.frame
    into = number % i.chunk
    is_first = number < i.chunk
    here = torch.arange(number.shape[1], device=number.device)
    at = (here - torch.where(is_first, number, into + 1)).clamp(min=0)
    row = torch.arange(len(number), device=number.device)[:, None]
    first = i.noisy_video[row, at] if known_first else torch.zeros_like(i.noisy_video)
    return torch.where(is_first[..., None, None], first, i.clean_video[row, at])


def _padded(x: Tensor, layout: TokenLayout) -> tuple[Tensor, TokenLayout]:
    """To a multiple of FlexAttention's block, by tokens of no sample."""
    more = padded_length(x.shape[1]) - x.shape[1]
    sample, order, is_clean = layout.tokens
    tokens = Tokens(
        sample=fn.pad(sample, (0, more), value=-1),
        order=fn.pad(order, (0, more)),
        is_clean=fn.pad(is_clean, (0, more)),
    )
    padded = TokenLayout(
        tokens=tokens,
        places=fn.pad(layout.places, (0, 0, 0, more)),
        slot=fn.pad(layout.slot, (0, more)),
        sizes=layout.sizes,
    )
    return fn.pad(x, (0, 0, 0, more)), padded
