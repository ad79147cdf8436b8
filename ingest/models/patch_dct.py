"""Low frequencies of each patch: an encoder that needs no weights, for demos, simulators and tests, and a floor to compare others with.

A patch of p x p pixels is turned by the orthonormal cosine transform (DCT-II, Ahmed, Natarajan & Rao 1974) in each of three channels; the
k x k lowest frequencies are kept, each scaled by 1 + u + v, as natural pictures have less of the higher ones. It knows nothing of
meaning, but where something is and what colour it has; and since the transform is orthonormal, tokens can be turned back into a picture.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn

NUM_CHANNELS = 3


def cosines(size: int) -> Tensor:
    """[size, size] rows are the orthonormal DCT-II basis: C[u, x] = a(u) cos(pi (2 x + 1) u / (2 size))."""
    u, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    basis = torch.cos(math.pi * (2 * x + 1) * u / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


class PatchDct(nn.Module):
    """Pixels [n, 3, S, S] to tokens [n, (S / p) ** 2, 3 k k] as `last_hidden_state`, the name that transformers' encoders use.

    Tokens are divided by p, so that a constant picture of value c has c as its first coefficient.
    """

    kernel: Tensor  # [3 k k, 3, p, p]

    def __init__(self, patch_px: int, num_kept: int) -> None:
        super().__init__()
        self.patch_px, self.num_kept = patch_px, num_kept
        low = cosines(patch_px)[:num_kept]
        lift = 1.0 + torch.arange(num_kept)[:, None] + torch.arange(num_kept)
        waves = torch.einsum("ux,vy,uv->uvxy", low, low, lift) / patch_px
        waves = waves.reshape(-1, 1, patch_px, patch_px)
        kernel = torch.zeros(NUM_CHANNELS, len(waves), NUM_CHANNELS, patch_px, patch_px)
        for channel in range(NUM_CHANNELS):
            kernel[channel, :, channel] = waves[:, 0]
        self.register_buffer("kernel", kernel.flatten(0, 1))

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        kernel = self.kernel.to(pixel_values.dtype)
        coefficients = nn.functional.conv2d(pixel_values, kernel, stride=self.patch_px)
        return SimpleNamespace(last_hidden_state=coefficients.flatten(2).transpose(1, 2))

    def pictures(self, tokens: Tensor) -> Tensor:
        """What the kept frequencies say of the pixels: tokens [n, N, 3 k k] to [n, 3, S, S]. The rest is 0."""
        lift = (1.0 + torch.arange(self.num_kept)[:, None] + torch.arange(self.num_kept)).flatten()
        scale = (self.patch_px / lift).repeat(NUM_CHANNELS).to(tokens)
        back = self.kernel.to(tokens) * (scale**2)[:, None, None, None]
        side = math.isqrt(tokens.shape[1])
        planes = tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        return nn.functional.conv_transpose2d(planes, back, stride=self.patch_px)
