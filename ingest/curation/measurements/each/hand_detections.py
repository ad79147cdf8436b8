"""Hands that a detector sees in videos of people, at 5 pictures a second (ingest/curation/measurements/hoi/hand_observer.py).

It needs the hand landmarker's model and is not run without: a name that is not in the catalog was never measured. Robots have no values.
A hand that is not seen may be there all the same: on 13 clips with true boxes MediaPipe found .55 to .58 of the hands, and 14 of 1000
pictures without a hand showed it one (hoi_filter.md §2).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.hoi.evidence import seen_mask
from ingest.curation.measurements.hoi.hand_observer import SeenHands
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.models.hand_landmarker import HAND_LANDMARKER
from ingest.transforms.resample import runs
from schemas.measurement import Measurement

HAND_SHARE = OutputField(
    name="hoi_hand_share", unit="share", about="analysed images with a hand, best camera"
)
HAND_RUN = OutputField(
    name="hoi_hand_run_max_s", unit="s", about="longest track of a hand, any camera"
)
HAND_SEEN = OutputField(
    name="hoi_hand_seen",
    unit="count",
    about="interval with a hand; mean number of hands",
    is_interval=True,
)
HAND_MOTION = OutputField(
    name="hoi_hand_motion_px_s",
    unit="px/s",
    about="median motion of a hand minus the camera's, in an image 160 px wide, best camera",
)
MODEL = OutputField(
    name="hoi_detector", unit="sha256/48", about="first 48 bits of the detector's sha256"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """What the detector saw; nothing of robots, or where it did not look."""
    if not view.seen_hands:
        return
    cameras = list(view.seen_hands.values())
    shares = [(float((seen.count > 0).mean()), len(seen.at)) for seen in cameras]
    yield HAND_SHARE.row(*max(shares))
    mask = seen_anywhere(view)
    spans = runs(mask) if mask is not None else []
    longest = max((end - start for start, end in spans), default=0)
    yield HAND_RUN.row(longest / view.rate_hz, view.length)
    for start, end in spans:
        counts = [_mean_count(seen, start, end) for seen in cameras]
        yield HAND_SEEN.row(max(counts), end - start, (start, end))
    moved = [seen.motion_px_s[np.isfinite(seen.motion_px_s)] for seen in cameras]
    medians = [(float(np.median(values)), len(values)) for values in moved if len(values)]
    if medians:
        yield HAND_MOTION.row(*max(medians))
    if view.hand_detector is not None:
        yield MODEL.row(view.hand_detector.identity, 1)


def _mean_count(seen: SeenHands, start: int, end: int) -> float:
    """Hands in the pictures of a track that have any; of another camera's track there may be none."""
    inside = seen.count[(seen.count > 0) & (seen.at >= start) & (seen.at < end)]
    return float(inside.mean()) if len(inside) else 0.0


def seen_anywhere(view: EpisodeView) -> Mask | None:
    """[K] a hand is seen in any camera; None when no detector looked."""
    masks = [seen_mask(s, view.length, view.rate_hz) for s in view.seen_hands.values()]
    return np.logical_or.reduce(masks) if masks else None


MEASURE = Measure(
    name="hand_detections",
    version=1,
    outputs=(HAND_SHARE, HAND_RUN, HAND_SEEN, HAND_MOTION, MODEL),
    compute=compute,
    needs_video=True,
    of_people=True,
    needs_model=HAND_LANDMARKER,
)
