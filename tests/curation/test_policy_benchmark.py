"""The built-in policy on demonstrations of which we know what is wrong: per fault, per tier, and high against low."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.curation.policy.policy import Condition, Policy, Tier, load_policy
from ingest.curation.policy.sql import column_name
from ingest.curation.tier.tier import Judged
from tests.curation.demonstrations import FAULTS, Demonstration, demonstrations
from tests.curation.tier_corpus import decisions, judged, of_view, write_corpus

SEEN = ("frozen_video", "late_video")  # faults of pictures


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Demonstrations with what the policy made of them."""

    made: Sequence[Demonstration]
    found: Judged
    segments: Sequence[Sequence[dict[str, Any]]]

    def timesteps(self) -> Iterator[tuple[str, str]]:
        """(true tier, given tier) of every timestep."""
        for one, segments in zip(self.made, self.segments, strict=True):
            given = [s["tier"] for s in segments for _ in range(s["end"] - s["start"])]
            yield from zip(one.truth, given, strict=True)

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


def outcome(root: Path, made: Sequence[Demonstration]) -> Outcome:
    policy, _ = load_policy("ei30k")
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


def per_tier(done: Outcome) -> dict[str, tuple[float, float, int]]:
    """Precision and recall over timesteps, and how many the tier truly has."""
    pairs = Counter(done.timesteps())
    out = {}
    for tier in Tier:
        right = pairs[tier.value, tier.value]
        given = sum(n for (_, g), n in pairs.items() if g == tier.value)
        true = sum(n for (t, _), n in pairs.items() if t == tier.value)
        out[tier.value] = (right / max(given, 1), right / max(true, 1), true)
    return out


# --- high against low as a score ------------------------------------------------------------------------------------------


def margin(policy: Policy, condition: Condition, frame: dict[str, Any]) -> np.ndarray:
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


def auroc(done: Outcome) -> float:
    """Of timesteps that are truly low among those truly high or low, by the largest margin of the `low` rules."""
    policy, frame = done.found.policy, done.found.frame.to_pydict()
    rules = [margin(policy, r.when, frame) for r in policy.rules if r.tier is Tier.LOW]
    score = np.max(rules, axis=0)
    size = np.array(frame["end"]) - np.array(frame["start"])
    truth = np.array([t for one in done.made for t in one.truth])
    scores = np.repeat(score, size)
    low, high = scores[truth == "low"], scores[truth == "high"]
    order = np.sort(high)
    below = np.searchsorted(order, low, side="left")
    equal = np.searchsorted(order, low, side="right") - below
    return float((below + 0.5 * equal).mean() / len(high))


# --- tests --------------------------------------------------------------------------------------------------------------


def test_faults_of_motion_and_action_are_found(tmp_path: Path) -> None:
    """A few of each, without pictures."""
    made = [d for d in demonstrations(5, 1, has_pictures=False) if d.fault not in SEEN]
    done = outcome(tmp_path / "corpus", made)
    recall = {fault: found for fault, (_, found, count) in per_fault(done).items() if count}
    assert {fault for fault, found in recall.items() if found < 1} <= {"pause"}
    assert per_tier(done)["high"][0] > 0.95
    assert auroc(done) > 0.95


@pytest.mark.slow
def test_the_labelled_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of docs/curation/tiers.md; shown with `pytest -s`."""
    made = list(demonstrations(8, 4))
    done = outcome(tmp_path / "corpus", made)
    faults, tiers, score = per_fault(done), per_tier(done), auroc(done)
    with capsys.disabled():
        sys.stdout.write(json.dumps({"episodes": len(made), "auroc": round(score, 4)}) + "\n")
        for name, (precision, recall, count) in (*faults.items(), *tiers.items()):
            line = f"{name:18} precision {precision:.3f} recall {recall:.3f} of {count}"
            sys.stdout.write(f"{line}\n")
    assert score >= 0.95
    assert all(recall >= 0.75 for _, recall, _ in faults.values()), faults
    assert all(precision >= 0.75 for precision, _, _ in faults.values()), faults
    assert tiers["high"][0] >= 0.95
    assert all(recall >= 0.8 for _, recall, _ in tiers.values()), tiers
