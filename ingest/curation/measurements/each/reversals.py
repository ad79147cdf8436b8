"""How often an arm turns back: sign changes of its speed along its principal axis, per second of known time. The worst arm.

quality_signals.md 3. The axis is the first principal component of the moving steps; a speed along it of less than 0.01 m/s (the limit
of idle) keeps the sign it had, so that noise at rest is no reversal. Of arms whose path is over 5 cm.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.arm import IDLE_M_S, ArmTrack, switches, worst
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.measurement import Measurement

RATE = OutputField(
    name="reversals_per_s", unit="1/s", about="turning back along the principal axis"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Of the arm that turns back most often."""
    if highest := worst([_reversals(arm) for arm in view.arms if arm.moves]):
        yield RATE.row(*highest)


def _reversals(arm: ArmTrack) -> tuple[float, int]:
    velocity = arm.step_m[arm.known] * arm.rate_hz
    _, axes = np.linalg.eigh(velocity.T @ velocity)
    along = velocity @ axes[:, -1]
    at, _ = switches((along > IDLE_M_S).astype(np.int8) - (along < -IDLE_M_S).astype(np.int8))
    return len(at) / (len(velocity) / arm.rate_hz), len(velocity)


MEASURE = Measure(name="reversals", version=1, outputs=(RATE,), compute=compute)
