"""Gripper polarity, measured: the commanded opening must be followed by the state's opening."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adapters.oxe.facts import contradicted, noted, range_of, range_text
from adapters.oxe.gripper import opening_from_command
from adapters.oxe.motion import ArmArrays, Array
from schemas.action_probe import DECIDES, opening_correlation
from schemas.fact import Fact

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
