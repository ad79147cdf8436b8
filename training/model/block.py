"""One transformer block: both streams attend to each other, then to the text, then each has its feed-forward layer. Position embeddings (learned or rotary)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from training.model.attention import Flash, Varlen, attend, join_heads, split_heads
from training.model.settings import ModelSettings
from training.model.text import Words, attend_text, keys_and_values


def timestep_features(t: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """[B] or [B, ...] flow time in [0, 1] to sinusoids [..., width]: half cosines, half sines, of 1000 t (DiT, Peebles & Xie 2023)."""
    half = width // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device) / half)
    angle = 1000.0 * t[..., None].float() * rates
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def rotations(places: Tensor, head_width: int, *, base: float = 10_000.0) -> Tensor:
    """[L, 2] places (two coordinates of each token) to angles [L, head_width / 2]: the first half turns with the first coordinate."""
    quarter = head_width // 4
    rates = base ** (-torch.arange(quarter, device=places.device) / quarter)
    return torch.cat([places[:, :1] * rates, places[:, 1:] * rates], dim=-1)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last axis of [B, H, L, W] by `angle` [L, W / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def token_places(
    num_patches: int, num_views: int, num_registers: int, num_action_tokens: int
) -> Tensor:
    """[L, 2] places of registers, patches, action tokens: patches on a grid (views beside each other), the rest on a line below it."""
    side = math.ceil(math.sqrt(num_patches))
    patch = torch.arange(num_patches)
    views = [
        torch.stack([patch // side, patch % side + view * (side + 1)], dim=-1)
        for view in range(num_views)
    ]
    registers = torch.full((num_registers, 2), -1)
    steps = torch.arange(num_action_tokens)
    line = torch.stack([torch.full_like(steps, side + 1), steps], dim=-1)
    return torch.cat([registers, *views, line]).float()


NUM_MODULATIONS = 6  # of each stream: shift, scale, gate of joint attention; shift, scale, gate of the feed-forward part
STREAMS = 2


class Modulation(nn.Module):
    """[B, width] condition to [B, 2, 6, width]: what AdaLN does in one block."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        size = STREAMS * NUM_MODULATIONS * settings.width
        if settings.adaln == "full":
            self.linear = nn.Linear(settings.width, size)
            nn.init.zeros_(self.linear.weight)
            offset = self.linear.bias.data
        else:
            self.offset = nn.Parameter(torch.zeros(size))
            offset = self.offset.data
        offset.zero_()
        if settings.gates == "one":
            offset.view(STREAMS, NUM_MODULATIONS, -1)[:, [2, 5]] = 1.0

    def forward(self, condition: Tensor, shared: Tensor | None) -> Tensor:
        modulation = self.linear(condition) if shared is None else shared + self.offset
        return modulation.view(-1, STREAMS, NUM_MODULATIONS, self.settings.width)


class StreamPart(nn.Module):
    """What one stream has for itself in a block."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.num_heads = settings.num_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.text_query = nn.Linear(width, width, bias=False)
        self.text_out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.text_out.weight)  # this branch has no gate: it starts silent by itself
        if settings.gates == "one":
            nn.init.xavier_uniform_(self.text_out.weight)
        inner = int(settings.ff_ratio * width)
        self.ff = nn.Sequential(
            nn.Linear(width, inner),
            nn.GELU(approximate="tanh"),
            nn.Dropout(settings.dropout),
            nn.Linear(inner, width),
        )

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, L, W] of joint attention."""
        query, key, value = (
            split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=-1)
        )
        return query, key, value


class TextHeads(nn.Module):
    """Keys and values of the text, beside each other: [..., text_width] to [..., 2 * width]."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.kv = nn.Linear(settings.text_width, 2 * settings.width, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        out: Tensor = self.kv(text)
        return out


class Block(nn.Module):
    """Image stream [B, I, width] and action stream [B, A, width] through one block."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.width, self.num_heads = settings.width, settings.num_heads
        self.modulation = Modulation(settings)
        self.streams = nn.ModuleList(StreamPart(settings) for _ in range(STREAMS))
        num_text = STREAMS if settings.text_kv == "stream" else 1
        self.text = nn.ModuleList(TextHeads(settings) for _ in range(num_text))
        # kernels of packages, which the network sets: torch.compile cannot trace their imports
        self.flash: Flash | None = None
        self.varlen: Varlen | None = None

    def forward(
        self,
        streams: list[Tensor],
        condition: Tensor,
        shared: Tensor | None,
        words: Words,
        angle: Tensor | None,
    ) -> list[Tensor]:
        """`words` may be of fewer samples: each then has several draws, beside each other. `angle` of RoPE, or None."""
        modulation = self.modulation(condition, shared)
        mods = [
            modulation[:, s].unsqueeze(2).unbind(1) for s in range(STREAMS)
        ]  # six of [B, 1, width]
        streams = self._joint(streams, mods, angle)
        streams = self._text(streams, words)
        out = []
        for part, x, mod in zip(self.streams, streams, mods, strict=True):
            change = mod[5] * part.ff(self._normed(x, mod[3], mod[4]))  # type: ignore[operator]
            out.append((x + change).to(x.dtype))  # in the precision of the stream
        return out

    def _normed(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return fn.layer_norm(x, (self.width,)) * (1 + scale) + shift

    def _joint(
        self, streams: list[Tensor], mods: list[tuple[Tensor, ...]], angle: Tensor | None
    ) -> list[Tensor]:
        heads = [
            part.heads(self._normed(x, mod[0], mod[1]))  # type: ignore[operator]
            for part, x, mod in zip(self.streams, streams, mods, strict=True)
        ]
        query, key, value = (torch.cat(parts, dim=2) for parts in zip(*heads, strict=True))
        if angle is not None:
            query, key = rotate(query, angle), rotate(key, angle)
        both = join_heads(attend(query, key, value, flash=self.flash))
        cut = torch.split(both, [x.shape[1] for x in streams], dim=1)
        return [
            (x + mod[2] * part.out(y)).to(x.dtype)  # type: ignore[operator]
            for part, x, mod, y in zip(self.streams, streams, mods, cut, strict=True)
        ]

    def _text(self, streams: list[Tensor], words: Words) -> list[Tensor]:
        key_values = [keys_and_values(each, words) for each in self.text]
        out = []
        for s, (part, x) in enumerate(zip(self.streams, streams, strict=True)):
            query = part.text_query(fn.layer_norm(x, (self.width,)))  # type: ignore[operator]
            attended = attend_text(
                query, key_values[s % len(key_values)], words, self.num_heads, self.varlen
            )
            out.append((x + part.text_out(attended)).to(x.dtype))  # type: ignore[operator]
        return out
