"""What the tier policy makes of demonstrations of which we know what is wrong: per fault, per tier, and high against low."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ingest.curation.tiers.policy import Condition, QualityPolicy, Tier, load_policy
from ingest.curation.tiers.policy_sql import column_name
from ingest.curation.tiers.tier import Judged
from tests.curation.demonstrations import FAULTS, Demonstration
from tests.curation.tier_corpus import Given, decisions, judged, of_view, write_corpus


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Demonstrations with what the policy made of them."""

    made: Sequence[Demonstration]
    found: Judged
    segments: Sequence[Sequence[dict[str, Any]]]

    def timesteps(self, among: Sequence[bool] | None = None) -> Iterator[tuple[str, str]]:
        """(true tier, given tier) of every timestep, or of those of the episodes `among`."""
        for number, (one, segments) in enumerate(zip(self.made, self.segments, strict=True)):
            if among is not None and not among[number]:
                continue
            given = [s["tier"] for s in segments for _ in range(s["end"] - s["start"])]
            yield from zip(one.truth, given, strict=True)

    def found_by(self, index: int, codes: Sequence[str]) -> bool:
        """Whether at least half of an episode's wrong timesteps lie in segments that one of these rules is a reason of."""
        truth = self.made[index].truth
        wrong = [t != "high" for t in truth]
        caught = sum(
            sum(wrong[s["start"] : s["end"]])
            for s in self.segments[index]
            if any(reason["code"] in codes for reason in s["reasons"])
        )
        return caught >= 0.5 * sum(wrong)

    def codes(self, index: int, *, where_wrong: bool) -> set[str]:
        """Rules that are reasons of an episode's segments; only of those that are mostly not high in truth, or of all."""
        truth = self.made[index].truth
        return {
            reason["code"]
            for s in self.segments[index]
            for reason in s["reasons"]
            if not where_wrong
            or sum(t != "high" for t in truth[s["start"] : s["end"]])
            > 0.5 * (s["end"] - s["start"])
        }


def outcome(
    root: Path, made: Sequence[Demonstration], given: Sequence[Given] | None = None
) -> Outcome:
    """All measures, the built-in policy; `given` where they are measured already."""
    policy, _ = load_policy("ei30k")
    if given is None:
        given = [of_view(one.view, source=str(one.view.row["embodiment"])) for one in made]
    found = judged(write_corpus(root, given), policy)
    return Outcome(made=made, found=found, segments=decisions(found))


def per_fault(done: Outcome) -> dict[str, tuple[float, float, int]]:
    """Precision and recall over episodes, and how many have the fault. A fault is found where one of its rules is a reason."""
    out = {}
    for fault, how in FAULTS.items():
        if fault == "none":
            continue
        codes = set(how.codes)
        has = [one.fault == fault for one in done.made]
        lawful = [codes & set(one.codes) for one in done.made]  # another fault, same rule
        hit = [bool(codes & done.codes(i, where_wrong=True)) for i in range(len(has))]
        alarm = [bool(codes & done.codes(i, where_wrong=False)) for i in range(len(has))]
        true = sum(h and f for h, f in zip(has, hit, strict=True))
        false = sum(a and not ok for a, ok in zip(alarm, lawful, strict=True))
        precision = true / (true + false) if true + false else 0.0
        out[fault] = (precision, true / sum(has) if any(has) else 0.0, sum(has))
    return out


def per_tier(
    done: Outcome, among: Sequence[bool] | None = None
) -> dict[str, tuple[float, float, int]]:
    """Precision and recall over timesteps, and how many the tier truly has."""
    pairs = Counter(done.timesteps(among))
    out = {}
    for tier in Tier:
        right = pairs[tier.value, tier.value]
        given = sum(n for (_, g), n in pairs.items() if g == tier.value)
        true = sum(n for (t, _), n in pairs.items() if t == tier.value)
        out[tier.value] = (right / max(given, 1), right / max(true, 1), true)
    return out


# --- high against low as a score ------------------------------------------------------------------------------------------


def margin(policy: QualityPolicy, condition: Condition, frame: dict[str, Any]) -> np.ndarray:
    """[S] how far a condition is from not holding, in thresholds; negative where it does not hold. Unknown is -1."""
    if condition.condition is not None:
        return margin(policy, policy.conditions[condition.condition], frame)
    if condition.not_ is not None:
        return -margin(policy, condition.not_, frame)
    if condition.parts:
        inner = [margin(policy, part, frame) for _, part in condition.parts]
        return np.min(inner, axis=0) if condition.all_ is not None else np.max(inner, axis=0)
    size = len(frame["row"])
    if not condition.thresholds:
        return np.full(size, -1.0)
    value = np.array([np.nan if v is None else v for v in frame[column_name(condition)]], float)
    far = [
        (value - limit if word in ("above", "at_least") else limit - value) / (abs(limit) or 1.0)
        for word, limit in condition.thresholds.items()
    ]
    return np.nan_to_num(np.clip(np.min(far, axis=0), -1, 1), nan=-1.0)


def auroc(done: Outcome, among: Sequence[bool] | None = None) -> float:
    """Of timesteps that are truly low among those truly high or low, by the largest margin of the `low` rules."""
    policy, frame = done.found.policy, done.found.frame.to_table().to_pydict()
    rules = [margin(policy, r.when, frame) for r in policy.rules if r.tier is Tier.LOW]
    score = np.max(rules, axis=0)
    size = np.array(frame["end"]) - np.array(frame["start"])
    truth = np.array([t for one in done.made for t in one.truth])
    scores = np.repeat(score, size)
    if among is not None:
        chosen = np.repeat(among, [len(one.truth) for one in done.made])
        truth, scores = truth[chosen], scores[chosen]
    low, high = scores[truth == "low"], scores[truth == "high"]
    order = np.sort(high)
    below = np.searchsorted(order, low, side="left")
    equal = np.searchsorted(order, low, side="right") - below
    return float((below + 0.5 * equal).mean() / len(high))
