"""The latent action model: what changed between two pictures, in a few codes (Moto's tokenizer as LARA uses it; `models.md` 2.1, `formats/exports.md` 7.1).

Two departures from the release. It works on the picture latents that the corpus has, where the release encodes pixels with a ViT-MAE. And it says
those of the later picture, as a change of those of now, where the release says pixels with MSE and LPIPS: a decoder that says nothing has copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.lara.quantise import CodeBook, Quantised
from training.lara.settings import LatentActionSettings

# Types of tokens. The release gives both pictures the same one.
_QUERY, _NOW, _SEPARATOR, _LATER = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureShape:
    """V views of N tokens with D channels."""

    num_views: int
    num_patches: int
    latent_width: int

    @property
    def num_tokens(self) -> int:
        return self.num_views * self.num_patches


class Former(nn.Module):
    """M-Former: learned queries look at both pictures, and become the latent action."""

    def __init__(self, settings: LatentActionSettings, shape: PictureShape) -> None:
        super().__init__()
        width, num = settings.width, shape.num_tokens
        self.queries = nn.Parameter(torch.randn(settings.num_queries, width) * 0.02)
        self.separator = nn.Parameter(torch.randn(1, width) * 0.02)
        self.types = nn.Parameter(torch.randn(4, width) * 0.02)
        self.places = nn.Parameter(torch.randn(num, width) * 0.02)
        self.missing = nn.Parameter(torch.randn(width) * 0.02)
        self.embed = nn.Linear(shape.latent_width, width)
        self.layers = nn.ModuleList(_layer(settings) for _ in range(settings.num_layers))
        self.norm = nn.LayerNorm(width)
        self.down = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Linear(width, settings.code_width)
        )
        self.num_queries = settings.num_queries

    def forward(self, now: Tensor, later: Tensor, has: Tensor) -> Tensor:
        """[B, L, D] both pictures and [B, L] bool where both are there, to latent actions [B, Q, C]."""

        def seen(tokens: Tensor, kind: int) -> Tensor:
            embedded = torch.where(has[..., None], self.embed(tokens), self.missing)
            return embedded + self.places + self.types[kind]

        alone = torch.cat(
            [self.queries + self.types[_QUERY], self.separator + self.types[_SEPARATOR]]
        )
        alone = alone.expand(len(now), -1, -1)
        x = torch.cat([alone, seen(now, _NOW), seen(later, _LATER)], dim=1)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.down(self.norm(x[:, : self.num_queries]))
        return out


class ChangeDecoder(nn.Module):
    """The picture of now and one vector of all codes, added to every token, to the change of each (the release's decoder, in latents)."""

    def __init__(self, settings: LatentActionSettings, shape: PictureShape) -> None:
        super().__init__()
        width = settings.width
        self.places = nn.Parameter(torch.randn(shape.num_tokens, width) * 0.02)
        self.embed = nn.Linear(shape.latent_width, width)
        self.up = nn.Sequential(
            nn.Linear(settings.code_width, settings.code_width),
            nn.Tanh(),
            nn.Linear(settings.code_width, width),
        )
        self.join = nn.Linear(settings.num_queries * width, width)
        self.layers = nn.ModuleList(_layer(settings) for _ in range(settings.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, shape.latent_width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, now: Tensor, values: Tensor) -> Tensor:
        """[B, L, D] and codes [B, Q, C] to the change [B, L, D], in units of `change_std`."""
        x = self.embed(now) + self.places + self.join(self.up(values).flatten(1))[:, None]
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.out(self.norm(x))
        return out


def _layer(settings: LatentActionSettings) -> nn.Module:
    return nn.TransformerEncoderLayer(
        settings.width,
        settings.num_heads,
        4 * settings.width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatentAction:
    """Of B pairs. z: [B, Q, C] before it is quantised; change: [B, L, D] what the decoder says."""

    z: Tensor
    quantised: Quantised
    change: Tensor


class LatentActionModel(nn.Module):
    """Encoder, code book and decoder."""

    def __init__(self, settings: LatentActionSettings, shape: PictureShape) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape
        self.former = Former(settings, shape)
        self.book = CodeBook(settings)
        self.decoder = ChangeDecoder(settings, shape)

    @property
    def blocks(self) -> list[nn.Module]:
        """What is sharded, compiled and computed again one by one."""
        return [*self.former.layers, *self.decoder.layers]

    def forward(self, now: Tensor, later: Tensor, has: Tensor) -> LatentAction:
        """
        Args:
            now, later: [B, L, D] latents, finite everywhere. has: [B, L] where both are there.
        """
        now, later = (torch.where(has[..., None], x, 0.0) for x in (now, later))
        z = self.former(now, later, has)
        quantised = self.book(z)
        return LatentAction(z=z, quantised=quantised, change=self.decoder(now, quantised.values))

    def num_parameters(self) -> dict[str, int]:
        """Of each part."""
        return {
            name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()
        }
