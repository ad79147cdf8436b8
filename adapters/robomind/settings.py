"""What the files do not say and the caller may: rates, and the scale of grippers, for all bodies or for one.

rate_hz=15                     rate_hz=franka_1rgb:15,ur_1rgb:10
gripper=0..0.08                gripper=agilex_3rgb:0..0.07,franka_3rgb:1..0        closed..open, as stored
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from adapters.robomind.bodies import BODIES
from schemas.errors import ConfigError
from schemas.rate import rate_from

OPTIONS = ("body", "gripper", "rate_hz")
RATE_HZ = Fraction(30)  # what the one public converter assumes; nothing in the files says it


def check(options: Mapping[str, str]) -> None:
    """Raises ConfigError for an option that is unknown or does not hold for every body it names."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ConfigError(f"unknown options {unknown}; expected {list(OPTIONS)}")
    if options.get("body", "simulation") not in BODIES:
        raise ConfigError(f"body={options['body']!r}; expected one of {list(BODIES)}")
    for body in BODIES:
        rate_of(body, options)
        gripper_of(body, options)


def rate_of(body: str, options: Mapping[str, str]) -> tuple[Fraction, bool]:
    """Rows (of a simulation: pictures) a second, and whether the caller said so."""
    text = _for(body, options.get("rate_hz", ""), "rate_hz")
    try:
        return (rate_from(text), True) if text else (RATE_HZ, False)
    except ValueError as error:
        raise ConfigError(f"rate_hz: {error}") from error


def gripper_of(body: str, options: Mapping[str, str]) -> tuple[float, float] | None:
    """Stored values of the closed and of the open gripper, or None."""
    text = _for(body, options.get("gripper", ""), "gripper")
    if not text:
        return None
    try:
        closed, opened = (float(part) for part in text.split(".."))
    except ValueError as error:
        raise ConfigError(
            f"option gripper={text!r}: expected CLOSED..OPEN, such as 0..0.08"
        ) from error
    if closed == opened or not (math.isfinite(closed) and math.isfinite(opened)):
        raise ConfigError(
            f"option gripper={text!r}: closed and open must be two different finite numbers"
        )
    return closed, opened


def _for(body: str, text: str, option: str) -> str:
    """The part of a comma list that is for `body`; one without a name is for all others."""
    chosen = ""
    for part in text.split(",") if text else ():
        name, is_named, value = part.rpartition(":")
        if is_named and name not in BODIES:
            raise ConfigError(
                f"{option}: unknown embodiment {name!r}; expected one of {list(BODIES)}"
            )
        if name == body or not (is_named or chosen):
            chosen = value
    return chosen
