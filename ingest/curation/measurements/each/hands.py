"""Signs that a human hand handles something, without a detector: both hands there, and fingers that close.

Validity is another measure (validity.py). Aperture: mean distance of the thumb's tip from the other four, over the distance from wrist
to middle knuckle, so that a child's hand counts like a man's; 1.3 for the flat hand of the MANO template, 0.95 with every joint bent
by 35 degrees, 0.8 by 60 (ours). A closing is a fall by 0.15 within 0.5 s (hoi_filter.md §5: contact runs of 0.5 s; VITRA's hand falls
by 0.16 as it takes a spray bottle) and is evidence for a grasp, never proof: hoi_filter.md §4 has films of hands that close on nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs
from schemas.episode import SIDES
from schemas.geometry import Array
from schemas.hand import MIDDLE_MCP, NUM_JOINTS, WRIST
from schemas.measurement import Measurement

THUMB_TIP, FINGER_TIPS = 4, (8, 12, 16, 20)
CLOSING, CLOSING_S = 0.15, 0.5

BOTH = OutputField(name="both_hands_share", unit="share", about="timesteps with two valid hands")
PRESENT = OutputField(
    name="hand_present_share", unit="share", about="timesteps with a hand tracked"
)
RUN = OutputField(name="hand_run_max_s", unit="s", about="longest interval with a valid hand")
RANGE = OutputField(
    name="hand_aperture_range",
    unit="ratio",
    about="95th minus 5th percentile of the opening, more active hand",
)
LOW = OutputField(
    name="hand_aperture_p10", unit="ratio", about="10th percentile of the opening, more closed hand"
)
CLOSINGS = OutputField(name="hand_closings_per_min", unit="1/min", about="of both hands together")
CLOSING_RUN = OutputField(
    name="hand_closing", unit="ratio", about="range of finger closing", is_interval=True
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Nothing for robots and for videos without tracked hands."""
    bits = {side: view.part("observation.hand_validity", side) for side in SIDES}
    tracked = {side: b.astype(bool) for side, b in bits.items() if b is not None}
    if not tracked:
        return
    valid = {side: b.all(axis=1) for side, b in tracked.items()}
    anywhere = np.logical_or.reduce(list(valid.values()))
    both = np.logical_and.reduce(list(valid.values())) & (len(valid) == 2)
    present = np.logical_or.reduce([b[:, 0] for b in tracked.values()])
    yield BOTH.row(both.mean(), view.length)
    yield PRESENT.row(present.mean(), view.length)
    longest = max((end - start for start, end in runs(anywhere)), default=0)
    yield RUN.row(longest / view.rate_hz, view.length)
    yield from _apertures(view)


def _apertures(view: EpisodeView) -> Iterator[Measurement]:
    apertures = [aperture for side in SIDES if (aperture := _aperture(view, side)) is not None]
    if not apertures:
        return
    samples = min(int(known.sum()) for _, known in apertures)
    spans = [np.percentile(values[known], [5, 10, 95]) for values, known in apertures]
    yield RANGE.row(max(high - low for low, _, high in spans), samples)
    yield LOW.row(min(p10 for _, p10, _ in spans), samples)
    closings = [
        span for values, known in apertures for span in _closings(values, known, view.rate_hz)
    ]
    minutes = max(int(known.sum()) for _, known in apertures) / view.rate_hz / 60
    yield CLOSINGS.row(len(closings) / minutes, samples)
    for start, end, fall in closings:
        yield CLOSING_RUN.row(fall, end - start, (start, end))


def _aperture(view: EpisodeView, side: str) -> tuple[Array, Mask] | None:
    """[K] aperture over palm length and where it is known; None for a side without fingers."""
    flat = view.part("observation.state", f"{side}.hand_keypoints_m")
    if flat is None:
        return None
    points = flat.reshape(-1, NUM_JOINTS, 3)
    palm_m = np.linalg.norm(points[:, MIDDLE_MCP] - points[:, WRIST], axis=1)
    known = view.valid("observation.state", f"{side}.hand_keypoints_m") & (palm_m > 0)
    if not known.any():
        return None
    gap_m = points[:, FINGER_TIPS] - points[:, [THUMB_TIP]]
    mean_m = np.linalg.norm(gap_m, axis=2).mean(axis=1)
    return mean_m / np.where(known, palm_m, 1.0), known


def _closings(values: Array, known: Mask, rate_hz: float) -> Iterator[tuple[int, int, float]]:
    """Timesteps [start, end) in which the aperture falls by enough within half a second, and how far it falls."""
    reach = max(1, round(CLOSING_S * rate_hz))
    falling = np.zeros(len(values), dtype=bool)
    for start, end in runs(known):
        for k in range(start, end - 1):
            ahead = values[k + 1 : min(k + 1 + reach, end)]
            lowest = int(ahead.argmin())
            if values[k] - ahead[lowest] >= CLOSING:
                falling[k : k + 2 + lowest] = True
    for start, end in runs(falling):
        span = values[start:end]
        yield start, end, float(span.max() - span.min())


MEASURE = Measure(
    name="hands",
    version=1,
    outputs=(BOTH, PRESENT, RUN, RANGE, LOW, CLOSINGS, CLOSING_RUN),
    compute=compute,
)
