"""What is read from a file of latents: by position, never past its end, and only numbers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from schemas.manifest import Manifest
from tests.training.corpus import ENCODER
from tests.training.loader_cases import loader
from training.data.latent_reader import LatentFile, is_finite
from training.data.rng_keys import key_of, mixed


def a_file(manifest: Manifest) -> Path:
    named = next(x for x in manifest.row(0).latents if x.encoder_id == ENCODER)
    return manifest.corpus / named.path


def test_a_file_that_is_cut_while_it_is_open_is_named(manifest: Manifest, tmp_path: Path) -> None:
    """A mapped file ends the process by SIGBUS here."""
    path = tmp_path / "cut.safetensors"
    path.write_bytes(a_file(manifest).read_bytes())
    file = LatentFile(path, "cut.safetensors")
    out = np.empty((file.facts.num_tokens - file.facts.num_prefix, file.facts.width), np.uint16)
    file.read(0, out)
    os.truncate(path, path.stat().st_size // 2)
    last = (file.facts.num_frames - 1) * file.facts.grid_stride
    with pytest.raises(ConfigError, match=r"damaged .the file ends at byte"):
        file.read(last, out)


def test_a_file_is_closed_with_the_last_who_has_it(manifest: Manifest) -> None:
    before = len(os.listdir("/proc/self/fd"))
    files = [LatentFile(a_file(manifest), "x") for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before + 20
    del files
    assert len(os.listdir("/proc/self/fd")) == before


def test_rows_that_are_kept_are_those_of_the_manifest(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more are asked for than are kept."""
    monkeypatch.setattr("training.data.sample_index._KEPT_ROWS", 3)
    anchors = loader(manifest).anchors
    for index in ([0, 1], [2, 0, 2], [5, 4, 3, 2, 1, 0], [1, 1]):
        assert anchors.rows(np.array(index)) == [manifest.row(i) for i in index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("odd", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_seen(dtype: torch.dtype, odd: float) -> None:
    like = torch.int32 if dtype == torch.float32 else torch.int16
    largest = torch.finfo(dtype).max
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, largest, -largest, 1e-40], dtype=dtype)
    unsigned = np.uint32 if dtype == torch.float32 else np.uint16
    assert is_finite(values.view(like).numpy().view(unsigned))
    assert is_finite(np.zeros((0, 3), unsigned))
    with_odd = torch.cat([values, torch.tensor([odd], dtype=dtype)])
    assert not is_finite(with_odd.view(like).numpy().view(unsigned))


@given(st.lists(st.integers(-(2**63), 2**64 - 1), max_size=4))
def test_keys_of_numbers_are_those_of_arrays(parts: list[int]) -> None:
    """Orders and noise of runs that there are depend on every bit of them."""
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mixed(key ^ mixed(np.uint64(part % 2**64)))
    assert key_of(*parts) == key[0]
