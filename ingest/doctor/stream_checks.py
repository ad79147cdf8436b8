"""Clocks and commands of one episode as its source has them, before anything was resampled. Pure functions.

Rates and gaps are what the instants themselves say. Commands are measured against the motion that follows them with the numbers
of `schemas/action_probe.py`, as the probe of Open X-Embodiment does: absolute or a displacement, and which end of a gripper is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ingest.check import Check, judged, unmeasured
from ingest.recipe import Recipe
from ingest.transforms.resample import Mask, resample
from ingest.transforms.time_grid import Instants, gap_limit_ns
from schemas.action_probe import DECIDES, Motion, compare, opening_correlation
from schemas.episode import SIDES, Episode, Stream
from schemas.geometry import Array

RATE_TOLERANCE = 0.05
POSE = "T_base_eef"
RAW = "raw_command"


def clock_checks(
    clocks: Mapping[str, Instants], stated_hz: float, recipe: Recipe
) -> Iterator[Check]:
    """The rate that the slowest clock shows against the stated one, and the gaps of every clock; equal clocks once.

    `clocks`: what was observed -> instants of its valid samples, int64 ns.
    """
    merged: dict[bytes, list[str]] = {}
    for name, t_ns in clocks.items():
        if len(t_ns) > 1:
            merged.setdefault(t_ns.tobytes(), []).append(name)
    merged_clocks = {_called(names): clocks[names[0]] for names in merged.values()}
    rates = {name: 1e9 / float(np.median(np.diff(t_ns))) for name, t_ns in merged_clocks.items()}
    if rates:
        slowest = min(rates, key=lambda name: rates[name])
        yield _rate_check(slowest, rates[slowest], stated_hz)
    for name, t_ns in merged_clocks.items():
        yield _gap_check(name, t_ns, recipe)


def _called(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _rate_check(name: str, rate_hz: float, stated_hz: float) -> Check:
    is_well = abs(rate_hz / stated_hz - 1) <= RATE_TOLERANCE
    explanation = f"the slowest stream, {name}, has a median step of {1000 / rate_hz:.2f} ms"
    return judged(
        "rate",
        "",
        rate_hz,
        unit="Hz",
        expected=f"{stated_hz:g} within {RATE_TOLERANCE:.0%}, as documented",
        is_well=is_well,
        explanation=explanation
        if is_well
        else f"{explanation}, which is {rate_hz:.3g} Hz instead of the documented {stated_hz:g}",
    )


def _gap_check(name: str, t_ns: Instants, recipe: Recipe) -> Check:
    steps = np.diff(t_ns)
    limit = gap_limit_ns(t_ns, gap_periods=recipe.gap_periods, gap_ms=recipe.gap_ms)
    count = int((steps > limit).sum())
    longest_s = float(steps.max()) / 1e9
    return judged(
        f"gaps of {name}",
        "",
        count,
        unit="gaps",
        expected=f"0 longer than {limit / 1e9:.3g} s",
        is_well=count == 0,
        explanation=f"{name} has {count} gaps; the longest step is {longest_s:.3g} s",
    )


def command_checks(episode: Episode, recipe: Recipe) -> Iterator[Check]:
    """Every command that can be compared with a state of the same quantity."""
    for side in SIDES:
        yield from _pose_command(episode, side, recipe)
        yield from _gripper_command(episode, side, recipe)
        yield from _raw_command(episode, side, recipe)
    yield from _joint_command(episode, recipe)


def _around(state: Stream, at: Instants, period: int, recipe: Recipe) -> tuple[Array, Array, Mask]:
    """State [N, ...] one period before each instant and at it, and where both are known."""
    gaps = {"gap_periods": recipe.gap_periods, "gap_ms": recipe.gap_ms}
    before, after = resample(state, at - period, **gaps), resample(state, at, **gaps)
    return before.values, after.values, before.valid & after.valid


def _period(t_ns: Instants) -> int:
    return int(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 0


def _pose_command(episode: Episode, side: str, recipe: Recipe) -> Iterator[Check]:
    command, state = (episode.stream(f"{p}{side}.{POSE}") for p in ("command.", ""))
    if command is None or state is None:
        return
    due = command.t_ns[command.valid]
    before, after, known = _around(state, due, _period(command.t_ns), recipe)
    asked = command.values[command.valid][known, :3, 3]
    motion = _motion(asked, before[known], after[known])
    yield _absolute_check("commanded_position", side, motion, "m")


def _joint_command(episode: Episode, recipe: Recipe) -> Iterator[Check]:
    command, state = (episode.stream(f"{p}joint_position_rad") for p in ("command.", ""))
    if command is None or state is None:
        return
    shared = [n for n in command.spec.names if n in state.spec.names]
    if not shared and command.spec.shape != state.spec.shape:
        return
    own, other = (
        [s.spec.names.index(n) for n in shared] or list(range(s.spec.shape[0]))
        for s in (command, state)
    )
    due = command.t_ns[command.valid]
    before, after, known = _around(state, due, _period(command.t_ns), recipe)
    asked = command.values[command.valid][known][:, own]
    motion = _motion(asked, before[known][:, other], after[known][:, other])
    yield _absolute_check("commanded_joints", "", motion, "rad")


def _motion(asked: Array, before: Array, after: Array) -> Motion | None:
    """Commands [N, n] against states before and after, vectors [N, n] or poses [N, 4, 4]; None without samples."""
    if not len(asked):
        return None
    if before.ndim == 2:
        return compare(asked, after - before, np.zeros_like(asked), after)
    moved = after[:, :3, 3] - before[:, :3, 3]
    moved_eef = (np.swapaxes(before[:, :3, :3], 1, 2) @ moved[..., None])[..., 0]
    return compare(asked, moved, moved_eef, after[:, :3, 3])


def _absolute_check(name: str, side: str, motion: Motion | None, unit: str) -> Check:
    """A canonical command is an absolute target: the state goes where it says."""
    expected = "an absolute target close to the next state"
    if motion is None:
        why = "no command while the state is valid"
        return unmeasured(name, side, unit="correlation", expected=expected, explanation=why)
    is_well: bool | None = None
    explanation = "command and motion give no clear result:  " + motion.text
    if motion.is_reached:
        is_well, explanation = (
            True,
            f"the state comes within {motion.off_next_m:.3g} {unit} of the command",
        )
    elif motion.is_followed:
        is_well = False
        explanation = f"{name} is followed at a distance of {motion.off_next_m:.3g} {unit}: wrong unit or frame"
    elif motion.kind(None) == "eef_delta":
        is_well, explanation = (
            False,
            f"{name} is a displacement, not an absolute target: {motion.text}",
        )
    value = motion.correlation_next
    return judged(
        name,
        side,
        value,
        unit="correlation",
        expected=expected,
        is_well=is_well,
        explanation=explanation,
    )


def _gripper_command(episode: Episode, side: str, recipe: Recipe) -> Iterator[Check]:
    command, state = (episode.stream(f"{p}{side}.gripper_opening") for p in ("command.", ""))
    if command is None or state is None:
        return
    due = command.t_ns[command.valid]
    _, after, known = _around(state, due, _period(command.t_ns), recipe)
    r = opening_correlation(command.values[command.valid][known, 0], after[known, 0])
    expected = f"correlation of commanded and next opening above {DECIDES:g}"
    if r is None:
        why = "the gripper hardly moves"
        yield unmeasured("gripper_polarity", side, unit="", expected=expected, explanation=why)
        return
    is_well = None if abs(r) < DECIDES else r > 0
    explanations = {
        True: "the gripper opens on an opening command",
        False: "the gripper closes on an opening command: the sign of the command or the state is inverted",
        None: "the gripper does not follow its command",
    }[is_well]
    yield judged(
        "gripper_polarity",
        side,
        r,
        unit="correlation",
        expected=expected,
        is_well=is_well,
        explanation=explanations,
    )


def _raw_command(episode: Episode, side: str, recipe: Recipe) -> Iterator[Check]:
    """The source's own action vector: which three of its elements move this hand, as a delta or as a target."""
    raw, state = episode.stream(RAW), episode.stream(f"{side}.{POSE}")
    if raw is None or state is None:
        return
    period = _period(raw.t_ns)
    issued = raw.t_ns[raw.valid]
    before, after, known = _around(state, issued + period, period, recipe)
    values = raw.values[raw.valid][known]
    by_triple = {
        triple: motion
        for triple in xyz_triples(raw.spec.names)
        if (motion := _motion(values[:, list(triple)], before[known], after[known])) is not None
    }
    if not by_triple:  # joint targets, say: no element is a position of this hand
        return
    triple = max(by_triple, key=lambda t: _strength(by_triple[t]))
    motion = by_triple[triple]
    kind = motion.kind(episode.rate_hz)
    names = ", ".join(raw.spec.names[i] for i in triple)
    stated = _stated_kind(episode)
    is_well = (
        None if kind is None or stated is None else stated in kind.replace("velocity", "delta")
    )
    explanation = f"{names} look like {kind or 'no known command of this hand'}"
    if is_well is False:
        explanation += f", the facts state {stated}"
    yield judged(
        RAW,
        side,
        motion.correlation_next
        if motion.is_reached
        else max(motion.cosine_state, motion.cosine_eef),
        unit="cosine",
        expected=stated or "not documented",
        is_well=is_well,
        explanation=f"{explanation}: {motion.text}",
    )


def _strength(motion: Motion) -> float:
    return (
        1.0 + motion.correlation_next
        if motion.is_reached
        else max(motion.cosine_state, motion.cosine_eef)
    )


def xyz_triples(names: tuple[str, ...]) -> tuple[tuple[int, int, int], ...]:
    """Neighbours whose names end in x, y and z and are alike before."""
    return tuple(
        (i, i + 1, i + 2)
        for i in range(len(names) - 2)
        if [n[-1:] for n in names[i : i + 3]] == ["x", "y", "z"]
        and len({n[:-1] for n in names[i : i + 3]}) == 1
    )


def _stated_kind(episode: Episode) -> str | None:
    """delta or absolute, as the fact `action_kind` says; None where it says neither, or both."""
    text = " ".join(f.value for f in episode.facts if f.name.partition(".")[0] == "action_kind")
    kinds = [kind for kind in ("delta", "absolute") if kind in text]
    return kinds[0] if len(kinds) == 1 else None
