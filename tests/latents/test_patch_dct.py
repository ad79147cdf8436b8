"""The encoder that is arithmetic: against scipy's cosine transform, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch

from ingest.models.encoder import EncoderChoice, ImageEncoder
from ingest.models.encoder_weights import WeightSource
from ingest.models.patch_dct import PatchDct
from schemas.errors import ConfigError


def test_tokens_are_scipys_low_frequencies() -> None:
    pixels = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    tokens = PatchDct(8, 3)(pixels).last_hidden_state
    assert tokens.shape == (2, 9, 27)
    lift = 1 + np.arange(3)[:, None] + np.arange(3)
    for picture, row, column, channel in [(0, 0, 0, 0), (1, 0, 2, 1), (1, 2, 1, 2)]:
        patch = pixels[picture, channel, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        low = scipy.fft.dctn(patch.numpy(), norm="ortho")[:3, :3] * lift / 8
        found = tokens[picture, 3 * row + column].reshape(3, 3, 3)[channel]
        np.testing.assert_allclose(found.numpy(), low, atol=1e-5)


def test_all_frequencies_are_the_picture_again() -> None:
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    network = PatchDct(8, 8)
    torch.testing.assert_close(network.pictures(network(pixels).last_hidden_state), pixels)


def test_a_plain_picture_is_its_value() -> None:
    tokens = PatchDct(4, 2)(torch.full((1, 3, 4, 4), 0.7)).last_hidden_state
    torch.testing.assert_close(tokens.reshape(3, 4)[:, 0], torch.full((3,), 0.7))
    assert tokens.reshape(3, 4)[:, 1:].abs().max() < 1e-6


def test_it_needs_no_weights_and_takes_none() -> None:
    opened = ImageEncoder.open(
        EncoderChoice(model="patch_dct", source=WeightSource(), device="cpu")
    )
    assert opened.id == "patch_dct-e1054af421c1"  # changes only when its numbers would
    tokens = opened.encode(np.full((1, 112, 112, 3), 255, np.uint8))
    assert tuple(tokens.shape) == (1, 49, 48)
    assert float(tokens[0, 0, 0]) == pytest.approx(1.0, abs=1e-2)  # white is 1 of -1 to 1
    seeded = EncoderChoice(model="patch_dct", source=WeightSource(untrained_seed=0), device="cpu")
    with pytest.raises(ConfigError, match="needs no weights"):
        ImageEncoder.open(seeded)
