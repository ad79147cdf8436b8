"""`--checkpoint STEP` or `--checkpoint best`, as `eval` and `serve-policy` take it."""

from __future__ import annotations

from typing import Literal

from schemas.errors import ConfigError


def step_from(given: str | None) -> int | Literal["best"] | None:
    """
    Raises:
        ConfigError: neither a step nor "best".
    """
    if given is None:
        return None
    if given == "best":
        return "best"
    if not given.isdecimal():
        raise ConfigError(f"{given!r}; expected a step or `best`", where="--checkpoint")
    return int(given)
