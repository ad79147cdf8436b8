"""Errors travel from a worker to the driver: type, code, place and words must all arrive."""

from __future__ import annotations

import copy
import pickle

import pytest

from schemas.errors import (
    Code,
    ConfigError,
    InvariantError,
    PipelineError,
    SourceError,
    TransientError,
)
from tests.pickling import travelled

PLAIN = (PipelineError, ConfigError, TransientError, InvariantError)


@pytest.mark.parametrize("cls", PLAIN)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_class_survives_pickling(cls: type[PipelineError], protocol: int) -> None:
    error = cls("found 3, expected 4", where="a/b.h5")
    back = travelled(error, protocol)
    assert type(back) is cls
    assert (back.message, back.where, str(back)) == (
        "found 3, expected 4",
        "a/b.h5",
        "a/b.h5: found 3, expected 4",
    )


@pytest.mark.parametrize("code", Code)
def test_every_code_survives_pickling(code: Code) -> None:
    error = SourceError(code, "words", where="place")
    back = travelled(error)
    assert isinstance(back, SourceError)
    assert back.code is code
    assert str(back) == f"[{code.value}] place: words"
    assert str(copy.deepcopy(error)) == str(error)


def test_an_attribute_added_later_survives_too() -> None:
    error = ConfigError("words")
    error.hint = "look here"  # type: ignore[attr-defined]
    assert travelled(error).hint == "look here"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigError("x"), 2),
        (SourceError(Code.TRUNCATED, "x"), 1),
        (TransientError("x"), 1),
        (InvariantError("x"), 3),
        (PipelineError("x"), 3),
    ],
)
def test_the_type_decides_the_exit_code(error: PipelineError, exit_code: int) -> None:
    assert error.exit_code == exit_code


def test_a_message_without_a_place_has_no_colon() -> None:
    assert str(ConfigError("words")) == "words"
    assert str(SourceError(Code.TOO_LONG, "words")) == "[too_long] words"


def test_a_code_outside_the_closed_list_is_refused() -> None:
    with pytest.raises(ValueError, match="bad_luck"):
        SourceError("bad_luck", "x")  # type: ignore[arg-type]


def test_codes_are_snake_case_and_distinct() -> None:
    assert all(code.value == code.name.lower() for code in Code)
    assert len({code.value for code in Code}) == len(Code)
