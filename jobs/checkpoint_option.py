"""`--checkpoint STEP` or `--checkpoint best`, as `eval` and `serve-policy` take it."""

from __future__ import annotations

from typing import Literal

from schemas.errors import ConfigError


def step_from(text: str | None) -> int | Literal["best"] | None:
    """
    Raises:
        ConfigError: neither a step nor "best".
    """
    if text is None:
        return None
    if text == "best":
        return "best"
    if not text.isdecimal():
        raise ConfigError(f"{text!r}; expected a step or `best`", where="--checkpoint")
    return int(text)
