"""Texts of an evaluation that the terminal and the HTML page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.evaluation.summary import Comparison, IntervalEstimate, MetricLine

COMPARED = ("baseline", "better by", "95 %", "episodes", "result")


ALL = "all"  # the embodiment and tier of a line over everything


def is_whole(line: MetricLine) -> bool:
    """Over all bodies and tiers."""
    return line.embodiment == line.tier == ALL


def is_beaten(comparison: Comparison, *, clearly: bool) -> bool:
    """By the mean, or with its whole interval where that is asked for."""
    return bool(comparison.is_better) and (bool(comparison.is_clear) or not clearly)


def headline(about: Mapping[str, Any], comparisons: Mapping[str, Comparison]) -> str:
    """What was evaluated, and how many baselines it beats."""
    compared = {name: each for name, each in comparisons.items() if each.skill is not None}
    better = [name for name, each in compared.items() if each.is_better]
    clear = [name for name in better if compared[name].is_clear]
    lost = sorted(compared.keys() - set(better))
    text = f"step {about['step']} of {about['run']}, {about['split']} of {about['manifest']}, {about['precision']}: "
    text += f"better than {len(better)} of {len(compared)} baselines, {len(clear)} of them with an interval above zero"
    return text + (f"; not better than {', '.join(lost)}" if lost else "")


def verdicts(
    names: Sequence[str], comparisons: Mapping[str, Comparison], clearly: bool
) -> list[str]:
    """A line for each baseline that must be beaten."""
    return [
        f"must beat {name}: {'beaten' if is_beaten(comparisons[name], clearly=clearly) else 'NOT BEATEN'} ({comparisons[name].answer})"
        for name in names
    ]


def comparison_rows(comparisons: Mapping[str, Comparison]) -> list[list[str | int]]:
    """One for each baseline, in the columns of `COMPARED`."""
    return [
        [
            name,
            "" if each.skill is None else percent(each.skill.value),
            "" if each.skill is None else percents(each.skill),
            each.num_episodes,
            each.answer,
        ]
        for name, each in comparisons.items()
    ]


def interval_text(estimate: IntervalEstimate) -> str:
    """Its two ends, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.4g} .. {estimate.high:.4g}"


def skills_text(line: MetricLine, *, with_intervals: bool = False) -> str:
    """By how much it is better than each baseline; in brackets where the interval holds 0 or there is none."""
    parts = []
    for name, skill in line.skill.items():
        plain = percent(skill.value, digits=0)
        part = plain if skill.is_clear else f"({plain})"
        ends = percents(skill) if with_intervals else ""
        parts.append(f"{name} {part}" + (f" [{ends}]" if ends else ""))
    return ", ".join(parts)


def percents(estimate: IntervalEstimate) -> str:
    """The two ends of a share, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{percent(estimate.low)} .. {percent(estimate.high)}"


def percent(share: float, *, digits: int = 1) -> str:
    """0.431 is +43.1%."""
    return f"{share:+.{digits}%}"
