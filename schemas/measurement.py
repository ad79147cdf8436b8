"""A number about an episode, or about a part of it. Facts: thresholds never change them, and unknown is not zero."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """`value` None: it does not apply, or there was nothing to measure it on (`denominator` 0).

    `start`, `end`: timesteps [start, end) where it holds; None for the whole episode. `denominator`: samples it rests on.
    """

    name: str
    value: float | None
    unit: str
    denominator: int
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"measurement name {self.name!r}: expected lower-case words joined by dots"
            )
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.name} is {self.value}; use None for an undefined value")
        if (self.start is None) != (self.end is None):
            raise ValueError(f"{self.name}: start and end must be given together")
        if self.start is not None and self.end is not None and not 0 <= self.start < self.end:
            raise ValueError(f"{self.name}: interval [{self.start}, {self.end})")
        if self.denominator < 0 or (self.value is not None and self.denominator == 0):
            raise ValueError(f"{self.name}: a value needs a denominator, found {self.denominator}")
