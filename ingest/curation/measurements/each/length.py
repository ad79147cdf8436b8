"""How long an episode is. Whether that is long for its task needs the others of its task: ingest/curation/tiers/cohort_stats.py."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.measurement import Measurement

DURATION = OutputField(name="duration_s", unit="s", about="timesteps divided by the rate")


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """The same number as `episodes.duration_s`, under a name that policies can use."""
    yield DURATION.row(view.length / view.rate_hz, view.length)


MEASURE = Measure(name="length", version=1, outputs=(DURATION,), compute=compute)
