"""What is wrong with a file of the user's: key, value, what is expected, the key that was meant. Never pydantic's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ingest.recipe import Recipe
from jobs.stages.ingest import recipe_from
from schemas.errors import ConfigError
from schemas.invalid import invalid
from training.recipe import load_recipe


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    crf: int = Field(23, ge=0, le=51)
    form: Literal["aac", "flac"] = "aac"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    rate_hz: float = Field(10.0, gt=0)
    is_on: bool = True
    video: Inner = Inner()
    many: list[Inner] = Field([], max_length=2)
    maybe: Inner | None = None
    pattern: str = Field("a", pattern="^a+$")


def wrong(content: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"name": "x"} | content)
    text = invalid(caught.value, Outer)
    assert not any(word in text for word in ("Input", "input", "pydantic", "permitted", "type="))
    return text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"name": 3}, "name: 3; expected text"),
        ({"rate_hz": 0}, "rate_hz: 0; expected more than 0.0"),
        ({"rate_hz": "fast"}, "rate_hz: 'fast'; expected a number"),
        ({"is_on": "perhaps"}, "is_on: 'perhaps'; expected true or false"),
        ({"video": {"crf": 2.5}}, "video.crf: 2.5; expected a whole number"),
        ({"video": {"crf": 99}}, "video.crf: 99; expected at most 51"),
        ({"video": {"form": "mp3"}}, "video.form: 'mp3'; expected 'aac' or 'flac'"),
        ({"video": 5}, "video: 5; expected keys with values"),
        ({"video": {"crv": 5}}, "video.crv: unknown key; did you mean crf?"),
        ({"many": [{"frm": 5}]}, "many.0.frm: unknown key; did you mean form?"),
        ({"maybe": {"zzz": 5}}, "maybe.zzz: unknown key; there are crf, form"),
        ({"many": [{}, {}, {}]}, "many: [{}, {}, {}]; expected at most 2 items"),
        ({"many": 7}, "many: 7; expected a list"),
        ({"vidoe": 1}, "vidoe: unknown key; did you mean video?"),
        ({"pattern": "b"}, "pattern: 'b'; expected text that matches ^a+$"),
        ({"name": "x", "rate_hz": None}, "rate_hz: None; expected a number"),
    ],
)
def test_each_problem_in_our_words(content: dict[str, Any], text: str) -> None:
    assert wrong(content) == text


def test_a_missing_key_and_a_long_list_of_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({f"k{number}": 1 for number in range(6)})
    text = invalid(caught.value)
    assert text.startswith("name: is missing; k0: unknown key; ")
    assert text.endswith("and 2 more")


def test_a_recipe_of_ingest_says_the_key_that_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("video:\n  crff: 30\n")
    assert "video" in Recipe.model_fields
    with pytest.raises(
        ConfigError,
        match=r"recipe\.yaml: not a recipe: video\.crff: unknown key; did you mean crf\?",
    ):
        recipe_from(file)


def test_a_recipe_of_training_says_the_key_that_was_meant() -> None:
    with pytest.raises(
        ConfigError, match=r"recipe tiny: run\.num_step: unknown key; did you mean num_steps\?"
    ):
        load_recipe("tiny", {"run": {"num_step": 3}})
