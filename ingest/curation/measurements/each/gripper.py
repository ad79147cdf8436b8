"""What the grippers do: toggles, chatter, and second tries. Opening 1 is open, 0 closed.

Open is over 0.7, closed under 0.3, and between them it is what it was (forge-robotics 0.2.0; quality_signals.md 3), of the way that
this gripper goes where that is 0.3 and more: jaws that stop at what they hold are closed at 0.4 (ours). Chatter: more than 2 toggles
within a second (ibid.). Re-grasp: closed, opened, and closed again at the same place, within 5 cm and 15 s, so that nothing was
transported: either it was opened there too and had not gone farther than 15 cm (lifted, lost or put back), or the first time the jaws
closed farther than the second, on nothing. signals has 3 s and 5 cm of path; a try takes what it takes, so the places count (ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.arm import ArmTrack, switches
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from ingest.transforms.resample import runs
from schemas.geometry import Array
from schemas.measurement import Measurement

CLOSED, OPEN = 0.3, 0.7
CHATTER_TOGGLES, CHATTER_S = 3, 1.0
MIN_RANGE = 0.3  # a gripper that moves less says nothing of where its ends are
PLACE_M = 0.05  # as wide as what jaws take
LIFT_M, REGRASP_S = 0.15, 15.0
EMPTY = 0.05  # of the whole way: thinner than that holds nothing that a try would be for

RATE = OutputField(
    name="gripper_toggles_per_s", unit="1/s", about="toggles of the gripper that toggles most"
)
RANGE = OutputField(
    name="gripper_range", unit="share", about="range of the gripper that opens widest"
)
CHATTER = OutputField(
    name="gripper_chatter", unit="1/s", about="more than 2 toggles within 1 s", is_interval=True
)
REGRASPS = OutputField(
    name="regrasps", unit="count", about="closed, opened and closed again in one place"
)
REGRASP = OutputField(
    name="regrasp", unit="s", about="from the first closing to the second", is_interval=True
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Toggles:
    """`at` [n] timesteps at which a gripper has become open (`to` 1) or closed (-1), over `num_valid` timesteps."""

    at: npt.NDArray[np.intp]
    to: npt.NDArray[np.int8]
    num_valid: int


def toggles(arm: ArmTrack) -> Toggles | None:
    """None without a gripper or a valid opening."""
    if arm.opening is None or arm.opening_valid is None or not arm.opening_valid.any():
        return None
    seen = np.flatnonzero(arm.opening_valid)
    opening = arm.opening[seen]
    low, high = float(opening.min()), float(opening.max())
    if high - low < MIN_RANGE:
        low, high = 0.0, 1.0
    is_open = opening > low + OPEN * (high - low)
    is_closed = opening < low + CLOSED * (high - low)
    at, to = switches(is_open.astype(np.int8) - is_closed.astype(np.int8))
    return Toggles(at=seen[at], to=to, num_valid=len(seen))


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Rates and range of the worst arm; intervals of every arm."""
    toggled_arms = [(arm, toggled) for arm in view.arms if (toggled := toggles(arm)) is not None]
    if not toggled_arms:
        return
    rates = [(len(t.at) / (t.num_valid / view.rate_hz), t.num_valid) for _, t in toggled_arms]
    yield RATE.row(*max(rates, key=lambda r: r[0]))
    valid = max(t.num_valid for _, t in toggled_arms)
    yield RANGE.row(max(_range(arm) for arm, _ in toggled_arms), valid)
    regrasps = [r for arm, toggled in toggled_arms for r in _regrasps(arm, toggled)]
    yield REGRASPS.row(len(regrasps), valid)
    for start, end in regrasps:
        yield REGRASP.row((end - 1 - start) / view.rate_hz, end - start, (start, end))
    for _, toggled in toggled_arms:
        yield from _chatter(toggled.at, view)


def _range(arm: ArmTrack) -> float:
    opening: Array = np.empty(0) if arm.opening is None else arm.opening[arm.opening_valid]
    return float(np.ptp(opening))


def _regrasps(arm: ArmTrack, toggled: Toggles) -> Iterator[tuple[int, int]]:
    """Timesteps [start, end). Toggles alternate: after a closing comes its opening, then the next closing."""
    closings = np.flatnonzero(toggled.to < 0)
    for index, following in pairwise(closings):
        first, opened, second = toggled.at[[index, index + 1, following]]
        if not arm.valid[[first, opened, second]].all():
            continue
        is_soon = second - first <= REGRASP_S * arm.rate_hz
        away = _away(arm, first, slice(first, opened + 1))
        is_put_back = away[-1] < PLACE_M and away.max() < LIFT_M
        ends = toggled.at[following + 1] if following + 1 < len(toggled.at) else len(arm.valid)
        is_empty = _least(arm, first, opened) < _least(arm, second, ends) - EMPTY
        if is_soon and _away(arm, first, second) < PLACE_M and (is_put_back or is_empty):
            yield int(first), int(second) + 1


def _away(arm: ArmTrack, start: int, at: slice | int) -> Array:
    """Distance from where the arm was at `start`; 0 where it is not known."""
    displacement_m = np.linalg.norm(arm.position_m[at] - arm.position_m[start], axis=-1)
    return np.asarray(np.where(arm.valid[at], displacement_m, 0.0))


def _least(arm: ArmTrack, start: int, end: int) -> float:
    """The smallest opening in the timesteps [start, end)."""
    assert arm.opening is not None
    assert arm.opening_valid is not None
    return float(arm.opening[start:end][arm.opening_valid[start:end]].min(initial=1.0))


def _chatter(at: npt.NDArray[np.intp], view: EpisodeView) -> Iterator[Measurement]:
    """Stretches in which every second or less sees three toggles; their value is the rate within."""
    covered = np.zeros(view.length, dtype=bool)
    last = CHATTER_TOGGLES - 1
    for first, third in zip(at[:-last], at[last:], strict=True):
        if third - first < CHATTER_S * view.rate_hz:
            covered[first : third + 1] = True
    for start, end in runs(covered):
        count = int(((at >= start) & (at < end)).sum())
        yield CHATTER.row(count / ((end - start) / view.rate_hz), end - start, (start, end))


MEASURE = Measure(
    name="gripper", version=2, outputs=(RATE, RANGE, CHATTER, REGRASPS, REGRASP), compute=compute
)
