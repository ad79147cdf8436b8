"""The probe's verdict on an action: delta or absolute, in which axes, in which unit, in which rotation form."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from adapters.oxe.facts import UNSTATED, book, contradicted, noted
from adapters.oxe.motion import ArmArrays
from adapters.oxe.probe_rotation import (
    absolute_form,
    delta_candidates,
    forms_differ_rad,
    turning,
)
from adapters.oxe.registry import ArmEntry
from schemas.action_probe import SAME_DIRECTION, Motion, is_clear, within_factor
from schemas.fact import Fact

# Rotation forms that differ less than this (1.1 degrees, 99th percentile) on the actions seen are one form for our purpose:
# robots of these sets miss a commanded turn by more than that.
ALIKE_RAD = 0.02


def probe_action(
    side: str, arm: ArmEntry, motion: Motion, facts: dict[str, Fact], rate_hz: Fraction | None
) -> None:
    name = f"action_kind.{side}"
    fact = facts.get(name)
    if fact is None or arm.command is None:
        return
    measured = motion.kind(rate_hz)
    claimed = book([fact]).value(name)
    if measured is None or (claimed and not claimed.startswith("eef")):
        facts[name] = noted(fact, motion.text)
        return
    if claimed is not None and claimed != measured:
        facts[name] = contradicted(fact, f"{motion.text}; measured {measured}")
        return
    facts[name] = fact.settled_by_probe(measured, motion.text)
    if measured == "eef_delta":
        _probe_frame_and_scale(side, motion, facts)


def _probe_frame_and_scale(side: str, motion: Motion, facts: dict[str, Fact]) -> None:
    frame, scale = facts.get(f"action_frame.{side}"), facts.get(f"action_scale.{side}")
    if frame is not None:
        facts[frame.name] = _settle(frame, motion.frame(), motion.text)
    if scale is not None:
        if (
            scale.value == UNSTATED
        ):  # a lagging controller hides the factor: the ratio alone does not give it
            facts[scale.name] = noted(scale, motion.text)
        elif within_factor(motion.ratio):
            facts[scale.name] = scale.settled_by_probe(scale.value, motion.text)
        else:
            facts[scale.name] = contradicted(scale, motion.text)


def _settle(fact: Fact, measured: str | None, evidence: str) -> Fact:
    """Settled by a measurement that agrees or where nothing was stated; contradicted by one that disagrees."""
    claimed = book([fact]).value(fact.name)
    if measured is None:
        return noted(fact, evidence)
    if claimed is not None and claimed != measured:
        return contradicted(fact, f"{evidence}; measured {measured}")
    return fact.settled_by_probe(measured, evidence)


def probe_action_rotation(
    side: str, arm: ArmEntry, episodes: list[ArmArrays], facts: dict[str, Fact]
) -> None:
    name = f"action_rotation_form.{side}"
    values, fact = book(facts.values()), facts.get(name)
    state, kind = (values.value(f"{n}.{side}") for n in ("eef_rotation_form", "action_kind"))
    if fact is None or fact.value == "none" or arm.command is None or state is None:
        return
    claimed = values.value(name)
    candidates = arm.command.candidates or delta_candidates(episodes)
    if claimed and claimed not in candidates:
        candidates = (claimed, *candidates)
    if kind == "eef_absolute":
        verdict = absolute_form(episodes, state, candidates)
        facts[name] = _settle(fact, verdict.form, verdict.evidence)
    elif kind == "eef_delta":
        frame = values.value(f"action_frame.{side}") or "state"
        facts[name] = _delta_form(fact, episodes, state, candidates, frame, arm)


def _delta_form(
    fact: Fact,
    episodes: list[ArmArrays],
    state: str,
    candidates: tuple[str, ...],
    frame: str,
    arm: ArmEntry,
) -> Fact:
    """Settle the rotation form of a delta, where the forms can be distinguished or hardly differ."""
    scale = arm.command.rotation_scale_rad if arm.command else 1.0
    by_form = {
        form: result
        for form in candidates
        if (result := turning(episodes, state, form, frame, scale)) is not None
    }
    text = ", ".join(f"{f} {r.cosine:.3f} (x{r.ratio:.2f})" for f, r in by_form.items())
    ranked = sorted(by_form, key=lambda form: -by_form[form].cosine)
    evidence = f"cosine of commanded and achieved turns in {frame} axes: {text or 'too few turns'}"
    if not ranked:
        return noted(fact, evidence)
    claimed = book([fact]).value(fact.name)
    best = claimed or ranked[0]
    if best in by_form and by_form[best].cosine < -SAME_DIRECTION:
        return contradicted(fact, f"{evidence}: it turns the other way")
    if by_form[ranked[0]].cosine < SAME_DIRECTION:
        if degrees := _in_degrees(episodes, state, candidates, frame):
            return contradicted(fact, f"{evidence}; {degrees}")
        return noted(fact, evidence)
    top = by_form[ranked[0]].cosine
    rivals = [f for f in ranked if f == ranked[0] or not is_clear(top, by_form[f].cosine)]
    if not within_factor(by_form[ranked[0]].ratio):
        return contradicted(fact, f"{evidence}: not radians")
    if len(rivals) == 1:
        return _settle(fact, rivals[0], evidence)
    apart = forms_differ_rad(episodes, tuple(rivals))
    evidence += f"; {len(rivals)} forms within {apart:.3g} rad of each other on the actions seen"
    if claimed in rivals:
        return fact.settled_by_probe(claimed, evidence)
    if claimed is None and apart < ALIKE_RAD:
        return fact.settled_by_probe(next(f for f in candidates if f in rivals), evidence)
    return noted(fact, evidence)


def _in_degrees(
    episodes: list[ArmArrays], state: str, candidates: tuple[str, ...], frame: str
) -> str:
    """Says so when the same numbers, read as degrees, explain the turns."""
    for form in candidates:
        result = turning(episodes, state, form, frame, float(np.pi / 180))
        if result is not None and result.cosine >= SAME_DIRECTION and within_factor(result.ratio):
            return f"read as degrees {form} has cosine {result.cosine:.3f}"
    return ""
