"""What a command has to do with the motion that follows it, in numbers; no source's conventions are in here.

Thresholds are generous to controllers that lag or undershoot: a command explains the motion when its direction does (cosine
over all moving steps) and its size within a factor of 3. What the numbers do not decide stays undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from schemas.geometry import Array

MOVING = 5e-4  # metres or radians: steps that move less say nothing
MIN_STEPS = 30
SAME_DIRECTION = 0.7  # cosine
CLEARLY_BETTER = 0.15  # cosines
FACTOR = 3.0
FOLLOWS = 0.9  # correlation of an absolute command with where the robot then is
MIN_SPREAD = 0.05  # standard deviation of an opening below which it says nothing
DECIDES = 0.5  # correlation of openings


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What a command has to do with the state's motion, over `num_moving` steps; lengths in the unit of the state."""

    num_moving: int
    cosine_state: float  # command against p[t+1] - p[t] in the axes of the state
    cosine_eef: float  # the same in the axes of the eef; 0 when its rotation is not known
    ratio: float  # achieved over commanded displacement, least squares
    off_next_m: float  # median distance between the command and p[t+1]
    spread_m: float  # how far p[t+1] is spread about its mean
    correlation_next: float  # of command and p[t+1], both about their means

    @property
    def text(self) -> str:
        return (
            f"{self.num_moving} moving steps, action against displacement: cosine {self.cosine_state:.2f} in state axes, "
            f"{self.cosine_eef:.2f} in eef axes, achieved/commanded {self.ratio:.3g}; against the next position: "
            f"{self.off_next_m:.3g} m off, correlation {self.correlation_next:.2f}"
        )

    @property
    def is_followed(self) -> bool:
        """The state goes where the command goes, whatever the command's offset and unit."""
        return self.num_moving >= MIN_STEPS and self.correlation_next > FOLLOWS

    @property
    def is_reached(self) -> bool:
        """The state goes to the command itself."""
        return self.is_followed and self.off_next_m < 0.5 * self.spread_m

    def kind(self, rate_hz: Fraction | None) -> str | None:
        """eef_delta, eef_velocity or eef_absolute; None when the numbers do not say."""
        if self.num_moving < MIN_STEPS:
            return None
        if self.is_reached:  # first: positions of an arm that reaches out point the way it moves
            return "eef_absolute"
        if max(self.cosine_state, self.cosine_eef) >= SAME_DIRECTION:
            if within_factor(self.ratio) or rate_hz is None:
                return "eef_delta"
            return "eef_velocity" if within_factor(self.ratio * float(rate_hz)) else "eef_delta"
        return None

    def frame(self) -> str | None:
        """The axes in which the action explains the motion clearly better."""
        (worse, _), (best, frame) = sorted([(self.cosine_state, "state"), (self.cosine_eef, "eef")])
        return frame if best >= SAME_DIRECTION and is_clear(best, worse) else None


def compare(asked: Array, moved: Array, moved_eef: Array, reached: Array) -> Motion:
    """[N, n] commands against the step that followed (state axes, eef axes) and against the state after it."""
    moving: npt.NDArray[np.bool_] = np.linalg.norm(moved, axis=1) > MOVING
    cosines = cosine(asked[moving], moved[moving]), cosine(asked[moving], moved_eef[moving])
    best = moved if cosines[0] >= cosines[1] else moved_eef
    size = float((asked[moving] ** 2).sum())
    return Motion(
        num_moving=int(moving.sum()),
        cosine_state=cosines[0],
        cosine_eef=cosines[1],
        ratio=float((asked[moving] * best[moving]).sum()) / size if size > 0 else 0.0,
        off_next_m=float(np.median(np.linalg.norm(asked - reached, axis=1))),
        spread_m=float(np.linalg.norm(reached.std(axis=0))),
        correlation_next=cosine(asked - asked.mean(axis=0), reached - reached.mean(axis=0)),
    )


def opening_correlation(opened: Array, state: Array) -> float | None:
    """Between commanded openings [N] and the state of the next step [N]; None when either hardly moves."""
    if len(state) < MIN_STEPS:
        return None
    spread = np.std(opened), np.std(state) / max(float(np.ptp(state)), 1e-9)
    if min(spread) < MIN_SPREAD:
        return None
    return float(np.corrcoef(opened, state)[0, 1])


def within_factor(ratio: float) -> bool:
    """Whether a ratio is 1 within a factor of 3."""
    return 1 / FACTOR < ratio < FACTOR


def is_clear(best: float, second: float) -> bool:
    """Whether a cosine stands out: by a wide margin, or by being exact where the other is not (relabelled actions)."""
    is_exact = best > 0.99 and 1 - second > max(5 * (1 - best), 0.005)
    return best - second >= CLEARLY_BETTER or is_exact


def cosine(a: Array, b: Array) -> float:
    """Of all numbers of two arrays of one shape, taken as one long vector each; 0 where one is zero."""
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / size if size > 1e-12 else 0.0
