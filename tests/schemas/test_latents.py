"""The page of a file of latents: it says what it is, or it is none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.errors import ConfigError
from schemas.latents import METADATA, LatentFacts, Preprocessing, facts_of, latent_file


def facts(**changed: Any) -> LatentFacts:
    given: dict[str, Any] = {
        "encoder_id": "dinov3_vits16-0123456789ab",
        "model": "dinov3_vits16",
        "weights_sha256": "0" * 64,
        "preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        "dtype": "bf16",
        "width": 384,
        "num_prefix": 5,
        "grid_height": 14,
        "grid_width": 14,
        "grid_stride": 3,
        "rate_hz": 10.0,
        "uid": "u",
        "camera": "front",
        "length": 41,
        "video_sha256": "1" * 64,
    }
    return LatentFacts.model_validate(given | changed)


def test_it_comes_back_from_the_metadata() -> None:
    assert facts_of(facts().metadata(), where="x") == facts()


def test_counts_by_hand() -> None:
    assert facts().num_tokens == 5 + 14 * 14
    # timesteps 0, 3, ..., 39 of 41; 0, ..., 42 of 43; one of one
    assert [facts(length=n).num_frames for n in (41, 42, 43, 1)] == [14, 14, 15, 1]


@pytest.mark.parametrize(
    ("encoder_id", "is_trained"),
    [
        ("dinov3_vits16-0123456789ab", True),
        ("dinov3_vits16_untrained7-0123456789ab", False),
        ("dinov3_vits16_untrained-0123456789ab", False),
    ],
)
def test_an_untrained_encoder_is_told_by_its_id(encoder_id: str, is_trained: bool) -> None:
    assert facts(encoder_id=encoder_id).is_trained is is_trained


@pytest.mark.parametrize(
    "encoder_id", ["dinov3", "../x-0123456789ab", "a-0123", "A-0123456789ab", "a-0123456789ab/b"]
)
def test_an_id_that_could_not_be_a_folder_is_refused(encoder_id: str) -> None:
    with pytest.raises(ValidationError, match="encoder_id"):
        facts(encoder_id=encoder_id)


@pytest.mark.parametrize(
    "metadata", [None, {}, {METADATA: "{"}, {METADATA: "[]"}, {METADATA: "{}"}]
)
def test_a_file_that_says_nothing_is_refused(metadata: dict[str, str] | None) -> None:
    with pytest.raises(ConfigError, match="eicorpus latents"):
        facts_of(metadata, where="x")


def test_a_newer_file_is_refused() -> None:
    newer = facts(latents_version=3).metadata()
    with pytest.raises(ConfigError, match="version 3"):
        facts_of(newer, where="x")


def test_where_it_lies() -> None:
    found = latent_file("m-0123456789ab", "front", 1234)
    assert found == "latents/m-0123456789ab/chunk-001/front/episode_001234.safetensors"
