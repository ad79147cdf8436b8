"""Rows of third-party annotation files as typed values.

One malformed row must not cost its neighbours, so rows are checked one by one: one that does not fit becomes a `Broken`,
never nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.invalid import invalid

# int | float, not float: the files mix both, and that is counted as one of their faults. The longest real video has
# 7,224 s; the bound (11 days) keeps hostile numbers from becoming millions of windows.
Seconds = Annotated[int | float, Field(ge=-1e6, le=1e6)]
# Ids become episode ids, texts become instructions: bounded, because they come from outside.
LONGEST_UID = 200
Uid = Annotated[str, Field(min_length=1, max_length=LONGEST_UID)]
Text = Annotated[str, Field(max_length=20_000)]


class JsonRow(BaseModel):
    """Keys that are not named are ignored: releases add some."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that does not fit its model, and why."""

    why: str


Model = TypeVar("Model", bound=JsonRow)


def parse(model: type[Model], raw: Any) -> Model | Broken:
    """`raw` as that model, or what is wrong with it."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        return Broken(invalid(error, model))


def parse_rows(model: type[Model], raw: Iterable[Any] | None) -> list[Model | Broken]:
    return [parse(model, item) for item in raw or ()]
