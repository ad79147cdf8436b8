"""What an evaluation says, in the words that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.evaluation.summary import Comparison, Estimate, Line

COMPARED = ("baseline", "better by", "95 %", "episodes", "the network is")


def comparison_rows(found: Mapping[str, Comparison]) -> list[list[str | int]]:
    """One for each baseline, in the columns of `COMPARED`."""
    return [
        [
            name,
            "" if each.skill is None else percent(each.skill.value),
            "" if each.skill is None else percents(each.skill),
            each.num_episodes,
            each.answer,
        ]
        for name, each in found.items()
    ]


def interval_text(estimate: Estimate) -> str:
    """Its two ends, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.4g} .. {estimate.high:.4g}"


def skills_text(line: Line, *, with_intervals: bool = False) -> str:
    """By how much it is better than each baseline; in brackets where the interval holds 0 or there is none."""
    said = []
    for name, skill in line.skill.items():
        plain = percent(skill.value, digits=0)
        told = plain if skill.is_clear else f"({plain})"
        ends = percents(skill) if with_intervals else ""
        said.append(f"{name} {told}" + (f" [{ends}]" if ends else ""))
    return ", ".join(said)


def percents(estimate: Estimate) -> str:
    """The two ends of a share, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{percent(estimate.low)} .. {percent(estimate.high)}"


def percent(share: float, *, digits: int = 1) -> str:
    """0.431 is +43.1%."""
    return f"{share:+.{digits}%}"
