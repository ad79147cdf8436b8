"""What eight bits lose is bounded by their own step, and a file holds what was given."""

from __future__ import annotations

import hashlib
from io import BufferedRandom, FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from ingest.latents.token_file import TokenFile
from ingest.models.token_storage import (
    StoredTokens,
    bytes_of,
    cosine_errors,
    is_finite,
    read,
    stored,
)
from schemas.errors import InvariantError
from schemas.latents import FRAME_INDEX, LATENTS, SCALE, LatentFacts, Preprocessing, facts_of

TOKENS = torch.from_numpy(
    np.random.default_rng(1).normal(size=(5, 4, 8)) * np.array([1e-3, 1, 30, 400])[:, None]
).float()


def facts(**changed: Any) -> LatentFacts:
    given: dict[str, Any] = {
        "encoder_id": "toy_untrained0-0123456789ab",
        "model": "toy",
        "weights_sha256": "0" * 64,
        "preprocessing": Preprocessing(size_px=16, mean=(0.5,) * 3, std=(0.5,) * 3),
        "dtype": "bf16",
        "width": 8,
        "num_prefix": 0,
        "grid_height": 2,
        "grid_width": 2,
        "grid_stride": 3,
        "rate_hz": 10.0,
        "uid": "u",
        "camera": "front",
        "length": 13,
        "video_sha256": "1" * 64,
    }
    return LatentFacts.model_validate(given | changed)


def test_int8_is_off_by_half_a_step_of_its_token() -> None:
    found = stored(TOKENS, "int8")
    for n in range(5):
        for t in range(4):
            largest = float(TOKENS[n, t].abs().max())
            assert found.scale is not None
            assert float(found.scale[n, t]) == pytest.approx(largest / 127, rel=1e-6)
            off = (read(found)[n, t] - TOKENS[n, t]).abs().max()
            assert float(off) <= largest / 127 / 2 * 1.0001
    assert int(found.latents.abs().max()) == 127


def test_fp8_is_off_by_a_sixteenth_or_by_its_smallest_step() -> None:
    """e4m3 has 3 bits of mantissa: half a step is 1/16 of the number; below 2^-6 of the scaled token the step is 2^-9."""
    found = stored(TOKENS, "fp8")
    assert found.scale is not None
    bound = torch.maximum(TOKENS.abs() / 16, found.scale[..., None] * 2**-10)
    assert bool(((read(found) - TOKENS).abs() <= bound * 1.0001).all())
    assert float(found.latents.float().abs().max()) == 448.0


def test_bf16_keeps_eight_bits() -> None:
    assert bool(((read(stored(TOKENS, "bf16")) - TOKENS).abs() <= TOKENS.abs() / 256).all())


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "int8"])
def test_a_token_of_zeros_stays_one_and_a_nan_is_noticed(dtype: Any) -> None:
    given = TOKENS.clone()
    given[2, 1] = 0.0
    found = stored(given, dtype)
    assert bool((read(found)[2, 1] == 0).all())
    assert is_finite(found)
    for bad in (float("nan"), float("inf")):
        given[3, 0, 5] = bad
        assert not is_finite(stored(given, dtype))


def test_cosine_errors_by_hand() -> None:
    a = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0, 1.0]]])
    b = torch.tensor([[[0.0, 2.0], [6.0, 8.0], [0.0, 0.0], [1.0, 0.0]]])
    wanted = [1.0, 0.0, 0.0, 1 - 2**-0.5]
    assert cosine_errors(a, b)[0].tolist() == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "int8"])
def test_a_file_holds_what_was_given(dtype: Any, tmp_path: Path) -> None:
    """Filled piece by piece, it is the one that the library writes at once; words of any language are in its page."""
    said = facts(dtype=dtype, camera='oben "links" / \u4e0a\u7f8e\x7f\n')
    whole = stored(TOKENS, dtype)
    with (tmp_path / "x").open("w+b") as opened:
        file = TokenFile(opened, said)
        for part in (TOKENS[:3], TOKENS[3:]):
            file.add(bytes_of(stored(part, dtype)))
        num_bytes, sha256 = file.finish()
    data = (tmp_path / "x").read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (num_bytes, sha256)
    tensors = {LATENTS: whole.latents, FRAME_INDEX: torch.arange(5) * 3}
    if whole.scale is not None:
        tensors[SCALE] = whole.scale
    assert data == save(tensors, metadata=said.metadata())  # the library's own
    with safe_open(str(tmp_path / "x"), "pt") as file:
        assert facts_of(file.metadata(), where="x") == said
        assert file.get_tensor(FRAME_INDEX).tolist() == [0, 3, 6, 9, 12]
        names = {LATENTS, FRAME_INDEX} | ({SCALE} if dtype != "bf16" else set())
        assert set(file.keys()) == names
        scale = file.get_tensor(SCALE) if dtype != "bf16" else None
        found = StoredTokens(latents=file.get_tensor(LATENTS), scale=scale)
    assert torch.equal(read(found), read(whole))


class ReadCounted(BufferedRandom):
    num_read = 0

    def readinto(self, buffer: Any) -> int:
        found = super().readinto(buffer)
        self.num_read += found
        return found


@pytest.mark.parametrize(
    ("dtype", "cut", "num_read"), [("bf16", 3, 0), ("int8", 5, 0), ("int8", 3, 5 * 4 * 8)]
)
def test_only_what_was_written_before_its_turn_is_read_again(
    dtype: Any, cut: int, num_read: int, tmp_path: Path
) -> None:
    """That is all latents of eight bits, whose scales come before them, where a file has more than one piece."""
    with ReadCounted(FileIO(tmp_path / "x", "w+")) as opened:
        file = TokenFile(opened, facts(dtype=dtype))
        for part in (TOKENS[:cut], TOKENS[cut:]):
            file.add(bytes_of(stored(part, dtype)))
        _, sha256 = file.finish()
        assert opened.num_read == num_read
    assert hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest() == sha256


def test_other_pictures_than_a_file_has_room_for_are_our_bug(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w+b") as opened:
        file = TokenFile(opened, facts())
        file.add(bytes_of(stored(TOKENS[:4], "bf16")))
        with pytest.raises(InvariantError, match="bytes of latents"):
            file.finish()
        with pytest.raises(InvariantError, match="more data for latents"):
            file.add(bytes_of(stored(TOKENS[:2], "bf16")))
