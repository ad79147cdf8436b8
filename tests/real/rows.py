"""One line of the table of real data: what was measured, what was expected and by whom, and whether it is so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Row:
    """`holds` is None where it could not be measured here; `known` says why a row is not as documented."""

    what: str
    value: str
    expected: str
    holds: bool | None
    known: str = ""

    @property
    def is_fault(self) -> bool:
        """Not as expected, and nobody knows why."""
        return self.holds is False and not self.known

    @property
    def verdict(self) -> str:
        if self.holds is None:
            return "NOT RUN"
        if self.holds:
            return "as expected"
        return f"differs: {self.known}" if self.known else "DIFFERS"


# Rows about one sample: the folder of all samples, and an empty one to write in.
Measure = Callable[[Path, Path], Iterator[Row]]


def number(
    what: str,
    values: npt.ArrayLike,
    unit: str,
    expected: str,
    between: tuple[float, float],
    known: str = "",
) -> Row:
    """One number or several, all of which have to lie `between`."""
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    low, high = between
    text = ", ".join(shown(v) for v in array)
    return Row(
        what=what,
        value=f"{text} {unit}".strip(),
        expected=expected,
        holds=bool(((array >= low) & (array <= high)).all()),
        known=known,
    )


def shown(value: float) -> str:
    """Two digits; nothing between 0 and 1e-9, which is rounding and another number on each machine."""
    return "0" if abs(value) < 1e-9 else f"{value:.2g}" if abs(value) < 10 else f"{value:.1f}"


REAL_COLUMNS = ("real sample", "what", "measured", "expected", "verdict")


def cells(sample: str, row: Row) -> list[str]:
    """A row of the table of real data."""
    return [sample, row.what, row.value, row.expected, row.verdict]
