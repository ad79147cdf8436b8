"""What the action has to do with the state: its lead, how well it is followed, whether it is only a copy. The worst arm.

quality_signals.md 2 and 3. `action[k]` is the target for timestep k + 1 (design 3.3), so the lead of a perfectly followed command is one
timestep. The lead is sought from -0.5 to 0.5 s: an action that comes after its own motion (a source that stamps it late, a
shifted column) would otherwise pass as one of no lead. Where the row says `action_source` achieved, the action IS the next state: lead
one timestep, error 0, and `action_is_next_state` 1 say only that nothing was mixed up since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ingest.curation.measurements.arm import ArmTrack, worst
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from schemas.geometry import Array, geodesic_rad, rotmat_from_rot6d_cols
from schemas.measurement import Measurement

MAX_LEAD_S = 0.5
MIN_STEPS = 8  # timesteps below which a lead says nothing

LEAD = OutputField(
    name="action_lag_s",
    unit="s",
    about="lag of the state behind the action with the smallest difference",
)
ERROR_M = OutputField(
    name="tracking_error_m", unit="m", about="mean distance to the action at that lag"
)
ERROR_RAD = OutputField(
    name="tracking_error_rad", unit="rad", about="mean angle to the action at that lag"
)
ERROR_OPENING = OutputField(
    name="tracking_error_opening",
    unit="share",
    about="mean difference of gripper openings, at their own lag",
)
COPY = OutputField(
    name="action_is_copy",
    unit="share",
    about="moving timesteps with action exactly equal to the state",
)
NEXT = OutputField(
    name="action_is_next_state",
    unit="share",
    about="moving timesteps with action equal to the next state",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """An arm's command beside its motion: [K] each, and where both are valid."""

    arm: ArmTrack
    position_m: Array
    rotmat: Array
    valid: Mask
    opening: Array | None
    opening_valid: Mask


def pairs_of(view: EpisodeView) -> list[Pair]:
    """The arms that have an action."""
    return [pair for arm in view.arms if (pair := _pair(view, arm)) is not None]


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Lead and errors; the lead farthest from one timestep, and the largest errors."""
    leads, metres, radians, openings = [], [], [], []
    pairs = pairs_of(view)
    for pair in pairs:
        lead = _lead(pair)
        if lead is not None:
            leads.append(lead)
        steps = 1 if lead is None else lead[0]
        if followed := _followed(pair, steps):
            error_m, error_rad, count = followed
            metres.append((error_m, count))
            radians.append((error_rad, count))
        if (opening := _opening_error(pair)) is not None:
            openings.append(opening)
    if leads:
        steps, count = max(leads, key=lambda lead: abs(lead[0] - 1))
        yield LEAD.row(steps / view.rate_hz, count)
    for output, errors in ((ERROR_M, metres), (ERROR_RAD, radians), (ERROR_OPENING, openings)):
        if bad := worst(errors):
            yield output.row(*bad)
    for output, ahead in ((COPY, 0), (NEXT, 1)):
        if bad := worst([f for pair in pairs if (f := _equal(pair, ahead)) is not None]):
            yield output.row(*bad)


def shifted(length: int, ahead: int) -> tuple[slice, slice]:
    """Slices of an action and of a state [length] that pair action k with state k + ahead."""
    return (
        slice(max(0, -ahead), length - max(0, ahead)),
        slice(max(0, ahead), length - max(0, -ahead)),
    )


def _pair(view: EpisodeView, arm: ArmTrack) -> Pair | None:
    position = view.part("action", f"{arm.side}.position_m")
    rot6d = view.part("action", f"{arm.side}.rot6d_cols")
    if position is None or rot6d is None:
        return None
    opening = view.part("action", f"{arm.side}.gripper_opening")
    return Pair(
        arm=arm,
        position_m=position,
        rotmat=rotmat_from_rot6d_cols(rot6d),
        valid=view.valid("action", f"{arm.side}.position_m"),
        opening=None if opening is None else opening[:, 0],
        opening_valid=view.valid("action", f"{arm.side}.gripper_opening"),
    )


def _costs(action: Array, state: Array, both: tuple[Mask, Mask], reach: int) -> tuple[Array, int]:
    """Mean distance of action k and state k + ahead, for ahead in -reach..reach, on the same actions for all of them.

    `both`: where the action and where the state is valid. Returns nothing and 0 where too little is.
    """
    reach = min(reach, (len(action) - MIN_STEPS) // 2)
    if reach < 1:
        return np.empty(0), 0
    middle = np.arange(reach, len(action) - reach)
    aheads = np.arange(-reach, reach + 1)
    middle = middle[both[0][middle] & both[1][middle[:, None] + aheads].all(axis=1)]
    if len(middle) < MIN_STEPS:
        return np.empty(0), 0
    apart = state[middle[:, None] + aheads] - action[middle][:, None]
    return np.asarray(np.linalg.norm(apart, axis=2).mean(axis=0)), len(middle)


def _lead(pair: Pair) -> tuple[int, int] | None:
    """Steps from action to state and timesteps it rests on; None for an arm that goes less than 5 cm."""
    arm = pair.arm
    if not arm.moves:
        return None
    reach = round(MAX_LEAD_S * arm.rate_hz)
    costs, count = _costs(pair.position_m, arm.position_m, (pair.valid, arm.valid), reach)
    return (int(np.argmin(costs)) - len(costs) // 2, count) if count else None


def _followed(pair: Pair, ahead: int) -> tuple[float, float, int] | None:
    """Mean distance and angle of action k and state k + ahead."""
    arm = pair.arm
    a, s = shifted(len(arm.valid), ahead)
    both = pair.valid[a] & arm.valid[s]
    if not both.any():
        return None
    apart = np.linalg.norm(pair.position_m[a][both] - arm.position_m[s][both], axis=1)
    turned = geodesic_rad(pair.rotmat[a][both], arm.rotmat[s][both])
    return float(apart.mean()), float(turned.mean()), int(both.sum())


def _opening_error(pair: Pair) -> tuple[float, int] | None:
    """At the lag at which the gripper follows best: it is slower than the arm."""
    arm = pair.arm
    if pair.opening is None or arm.opening is None or arm.opening_valid is None:
        return None
    if arm.is_opening_commanded:
        return None  # a command follows itself
    reach = round(MAX_LEAD_S * arm.rate_hz)
    both = (pair.opening_valid, arm.opening_valid)
    costs, count = _costs(pair.opening[:, None], arm.opening[:, None], both, reach)
    return (float(costs[len(costs) // 2 :].min()), count) if count else None


def _equal(pair: Pair, ahead: int) -> tuple[float, int] | None:
    """Of the timesteps from which the arm moves: at a still arm a copy and a command look the same."""
    arm = pair.arm
    moving = arm.known & pair.valid[:-1] & (arm.metres > 0)
    if not moving.any():
        return None
    state = arm.position_m[ahead : len(arm.position_m) - 1 + ahead]
    same = (pair.position_m[:-1] == state).all(axis=1)
    return float(same[moving].mean()), int(moving.sum())


MEASURE = Measure(
    name="command",
    version=1,
    outputs=(LEAD, ERROR_M, ERROR_RAD, ERROR_OPENING, COPY, NEXT),
    compute=compute,
)
