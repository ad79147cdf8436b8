"""Whether people handle objects in their videos: the verdict of ingest/curation/measurements/hoi/decide.py from whatever evidence there is.

With the hand detector it is one version higher, so that verdicts made without are replaced as soon as there is a model, and never the
other way round. Robots have no values.

Blank: mean luma below 10 or a luma deviation below 5 (measure/video.py), in every camera. Moving: a thumbnail changes beyond
noise in any camera (pictures.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.each import hands as aperture
from ingest.curation.measurements.each.hand_detections import seen_anywhere
from ingest.curation.measurements.each.video import BLACK_LUMA, FLAT_LUMA
from ingest.curation.measurements.hoi.decide import VERSION, InteractionState, decide
from ingest.curation.measurements.hoi.evidence import Evidence, edges_of, text_evidence_of
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.models.hand_landmarker import HAND_LANDMARKER
from schemas.episode import SIDES
from schemas.measurement import Measurement

SHARES = {
    state: OutputField(name=f"hoi_{state}_share", unit="share", about=f"timesteps judged {state}")
    for state in InteractionState
}
SPANS = {
    state: OutputField(
        name=f"hoi_{state}",
        unit="code",
        about=f"judged {state}; value: the reason's number (hoi/decide.py)",
        is_interval=True,
    )
    for state in InteractionState
}


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """The verdicts of an episode that shows a person."""
    if not view.is_person or not view.length:
        return
    evidence = evidence_of(view)
    verdicts = decide(evidence, edges_of(view.segments, evidence.blank))
    for state in InteractionState:
        judged = sum(v.end - v.start for v in verdicts if v.state is state)
        yield SHARES[state].row(judged / view.length, view.length)
    for verdict in verdicts:
        span = (verdict.start, verdict.end)
        yield SPANS[verdict.state].row(verdict.reason, verdict.end - verdict.start, span)


def evidence_of(view: EpisodeView) -> Evidence:
    """All that is known of an episode's hands."""
    return Evidence(
        tracked=_tracked(view),
        seen=seen_anywhere(view),
        closing=_closing(view),
        blank=_blank(view),
        moving=_moving(view),
        says=text_evidence_of(view.segments, view.length),
        rate_hz=view.rate_hz,
    )


def _tracked(view: EpisodeView) -> Mask | None:
    """[K] a valid hand; an untracked hand is missing evidence like an unseen one, not a sign of absence."""
    bits = [view.part("observation.hand_validity", side) for side in SIDES]
    valid = [b.astype(bool).all(axis=1) for b in bits if b is not None]
    return np.logical_or.reduce(valid) if valid else None


def _closing(view: EpisodeView) -> Mask:
    mask = np.zeros(view.length, dtype=bool)
    for row in aperture.compute(view):
        if row.name == aperture.CLOSING_RUN.name:
            mask[row.start : row.end] = True
    return mask


def _blank(view: EpisodeView) -> Mask | None:
    masks = [(s.mean < BLACK_LUMA) | (s.contrast < FLAT_LUMA) for s in view.pictures.values()]
    return np.logical_and.reduce(masks) if masks else None


def _moving(view: EpisodeView) -> Mask | None:
    """[K] a picture differs from the one before in any camera; the first like the second."""
    steps = [seen.energy > 0 for seen in view.pictures.values()]
    if not steps or view.length < 2:
        return None
    moved = np.logical_or.reduce(steps)
    return np.concatenate([moved[:1], moved])


MEASURE = Measure(
    name="hoi",
    version=VERSION,
    outputs=(*SHARES.values(), *SPANS.values()),
    compute=compute,
    needs_video=True,
    of_people=True,
    optional_model=HAND_LANDMARKER,
)
