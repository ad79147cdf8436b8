"""What a tier policy compares the measurements of whole episodes with: the lines in histograms, and which end of a number is bad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ingest.curation.tiers.policy import Condition, QualityPolicy, Tier


class Bad(StrEnum):
    """Which values of a measurement speak against a segment."""

    HIGH = "high"
    LOW = "low"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """`rule` is the code of a rule or the name of a condition; `bad` is None where that depends on who refers to it."""

    measurement: str
    word: str  # above | at_least | below | at_most
    value: float
    rule: str
    bad: Bad | None


def thresholds(policy: QualityPolicy) -> list[Threshold]:
    """Every comparison of a measurement's own value; one `of` a stretch (its share, say) has another unit and is not here."""
    return [
        threshold
        for way, condition in policy.all_conditions()
        if condition.measurement is not None and condition.of is None
        for threshold in _thresholds(policy, way, condition)
    ]


def _thresholds(
    policy: QualityPolicy, way: tuple[str | int, ...], condition: Condition
) -> Iterator[Threshold]:
    assert condition.measurement is not None  # asked for by the caller
    head, which = way[0], way[1]
    rule = policy.rules[which] if head == "rules" and isinstance(which, int) else None
    for word, value in condition.thresholds.items():
        bad = None
        if rule is not None:
            is_high = word in ("above", "at_least")
            is_turned = (way.count("not") % 2 == 1) != (rule.tier is Tier.HIGH)
            bad = Bad.HIGH if is_high != is_turned else Bad.LOW
        name = rule.code if rule is not None else str(which)
        yield Threshold(
            measurement=condition.measurement, word=word, value=value, rule=name, bad=bad
        )


def bad_ends(lines: list[Threshold]) -> dict[str, Bad]:
    """Measurement -> the end that is bad; both where rules look at both."""
    ends: dict[str, Bad] = {}
    for each in lines:
        if each.bad is not None:
            known = ends.setdefault(each.measurement, each.bad)
            ends[each.measurement] = known if known is each.bad else Bad.BOTH
    return ends
