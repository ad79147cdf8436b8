"""Numeric probe of a set's conventions on its first episodes: measured facts, never a silent correction.

What the position part of an action has to do with the motion that follows it: the numbers behind the probe.

Numeric probe of a set's conventions on its first episodes: measured facts, never a silent correction.

A measurement may settle a fact (VERIFIED), leave it (the numbers are added to its source) or contradict it (UNKNOWN from
then on, and what rests on it is not emitted). Thresholds are generous to controllers that lag or undershoot: a command
explains the motion when its direction does (cosine over all moving steps) and its size within a factor of 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from adapters.containers.rlds_steps import Steps
from adapters.oxe.cameras import HueStatistic, cameras_of
from adapters.oxe.facts import book, contradicted, noted
from adapters.oxe.motion import ArmArrays, Array, poses, read_arm
from adapters.oxe.probe_action import probe_action, probe_action_rotation, probe_gripper
from adapters.oxe.probe_rotation import (
    FORMS_BY_WIDTH,
    delta_candidates,
    state_form,
    state_rotations,
)
from adapters.oxe.registry import MATRIX_FORMS, ArmEntry, OxeSet
from schemas.action_probe import Motion, compare
from schemas.episode import EncodedImages
from schemas.errors import SourceError
from schemas.fact import Fact
from schemas.geometry import inverse, position_of, transform
from schemas.rate import instants_ns

# -- probe motion --------------------------------------------------------------------------------------------------


def measure_motion(
    episodes: list[ArmArrays], positions: list[Array], form: str | None, arm: ArmEntry
) -> Motion | None:
    """Compare the action's position part with displacement and with the next position; None without one."""
    scale_m = (arm.command.position_scale_m if arm.command else None) or 1.0
    start = int(arm.command is not None and arm.command.is_first_empty)
    asked, moved, moved_eef, reached = [], [], [], []
    for episode, p in zip(episodes, positions, strict=True):
        action = episode.command_position
        if (
            action is None
            or action.shape[1] != 3
            or len(p) < start + 2
            or not np.isfinite(action).all()
        ):
            continue
        steps = np.diff(p, axis=0)
        asked.append(action[start:-1] * scale_m)
        moved.append(steps[start:])
        moved_eef.append(_in_eef(steps, episode, form)[start:])
        reached.append(p[start + 1 :])
    if not asked:
        return None
    return compare(*(np.concatenate(x) for x in (asked, moved, moved_eef, reached)))


def _in_eef(moved: Array, episode: ArmArrays, form: str | None) -> Array:
    """Displacements in the axes of the eef; zeros when its rotation is not known."""
    R = None if form is None else state_rotations(episode, form)
    if R is None:
        return np.zeros_like(moved)
    return np.asarray((np.swapaxes(R[:-1], 1, 2) @ moved[..., None])[..., 0])


# -- probe ---------------------------------------------------------------------------------------------------------

MAX_SPEED_M_S = 3.0
EXTENT_M = (0.02, 2.5)  # how far an arm on a table moves, and reaches


def probe(
    entry: OxeSet, facts: tuple[Fact, ...], episodes: Iterable[Steps], rate_hz: Fraction | None
) -> tuple[Fact, ...]:
    """The facts after measuring; order and names are kept. An episode that cannot be read is left out of the measurement."""
    arms: dict[str, list[ArmArrays]] = {side: [] for side in sorted(entry.arms)}
    hues = HueStatistic()
    for steps in episodes:
        try:
            by_side = {side: read_arm(steps, entry.arms[side]) for side in arms}
            hues.add(_middle_images(steps, entry))
        except SourceError:  # not lost: it is quarantined when it is loaded
            continue
        for side, arrays_of_side in by_side.items():
            arms[side].append(arrays_of_side)
    revised = {fact.name: fact for fact in facts}
    for side, arrays in arms.items():
        _probe_arm(side, entry.arms[side], arrays, revised, rate_hz)
    for pair, evidence in hues.contradictions().items():
        for camera in pair:
            name = f"channel_order.{camera}"
            if name in revised:
                revised[name] = contradicted(revised[name], evidence)
    return tuple(revised[fact.name] for fact in facts)


def _middle_images(steps: Steps, entry: OxeSet) -> dict[str, tuple[bytes, bool]]:
    cameras, _ = cameras_of(steps, entry, instants_ns(steps.num_steps, Fraction(1)))
    by_camera = {}
    for camera in cameras:
        if isinstance(camera.frames, EncodedImages):
            pictures = camera.frames.images
            by_camera[camera.name] = (pictures[len(pictures) // 2], camera.frames.is_bgr)
    return by_camera


def _probe_arm(
    side: str,
    arm: ArmEntry,
    episodes: list[ArmArrays],
    facts: dict[str, Fact],
    rate_hz: Fraction | None,
) -> None:
    """Revise this side's facts in place, state first: the action is judged against it."""
    if not episodes:
        return
    _probe_state_form(side, arm, episodes, facts)
    form = book(facts.values()).value(f"eef_rotation_form.{side}")
    positions = [_positions(episode, form) for episode in episodes]
    if all(p is not None for p in positions):
        known = [p for p in positions if p is not None]
        _probe_unit_and_speed(side, known, facts, rate_hz)
        motion = measure_motion(episodes, known, form, arm)
        if motion is not None:
            probe_action(side, arm, motion, facts, rate_hz)
            probe_action_rotation(side, arm, episodes, facts)
    values = book(facts.values())
    names = f"gripper_command.{side}", f"gripper_state_range.{side}"
    after = probe_gripper(
        episodes,
        facts.get(names[0]),
        facts.get(names[1]),
        values.value(names[0]),
        values.value(names[1]),
    )
    facts.update({n: fact for n, fact in zip(names, after, strict=True) if fact is not None})


def _probe_state_form(
    side: str, arm: ArmEntry, episodes: list[ArmArrays], facts: dict[str, Fact]
) -> None:
    name = f"eef_rotation_form.{side}"
    fact = facts.get(name)
    usable = [e for e in episodes if e.rotation is not None]
    if fact is None or arm.eef is None or not usable or fact.value == "none":
        return
    claimed = book([fact]).value(name)
    width = usable[0].rotation.shape[1] if usable[0].rotation is not None else 0
    rivals = FORMS_BY_WIDTH.get(width, ())
    candidates = tuple(dict.fromkeys((claimed, *rivals))) if claimed else arm.eef.candidates
    verdict = state_form(
        usable, tuple(candidates), arm.eef.copy_of_rotation, _delta_forms(arm, usable)
    )
    if verdict.against or (claimed and verdict.form not in (None, claimed)):
        measured = f"{verdict.evidence}; measured {verdict.form or 'no lawful rotation'}"
        facts[name] = contradicted(fact, measured)
    elif verdict.form is not None:
        facts[name] = fact.settled_by_probe(verdict.form, verdict.evidence)
    else:
        facts[name] = noted(fact, verdict.evidence)


def _delta_forms(arm: ArmEntry, episodes: list[ArmArrays]) -> tuple[str, ...]:
    """The rotation forms that the registry leaves open for the action."""
    if arm.command is None:
        return ()
    stated = (arm.command.form,) if arm.command.form else arm.command.candidates
    return stated or delta_candidates(episodes)


def _positions(episode: ArmArrays, form: str | None) -> Array | None:
    """[T, 3] finite eef positions as `load` would have them, or None."""
    position = episode.position
    if form in MATRIX_FORMS and episode.rotation is not None:
        try:
            position = poses(None, episode.rotation, form, where="probe")[:, :3, 3]
        except SourceError:  # this episode is judged at load
            return None
    if position is None or position.shape[1] != 3 or not np.isfinite(position).all():
        return None
    if episode.T_state_base is None:
        return position
    return position_of(inverse(episode.T_state_base) @ transform(np.eye(3), position))


def _probe_unit_and_speed(
    side: str, positions: list[Array], facts: dict[str, Fact], rate_hz: Fraction | None
) -> None:
    every = np.concatenate(positions)
    extent = float(np.ptp(every, axis=0).max())
    reach = float(np.linalg.norm(every, axis=1).max())
    steps = np.concatenate([np.linalg.norm(np.diff(p, axis=0), axis=1) for p in positions])
    speed = float(np.quantile(steps, 0.99)) * float(rate_hz or 0) if len(steps) else 0.0
    text = (
        f"positions span {extent:.3g}, reach {reach:.3g}, 99 % of steps below {speed:.3g} a second"
    )
    name = f"eef_position_unit.{side}"
    fact = facts.get(name)
    if fact is not None and fact.value == "m":
        if extent > 2 * EXTENT_M[1] or reach > 4 * EXTENT_M[1]:
            facts[name] = contradicted(fact, f"{text}: not metres")
        elif EXTENT_M[0] < extent < EXTENT_M[1] and speed < MAX_SPEED_M_S:
            facts[name] = fact.settled_by_probe("m", text)
        else:
            facts[name] = noted(fact, text)
    if rate_hz is not None and extent < EXTENT_M[1] and speed >= MAX_SPEED_M_S:
        facts["rate_hz"] = contradicted(facts["rate_hz"], f"{text}: no arm is that fast")
