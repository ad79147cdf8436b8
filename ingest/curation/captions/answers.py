"""Answers of the two prompts, parsed from a model's text. Everything in them is untrusted and is normalised first."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from schemas.invalid import invalid

# Controls, format marks (among them those that turn the writing direction) and halves of surrogate pairs, which are no UTF-8.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_KEPT = "\n\t"
_MARK = re.compile(r"<(?=[|/A-Za-z])")


def plain_text(text: str) -> str:
    """Without characters that are not seen; each becomes a blank, so that what stood on its two sides stays apart."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _UNSEEN else " " for c in text)


def one_line_of(text: str) -> str:
    """`plain_text` in one line."""
    return " ".join(plain_text(text).split())


def unmarked(text: str) -> str:
    """Without marks of a chat's own format: servers read "<|im_end|>", "</s>" or "<image>" anywhere in a message."""
    return _MARK.sub("< ", text)


def _seen(value: object) -> object:
    return plain_text(value) if isinstance(value, str) else value


Line = Annotated[str, BeforeValidator(_seen), Field(max_length=400)]
Word = Annotated[str, BeforeValidator(_seen), Field(max_length=80)]
Seconds = Annotated[float, Field(ge=-1e4, le=1e4, allow_inf_nan=False)]
MAX_TEXT = 64_000  # characters of an answer that are looked at


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Event(_Answer):
    """One thing that a hand or gripper does, seconds from the start of the segment."""

    start_s: Seconds
    end_s: Seconds
    hand: Literal["left", "right", "both"]
    action: Line
    object: Word


class Description(_Answer):
    """Pass one: only what is visible."""

    visible_hands: Literal["left", "right", "both", "none"]
    objects: Annotated[list[Word], Field(max_length=30)]
    events: Annotated[list[Event], Field(max_length=30)]
    contact: Literal["yes", "no", "unclear"]
    quality: Annotated[
        list[Literal["blur", "dark", "occluded", "camera_motion", "static"]], Field(max_length=5)
    ]


class Instruction(_Answer):
    """Pass two: what to do, as one would say it."""

    status: Literal["ok", "no_action", "unclear"]
    instruction: Line
    left: Line | None
    right: Line | None
    verb: Word
    object: Word
    destination: Word | None
    agrees_with_source: Literal["yes", "no", "n/a"]
    evidence_s: Annotated[list[Seconds], Field(max_length=60)]
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    rephrasings: Annotated[list[Line], Field(max_length=5)]


AnswerModel = TypeVar("AnswerModel", Description, Instruction)


class AnswerError(ValueError):
    """The text is no answer of the schema; the message may be shown to the model."""


class Refusal(ValueError):
    """The model says in words that it will not answer."""


_THINKING = re.compile(r"<think>.*", re.DOTALL)  # cut off before its end
_FENCE = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)
_REFUSES = re.compile(
    r"\b(i'?m sorry|i am sorry|i can(no|')?t (help|assist|comply|describe|identify|provide|process|view)|as an ai\b|unable to (assist|comply|help))",
    re.IGNORECASE,
)


def parsed(text: str, model: type[AnswerModel]) -> AnswerModel:
    """The answer in a model's text: thinking and fences off, then JSON, else the first balanced object, then the schema.

    Thinking may end without having begun: some chat templates write "<think>" themselves.

    Raises:
        Refusal: there is no object, and words of refusal.
        AnswerError: no object, or not of the schema.
    """
    plain = _THINKING.sub("", text[:MAX_TEXT].rpartition("</think>")[2]).strip()
    if match := _FENCE.search(plain):
        plain = match[1].strip()
    answer = _first_object(plain)
    if answer is None:
        if _REFUSES.search(plain):
            raise Refusal(plain[:200])
        raise AnswerError(f"no JSON object in {plain[:120]!r}")
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise AnswerError(invalid(error, model)) from error


def _first_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder(strict=False)  # a newline inside a string is no reason to lose it
    at = text.find("{")
    tried = 0
    while at >= 0 and tried < 50:
        try:
            value, _ = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        at = text.find("{", at + 1)
        tried += 1
    return None


def joined(parts: Sequence[Description]) -> Description:
    """One description of parts that follow each other; their times are already of the whole."""
    if len(parts) == 1:
        return parts[0]
    hands = {part.visible_hands for part in parts} - {"none"}
    contacts = {part.contact for part in parts}
    return Description.model_construct(
        visible_hands="none" if not hands else hands.pop() if len(hands) == 1 else "both",
        objects=list(dict.fromkeys(name for part in parts for name in part.objects)),
        events=[event for part in parts for event in part.events],
        contact="yes" if "yes" in contacts else contacts.pop() if len(contacts) == 1 else "unclear",
        quality=list(dict.fromkeys(kind for part in parts for kind in part.quality)),
    )


_BOUNDS = frozenset(
    {"title", "description", "maxLength", "maxItems", "minimum", "maximum", "default"}
)


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema that a server is asked to keep to: all fields required, nothing besides, bounds left out."""
    plain: dict[str, Any] = _without_bounds(model.model_json_schema())
    return plain


def _without_bounds(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_bounds(item) for item in node]
    if not isinstance(node, dict):
        return node
    # under "properties" a key is a field's name, and a field may be called "title"
    return {
        key: {name: _without_bounds(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _without_bounds(value)
        for key, value in node.items()
        if key not in _BOUNDS
    }
