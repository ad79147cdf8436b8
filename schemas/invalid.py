"""What pydantic finds wrong with a file of ours, in words of ours: the key, its value, what is expected, and the key that was meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

SHOWN = 5  # problems in one message
SHOWN_CHARACTERS = 60  # of a value
LONGEST = 1000  # characters of one message

EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "keys with values",
    "model": "keys with values",
}
COMPARED = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def invalid(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The problems on one line, at most five.

    Args:
        model: what was validated; with it an unknown key is answered by the nearest that there is.
    """
    shown = islice(each_problem(error, model), SHOWN)
    problems = [f"{key}: {text}" if key else text for key, text in shown]
    more = error.error_count() - SHOWN
    text = "; ".join([*problems, *([f"and {more} more"] if more > 0 else [])])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def reason(error: Exception, model: type[BaseModel] | None = None) -> str:
    """Why a document cannot be read as a model: pydantic's error in words of ours, the message of any other."""
    return invalid(error, model) if isinstance(error, ValidationError) else str(error)


def each_problem(
    error: ValidationError, model: type[BaseModel] | None = None
) -> Iterator[tuple[str, str]]:
    """(key with its path, "" for the whole; what is wrong and what is expected) of each problem."""
    for one in error.errors(include_url=False):
        yield ".".join(map(str, one["loc"])), problem(one, model)


def problem(one: Mapping[str, Any], model: type[BaseModel] | None = None) -> str:
    """What is wrong with one value, of `ValidationError.errors()`: what was found, what is expected."""
    kind, context = one["type"], one.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{_nearest(one['loc'], model)}"
    if kind == "missing":
        return "is missing"
    if kind in ("value_error", "assertion_error"):
        return str(one["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{_shown(one['input'])}; expected {_expected(kind, context, str(one['msg']))}"


def _expected(kind: str, context: Mapping[str, Any], message: str) -> str:
    if kind in COMPARED:
        key, words = COMPARED[kind]
        return f"{words} {context[key]}"
    if kind in ("literal_error", "enum"):
        return str(context["expected"])
    if kind in ("too_short", "too_long"):
        limit = context.get("min_length", context.get("max_length"))
        return f"{'at least' if kind == 'too_short' else 'at most'} {limit} items"
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    name, _, rest = kind.partition("_")
    is_of_type = rest in ("type", "parsing", "from_float")
    return EXPECTED[name] if is_of_type and name in EXPECTED else _plain(message)


def _plain(message: str) -> str:
    """A message of pydantic for which there are no words here."""
    for start in ("Input should be ", "Value should be ", "String should "):
        message = message.removeprefix(start)
    return message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _nearest(path: Sequence[int | str], model: type[BaseModel] | None) -> str:
    """The keys that there are at the place of an unknown one: the nearest, or all of them."""
    return did_you_mean(str(path[-1]), _keys(path[:-1], model))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to a message about an unknown name: the nearest of those there are, or all of them."""
    names = list(dict.fromkeys(known))
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are {', '.join(names)}" if names else ""


def _keys(path: Sequence[int | str], model: type[BaseModel] | None) -> list[str]:
    models = [] if model is None else [model]
    for step in path:
        fields = [each.model_fields[step] for each in models if step in each.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models(field.annotation)]
    return sorted(
        {field.alias or name for each in models for name, field in each.model_fields.items()}
    )


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every model inside an annotation: of `list[X] | None` it is X."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
