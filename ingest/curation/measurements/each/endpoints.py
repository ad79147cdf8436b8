"""How straight an arm goes between gripper events, and how an episode begins and ends. The worst arm.

Path efficiency: straight way over path, between toggles of the gripper (of a stretch that goes over 5 cm), weighted by path; over the
whole episode it says nothing (quality_signals.md 3). End stability: standard deviation over the last 2 s (ibid.). Speed over the first and
last 0.2 s, one period of a source of 5 Hz: a recording that was cut begins or ends in motion, and half a second would have the end of
a quick reach in it. From place to place, less three deviations of the error of the estimate: who trembles has not gone on (ours).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ingest.curation.measurements.arm import MIN_PATH_M, ArmTrack, worst
from ingest.curation.measurements.each.gripper import toggles
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.stationary import DEVIATIONS, error
from ingest.curation.measurements.view import EpisodeView
from schemas.measurement import Measurement

END_S, EDGE_S = 2.0, 0.2

STRAIGHT = OutputField(
    name="path_efficiency",
    unit="share",
    about="straight-line distance over path length between gripper toggles",
)
START = OutputField(name="start_speed_m_s", unit="m/s", about="speed over the first 0.2 s")
END = OutputField(name="end_speed_m_s", unit="m/s", about="speed over the last 0.2 s")
SPREAD_M = OutputField(
    name="end_spread_m", unit="m", about="standard deviation of the position in the last 2 s"
)
SPREAD_RAD = OutputField(
    name="end_spread_rad", unit="rad", about="standard deviation of the worst joint in the last 2 s"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Efficiency, edges and spread."""
    efficiencies = [f for arm in view.arms if (f := _efficiency(arm)) is not None]
    if bad := worst(efficiencies, largest=False):
        yield STRAIGHT.row(*bad)
    last = round(END_S * view.rate_hz)
    for output, is_end in ((START, False), (END, True)):
        if bad := worst([f for arm in view.arms if (f := _speed(arm, is_end=is_end)) is not None]):
            yield output.row(*bad)
    spreads = [
        (float(np.sqrt(seen.var(axis=0).sum())), len(seen))
        for arm in view.arms
        if len(seen := arm.position_m[-last:][arm.valid[-last:]]) > 1
    ]
    if bad := worst(spreads):
        yield SPREAD_M.row(*bad)
    joints = view.columns.get("observation.joint_position_rad")
    if joints is not None:
        seen = joints[-last:][view.valid("observation", "joint_position_rad")[-last:]]
        if len(seen) > 1:
            yield SPREAD_RAD.row(seen.std(axis=0).max(), len(seen))


def _efficiency(arm: ArmTrack) -> tuple[float, int] | None:
    """None where the gripper never toggles: then the stretch is the episode."""
    toggled = toggles(arm)
    if toggled is None or not len(toggled.at):
        return None
    straight = path = steps = 0.0
    bounds = [0, *toggled.at, len(arm.valid) - 1]
    for start, end in pairwise(bounds):
        seen = start + np.flatnonzero(arm.valid[start : end + 1])
        way = arm.metres[start:end][arm.known[start:end]].sum()
        if way > MIN_PATH_M:
            # Over a gap the way is not known, but no shorter than straight.
            displacement_m = float(
                np.linalg.norm(arm.position_m[seen[-1]] - arm.position_m[seen[0]])
            )
            straight, path, steps = (
                straight + displacement_m,
                path + max(way, displacement_m),
                steps + end - start,
            )
    return (straight / path, int(steps)) if path else None


def _speed(arm: ArmTrack, *, is_end: bool) -> tuple[float, int] | None:
    """None where the arm is not seen throughout."""
    steps = max(round(EDGE_S * arm.rate_hz), arm.stride)
    part = slice(-steps - 1, None) if is_end else slice(0, steps + 1)
    place = arm.position_m[part]
    if len(place) <= steps or not arm.valid[part].all():
        return None
    blur = DEVIATIONS * 2**0.5 * error(arm.position_m, arm.valid)
    displacement_m = max(0.0, float(np.linalg.norm(place[-1] - place[0])) - blur)
    return displacement_m * arm.rate_hz / steps, steps


MEASURE = Measure(
    name="endpoints",
    version=2,
    outputs=(STRAIGHT, START, END, SPREAD_M, SPREAD_RAD),
    compute=compute,
)
