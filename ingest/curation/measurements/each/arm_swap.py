"""Do the commands of the left arm move the right one? Correlation of commands with the other arm's motion, less that with its own.

Ours: quality_signals.md 5 lists swapped arms among the faults and no public code looks for them. Steps of both arms' commands and motions are
taken as one vector each, <a, s> / (|a| |s|): so an arm that rests adds nothing, and the base frame does not matter. At the lead from 0 to
0.5 s at which each correlates best. Swapped in both action and state, arms are consistent: then only pictures, or the other
demonstrations of the task (population.py), can tell. Of an achieved action nothing can be said: it is the state.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.each.command import MAX_LEAD_S, Pair, pairs_of, shifted
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.geometry import Array
from schemas.measurement import Measurement

MIN_STEPS = 10

SWAPPED = OutputField(
    name="arms_swapped",
    unit="ratio",
    about="correlation with the other arm minus that with its own",
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Below 0 where commands move their own arm, above where they move the other one, within -2..2; nothing of a single arm."""
    pairs = pairs_of(view)
    reach = round(MAX_LEAD_S * view.rate_hz)
    is_enough = len(pairs) == 2 and view.length > MIN_STEPS + reach
    if not is_enough or not any(pair.arm.moves for pair in pairs):
        return
    aheads = range(reach + 1)
    own = [_correlation(pairs, pairs, ahead) for ahead in aheads]
    other = [_correlation(pairs, pairs[::-1], ahead) for ahead in aheads]
    count = min(count for _, count in own)
    if count >= MIN_STEPS:
        yield SWAPPED.row(max(other)[0] - max(own)[0], count)


def _correlation(commands: list[Pair], motions: list[Pair], ahead: int) -> tuple[float, int]:
    """Of the steps of commands and motions, pair by pair, where all are known."""
    a, s = shifted(len(commands[0].arm.known), ahead)
    known = np.logical_and.reduce(
        [p.valid[:-1][a] & p.valid[1:][a] for p in commands] + [p.arm.known[s] for p in motions]
    )
    asked: Array = np.stack([np.diff(p.position_m, axis=0)[a][known] for p in commands])
    moved: Array = np.stack([p.arm.step_m[s][known] for p in motions])
    scale = float(np.linalg.norm(asked) * np.linalg.norm(moved))
    return (float((asked * moved).sum()) / scale if scale else 0.0), int(known.sum())


MEASURE = Measure(name="swap", version=1, outputs=(SWAPPED,), compute=compute)
