"""The probe's verdict on actions and on grippers.

The probe's verdict on an action: delta or absolute, in which axes, in which unit, in which rotation form.

Gripper polarity, measured: the commanded opening must be followed by the state's opening.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from adapters.oxe.facts import UNSTATED, book, contradicted, noted, range_of, range_text
from adapters.oxe.gripper import opening_from_command
from adapters.oxe.motion import ArmArrays, Array
from adapters.oxe.probe_rotation import absolute_form, delta_candidates, forms_differ_rad, turning
from adapters.oxe.registry import ArmEntry
from schemas.action_probe import (
    DECIDES,
    SAME_DIRECTION,
    Motion,
    is_clear,
    opening_correlation,
    within_factor,
)
from schemas.fact import Fact

# -- probe action --------------------------------------------------------------------------------------------------

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


# -- probe gripper -------------------------------------------------------------------------------------------------

INVERSE_OP = {"identity": "invert", "pm1_to_01": "pm1_to_01_invert"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Per episode: the raw command of steps 0..T-2 with its whole episode, and the raw state one step later."""

    command: list[Array]
    state: list[Array]

    def correlation(self, op: str) -> float | None:
        """Between the opening that `op` makes of the command and the raw state of the next step; None if flat."""
        opened = np.concatenate([opening_from_command(c, op)[:-1] for c in self.command])
        state = np.concatenate([s[1:] for s in self.state])
        return opening_correlation(opened, state)


def probe_gripper(
    episodes: list[ArmArrays],
    command: Fact | None,
    state: Fact | None,
    op: str | None,
    limits: str | None,
) -> tuple[Fact | None, Fact | None]:
    """The facts `gripper_command` and `gripper_state_range` after the measurement.

    `op` and `limits` are their usable values, or None. One known side settles the other; two known sides that
    disagree are both unknown from then on, because nothing says which of them is wrong.
    """
    if limits is not None and state is not None:
        outside = _outside(episodes, limits)
        if (
            outside
        ):  # what is contradicted is not settled another way: that would be a silent correction
            return command, contradicted(state, outside)
    pairs = [
        (e.command_gripper, e.gripper)
        for e in episodes
        if e.command_gripper is not None and e.gripper is not None and len(e.gripper) > 1
    ]
    if command is None or state is None or not pairs:
        return command, state
    series = _Series(command=[c for c, _ in pairs], state=[s for _, s in pairs])
    if op is not None and limits is not None:
        return _both_known(series, command, state, op, limits)
    if op is not None:
        return command, _settle_state(series, state, op)
    if limits is not None:
        return _settle_command(series, command, limits), state
    return noted(command, "the state's polarity is not known either"), state


def _outside(episodes: list[ArmArrays], limits: str) -> str:
    values = [e.gripper for e in episodes if e.gripper is not None]
    if not values:
        return ""
    low, high = sorted(range_of(limits))
    seen = np.quantile(np.concatenate(values), [0.01, 0.99])
    slack = 0.25 * (high - low)
    if seen[0] < low - slack or seen[1] > high + slack or seen[1] - seen[0] < 0.02 * (high - low):
        is_still = low - slack <= seen[0] and seen[1] <= high + slack
        return "" if is_still else f"values lie in {seen[0]:.3g}..{seen[1]:.3g}"
    return ""


def _evidence(r: float | None) -> str:
    if r is None:
        return "the gripper hardly moves"
    return f"correlation of commanded opening and next state {r:+.2f}"


def _both_known(
    series: _Series, command: Fact, state: Fact, op: str, limits: str
) -> tuple[Fact, Fact]:
    open_value, closed_value = range_of(limits)
    r = series.correlation(op)
    if r is not None:
        r *= np.sign(open_value - closed_value)
    text = _evidence(r)
    if r is None or abs(r) < DECIDES:
        return noted(command, text), noted(state, text)
    if r < 0:
        return contradicted(command, text), contradicted(state, text)
    return command.settled_by_probe(op, text), state.settled_by_probe(limits, text)


def _settle_state(series: _Series, state: Fact, op: str) -> Fact:
    """A state range follows from the command's polarity only when the values themselves fill 0..1."""
    r = series.correlation(op)
    values = np.concatenate(series.state)
    low, high = float(values.min()), float(values.max())
    text = f"{_evidence(r)}, values {low:.3g}..{high:.3g}"
    fills = low > -0.1 and high < 1.1 and low < 0.3 and high > 0.7
    if r is None or abs(r) < DECIDES or not fills:
        return noted(state, text)
    limits = range_text(1.0, 0.0) if r > 0 else range_text(0.0, 1.0)
    return state.settled_by_probe(limits, text)


def _settle_command(series: _Series, command: Fact, limits: str) -> Fact:
    values = np.concatenate(series.command)
    low, high = float(values.min()), float(values.max())
    text = f"command values {low:.3g}..{high:.3g}"
    if low < -1.05 or high > 1.05:
        return noted(command, text)
    op = "identity" if low > -0.05 else "pm1_to_01"
    open_value, closed_value = range_of(limits)
    r = series.correlation(op)
    if r is None or abs(r) < DECIDES:
        return noted(command, f"{text}, {_evidence(r)}")
    is_same = r * (open_value - closed_value) > 0
    return command.settled_by_probe(op if is_same else INVERSE_OP[op], f"{text}, {_evidence(r)}")
