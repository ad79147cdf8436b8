"""One thing that `doctor` looked at: what was measured, what was expected, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    NOT_MEASURABLE = "not_measurable"  # nothing here that could tell; silence is no evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`explanation` is one plain sentence for the reader of the report; of a failing check it states the problem."""

    name: str
    side: str  # left | right | "" for the whole episode
    value: float | None  # in `unit`; None where nothing was measured
    unit: str
    expected: str
    verdict: Verdict
    explanation: str

    @property
    def has_failed(self) -> bool:
        return self.verdict is Verdict.FAIL

    def as_row(self) -> dict[str, Any]:
        """The check as `--json` has it."""
        return {
            "name": self.name,
            "side": self.side,
            "value": self.value,
            "unit": self.unit,
            "wanted": self.expected,
            "verdict": self.verdict.value,
            "explanation": self.explanation,
        }


def judged(
    name: str,
    side: str,
    value: float,
    *,
    unit: str,
    expected: str,
    is_well: bool | None,
    explanation: str,
) -> Check:
    """A measured check; `is_well` None where the measurement does not decide."""
    verdicts = {True: Verdict.PASS, False: Verdict.FAIL, None: Verdict.NOT_MEASURABLE}
    return Check(
        name=name,
        side=side,
        value=float(value),
        unit=unit,
        expected=expected,
        verdict=verdicts[is_well],
        explanation=explanation,
    )


def unmeasured(name: str, side: str, *, unit: str, expected: str, explanation: str) -> Check:
    """A check that could not be made, and why."""
    return Check(
        name=name,
        side=side,
        value=None,
        unit=unit,
        expected=expected,
        verdict=Verdict.NOT_MEASURABLE,
        explanation=explanation,
    )
