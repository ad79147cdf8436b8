"""What the built-in policy makes of the held-out demonstrations: recall by size of the fault, precision, tiers, alarms at sound ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.curation.held_out_faults import STYLES, SWEEPS, Made
from tests.curation.scores import Outcome, auroc, outcome, per_tier
from tests.curation.tier_corpus import Given, of_view


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The held-out demonstrations with what the policy made of them, in the same order."""

    made: Sequence[Made]
    done: Outcome

    def where(self, holds: Callable[[Made], bool]) -> list[bool]:
        return [holds(one) for one in self.made]


def tried(root: Path, made: Iterable[Made]) -> Tried:
    """Measured one by one: the views with their pictures are not kept."""
    kept: list[Made] = []
    given: list[Given] = []
    for one in made:
        view = one.demonstration.view
        given.append(of_view(view, source=str(view.row["embodiment"])))
        kept.append(replace(one, demonstration=replace(one.demonstration, view=None)))
    done = outcome(root, [one.demonstration for one in kept], given)
    return Tried(made=kept, done=done)


def by_size(found: Tried, fault: str) -> dict[float, tuple[int, int]]:
    """Size -> how many are found, of how many."""
    out: dict[float, tuple[int, int]] = {}
    for index, one in enumerate(found.made):
        if one.name == fault:
            hits, count = out.get(one.size, (0, 0))
            hit = found.done.found_by(index, SWEEPS[fault].codes)
            out[one.size] = (hits + hit, count + 1)
    return out


def passes(recall: Mapping[float, tuple[int, int]], level: float) -> str:
    """The sizes at which at least `level` are found, in words."""
    sizes = sorted(recall)
    good = [size for size in sizes if recall[size][0] >= level * recall[size][1]]
    if not good:
        return "never"
    if good == sizes[-len(good) :]:
        return "all sizes" if len(good) == len(sizes) else f"from {good[0]:g}"
    if good == sizes[: len(good)]:
        return f"up to {good[-1]:g}"
    return ", ".join(f"{size:g}" for size in good)


def of_fault(found: Tried, fault: str) -> dict[str, Any]:
    """Recall by size; recall and precision over sizes that count; the tiers that its wrong timesteps were given."""
    sweep = SWEEPS[fault]
    recall = by_size(found, fault)
    counting = [v for size, v in recall.items() if size >= sweep.counts_from]
    hits, count = sum(h for h, _ in counting), sum(n for _, n in counting)
    alarms = sum(
        bool(set(sweep.codes) & found.done.codes(i, where_wrong=False))
        and not set(sweep.codes) & set(one.demonstration.codes)
        for i, one in enumerate(found.made)
        if one.counts
    )
    given = Counter(
        got
        for index, one in enumerate(found.made)
        if one.name == fault and one.counts
        for truth, got in _timesteps(found.done, index)
        if truth != "high"
    )
    return {
        "unit": sweep.unit,
        "counts_from": sweep.counts_from,
        "by_size": {f"{size:g}": list(v) for size, v in sorted(recall.items())},
        "half_from": passes(recall, 0.5),
        "most_from": passes(recall, 0.9),
        "found": hits,
        "of": count,
        "recall": hits / count if count else 0.0,
        "precision": hits / (hits + alarms) if hits + alarms else 0.0,
        "wrong_timesteps_given": dict(given.most_common()),
    }


def _timesteps(done: Outcome, index: int) -> Iterable[tuple[str, str]]:
    given = [s["tier"] for s in done.segments[index] for _ in range(s["end"] - s["start"])]
    return zip(done.made[index].truth, given, strict=True)


def of_style(found: Tried, style: str) -> dict[str, Any]:
    """How many sound ones of a style have a segment that is wrongly not high, by which rules, and what share of their time that is."""
    at = [i for i, one in enumerate(found.made) if one.name == style]
    not_high = [
        [
            s
            for s in found.done.segments[i]
            if s["tier"] != "high"
            and 2 * found.made[i].demonstration.truth[s["start"] : s["end"]].count("high")
            > s["end"] - s["start"]
        ]
        for i in at
    ]
    rules = Counter(
        code
        for segments in not_high
        for code in {r["code"] for s in segments for r in s["reasons"]}
    )
    steps = sum(len(found.made[i].demonstration.truth) for i in at)
    lost = sum(s["end"] - s["start"] for segments in not_high for s in segments)
    return {
        "of": len(at),
        "alarmed": sum(bool(segments) for segments in not_high),
        "rules": dict(rules.most_common()),
        "lost_share": lost / steps if steps else 0.0,
    }


def _with_waits_sound(done: Outcome, made: Sequence[Made]) -> Outcome:
    """As if waits on purpose were to be high."""
    high = [
        replace(d, truth=("high",) * len(d.truth)) if one.name in STYLES else d
        for one, d in zip(made, done.made, strict=True)
    ]
    return replace(done, made=high)


def report(found: Tried) -> dict[str, Any]:
    """All of it, as JSON takes it."""
    counts = found.where(lambda one: one.counts)
    faults = {one.name for one in found.made} & SWEEPS.keys()
    tiers = per_tier(found.done, counts)
    return {
        "episodes": len(found.made),
        "sound": sum(one.name in STYLES for one in found.made),
        "auroc": auroc(found.done, counts),
        "auroc_of_every_size": auroc(found.done),
        "auroc_with_waits_sound": auroc(_with_waits_sound(found.done, found.made), counts),
        "auroc_by_fault": {
            name: auroc(
                found.done,
                found.where(lambda one, name=name: one.counts and one.name in (name, *STYLES)),
            )
            for name in SWEEPS
            if any(one.name == name and "low" in one.demonstration.truth for one in found.made)
        },
        "auroc_by_body": {
            rig: auroc(found.done, found.where(lambda one, rig=rig: one.counts and one.rig == rig))
            for rig in sorted({one.rig for one in found.made})
        },
        "faults": {name: of_fault(found, name) for name in SWEEPS if name in faults},
        "tiers": {t: {"precision": p, "recall": r, "of": n} for t, (p, r, n) in tiers.items()},
        "styles": {style: of_style(found, style) for style in STYLES},
    }
