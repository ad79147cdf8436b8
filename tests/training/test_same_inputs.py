"""Weights are given what they learned from: the same encoder, the same language model asked the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ConfigError
from schemas.text_features import FeatureSettings
from tests.training.tiny import SETTINGS
from training.conditioning.hashed_words import NoTextConditioner
from training.conditioning.protocol import Conditioner
from training.conditioning.text_model import settings_of
from training.recipe import OnlineText
from training.run.checkpoint import Checkpoint, CheckpointState
from training.run.parallel import Ranks
from training.run.resume import check_encoder, check_same_text, check_text


def checkpoint(**said: Any) -> Checkpoint:
    state = CheckpointState(
        step=1,
        recipe={},
        recipe_sha256="",
        manifest_name="m",
        manifest_sha256="",
        model=SETTINGS,
        embodiments=("umi",),
        **said,
    )
    return Checkpoint(folder=Path("run/step"), state=state)


def encoded_by(text_id: str) -> Conditioner:
    conditioner = NoTextConditioner()
    conditioner.text_id = text_id
    return conditioner


def test_latents_of_another_encoder_are_refused() -> None:
    begun = checkpoint(encoder_id="a-000000000000")
    check_encoder(begun, "a-000000000000")
    with pytest.raises(ConfigError, match=r"the latents are from encoder a-1; run/step was trained with a-0.*data\.encoder=a-0"):  # fmt: skip
        check_encoder(begun, "a-1")


@pytest.mark.parametrize("other", ["text_x-111111111111", ""])
def test_text_of_another_model_is_refused_with_how_it_was_asked(other: str) -> None:
    begun = checkpoint(text_id="text_x-0", text_settings=FeatureSettings(layer=7, camera="*head*"))
    check_text(begun, encoded_by("text_x-0"))
    said = other or "no language model"
    with pytest.raises(ConfigError, match=rf"is {said}; .* with text_x-0; .*text\.encoder=text_x-0.*layer.:7.*head"):  # fmt: skip
        check_text(begun, encoded_by(other))


def test_ranks_that_are_told_by_different_models_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One after the other here, each with those before it."""
    said: list[str] = []

    def gathered(mine: str, ranks: Ranks) -> list[str]:
        said.append(mine)
        return said

    monkeypatch.setattr("training.run.resume.all_gather_str", gathered)
    for rank in (0, 1):
        check_same_text("text_x-0", Ranks(rank=rank, world_size=3))
    with pytest.raises(
        ConfigError, match="different language models: text_x-0, text_x-0, text_x-1; copy"
    ):
        check_same_text("text_x-1", Ranks(rank=2, world_size=3))


def test_of_an_older_checkpoint_nothing_is_known_and_nothing_refused() -> None:
    check_text(checkpoint(), encoded_by("text_x-0"))
    check_text(checkpoint(), encoded_by(""))


def test_what_is_asked_in_the_step_is_named_as_where_it_is_stored() -> None:
    plain = OnlineText(model="unused", with_pictures=False, layer=-1, max_tokens=64)
    assert settings_of(plain, 36, 10.0) == FeatureSettings(layer=36, max_text_tokens=64)
    shown = OnlineText(model="unused", layer=-2, camera="*head*", prompt="Do {text}")
    assert settings_of(shown, 36, 5.0) == FeatureSettings(
        layer=35, prompt="Do {text}", picture_every_s=0.2, camera="*head*", max_picture_tokens=64
    )
