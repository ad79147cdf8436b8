"""Why a JSON or YAML text is refused: the one error of `schemas.json_text` and `schemas.yaml_text`."""

from __future__ import annotations

MAX_INT = (1 << 63) - 1
MAX_INT_DIGITS = len(str(MAX_INT))


class DocumentError(ValueError):
    """The text is no document of its format, or it is beyond the bounds. The reader of the file adds its name and a code.

    Args:
        problem: what is wrong.
        place: line and column, from 1, where that is known.
    """

    def __init__(self, problem: str, place: tuple[int, int] | None = None) -> None:
        super().__init__(problem, place)
        self.problem, self.place = problem, place

    def __str__(self) -> str:
        at = "" if self.place is None else "line {}, column {}: ".format(*self.place)
        return at + self.problem


def bounded_int(digits: str) -> int:
    """The integer of a decimal text.

    Raises:
        DocumentError: it does not fit 64 bits with a sign, as no column of ours could hold it.
    """
    if len(digits) <= MAX_INT_DIGITS + 1 and -MAX_INT - 1 <= (value := int(digits)) <= MAX_INT:
        return value
    raise DocumentError(f"the number {shortened(digits)} does not fit in 64 bits")


def shortened(text: str) -> str:
    """A text of any length as a message can show it."""
    return text if len(text) <= 40 else f"{text[:16]}...{text[-8:]} ({len(text)} characters)"
