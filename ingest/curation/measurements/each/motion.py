"""How an end-effector moves: idle time, path, speed. Per timestep on the canonical grid, over valid steps only.

Idle follows quality_signals.md 3: a step is idle when NO arm moves (|v| < 0.01 m/s, turn < 0.05 rad/s, opening < 0.05 /s):
one arm of two that rests is no idle time (measured there on AgiBot). A body of which only joints are known is idle when none of
them turns faster than 0.05 rad/s. For stops, an arm whose estimate wanders rests by half a second (`still`). Dead time is what a stop
takes beyond this demonstrator's own: 0.8 s more than the usual one (of three and more inner stops their median, from 0.7 s, the
longest natural one there, to 1.5 s), so 1.5 s and more (ours). Path efficiency over a whole episode says nothing and is not given.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.arm import IDLE_RAD_S
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.stationary import is_stationary, stays_stationary
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs
from schemas.measurement import Measurement

MIN_PAUSE_S = 0.5
LONG_PAUSE_S = (
    1.5  # the policy sets these apart, so that they do not count against what is around them
)
NATURAL_S, BEYOND_S = (
    0.7,
    0.8,
)  # signals, section 3: the longest natural inner run; ours: together 1.5 s
MIN_STOPS = 3  # fewer tell no usual one

IDLE = OutputField(name="idle_share", unit="share", about="share of steps in which no arm moves")
BETWEEN = OutputField(
    name="idle_between_share", unit="share", about="idle share without stops of 1.5 s or more"
)
HEAD = OutputField(name="idle_head_s", unit="s", about="time before the first movement")
TAIL = OutputField(name="idle_tail_s", unit="s", about="time after the last movement")
PAUSE = OutputField(name="pause_s", unit="s", about="a pause inside the episode", is_interval=True)
REST = OutputField(
    name="rest_s", unit="s", about="a rest at either end of the episode", is_interval=True
)
DEAD = OutputField(
    name="pause_dead_s",
    unit="s",
    about="a pause at least 0.8 s longer than usual in its episode",
    is_interval=True,
)
DEAD_END = OutputField(
    name="rest_dead_s",
    unit="s",
    about="a rest at an end at least 0.8 s longer than usual in its episode",
    is_interval=True,
)
PATH = OutputField(name="path_length_m", unit="m", about="total path length of all end-effectors")
SPEED = OutputField(name="speed_max_m_s", unit="m/s", about="fastest step of any end-effector")


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Idle share, head, tail and pauses; path length and top speed over all arms."""
    rest = _rest(view)
    if rest is not None:
        yield from _idle(*rest, _usual_s(view), rate_hz=view.rate_hz)
    if view.arms:
        steps = int(np.logical_or.reduce([arm.known for arm in view.arms]).sum())
        top = max(float(arm.metres[arm.known].max()) for arm in view.arms) * view.rate_hz
        yield PATH.row(sum(arm.path_m for arm in view.arms), steps)
        yield SPEED.row(top, steps)


def _rest(view: EpisodeView) -> tuple[Mask, Mask, Mask] | None:
    """[K - 1] whether nothing moves, whether that is part of a stop, and where it is known; None when there is no step."""
    if view.arms:
        idle = np.logical_and.reduce([arm.is_idle for arm in view.arms])
        stop = np.logical_and.reduce([is_stationary(arm) for arm in view.arms])
        return idle, stop, np.logical_and.reduce([arm.known for arm in view.arms])
    joints = view.columns.get("observation.joint_position_rad")
    if joints is None or len(joints) < 2:
        return None
    valid = view.valid("observation.joint_position_rad", "joint_position_rad")
    turned = np.abs(np.diff(joints, axis=0)).max(axis=1)
    idle = turned * view.rate_hz < IDLE_RAD_S
    return idle, idle, valid[:-1] & valid[1:]


def _idle(
    is_idle: Mask, is_stop: Mask, known: Mask, usual_s: float, *, rate_hz: float
) -> Iterator[Measurement]:
    steps = int(known.sum())
    if not steps:
        return
    yield IDLE.row(is_idle[known].mean(), steps)
    moving = np.flatnonzero(~is_stop & known)
    head, tail = (moving[0], len(known) - 1 - moving[-1]) if len(moving) else (len(known), 0)
    yield HEAD.row(head / rate_hz, steps)
    yield TAIL.row(tail / rate_hz, steps)
    between = known.copy()
    for start, end in runs(is_stop & known):
        is_inner = start > head and end < len(known) - tail
        seconds = (end - start) / rate_hz
        if seconds >= LONG_PAUSE_S:
            between[start:end] = False
        if seconds >= MIN_PAUSE_S:
            yield (PAUSE if is_inner else REST).row(seconds, end - start, (start, end))
        if seconds >= usual_s + BEYOND_S - 1e-9:
            yield (DEAD if is_inner else DEAD_END).row(seconds, end - start, (start, end))
    if between.any():
        yield BETWEEN.row(is_idle[between].mean(), int(between.sum()))


def _usual_s(view: EpisodeView) -> float:
    """How long this demonstrator's arms usually stay where they have arrived, whatever the jaws do there."""
    if not view.arms:
        return NATURAL_S
    stops = runs(np.logical_and.reduce([stays_stationary(arm) & arm.known for arm in view.arms]))
    last = max(arm.known.size for arm in view.arms)
    seconds = np.array([(e - s) / view.rate_hz for s, e in stops if s > 0 and e < last])
    seconds = seconds[seconds >= MIN_PAUSE_S]
    if len(seconds) < MIN_STOPS:
        return NATURAL_S
    return float(np.clip(np.median(seconds), NATURAL_S, LONG_PAUSE_S))


MEASURE = Measure(
    name="motion",
    version=4,
    outputs=(IDLE, BETWEEN, HEAD, TAIL, PAUSE, REST, DEAD, DEAD_END, PATH, SPEED),
    compute=compute,
)
