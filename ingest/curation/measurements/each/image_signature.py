"""What an episode looks like as one short vector per camera, for what compares episodes: near duplicates (curation/dedup).

Kind `pictures`: cameras (in order of name) x 456 numbers, flat: how much the picture changes (luma), the scene (35), and what
moves before it (12 x 35). A picture is 35 cosine coefficients of its thumbnail's luma: the six lowest frequencies of each axis
without the mean, as in perceptual hashes (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"), which
neither size, codec nor exposure changes much. The thumbnail is 64x48 whatever the shape of the picture, so neither does a
squeezed copy. The scene is their mean over time; what moves is their mean over each twelfth of the time less the scene.

Time runs from the instant at which 2 % of all change has been seen to that of 98 %, so that trimming an episode's still ends
changes little; and it is no clock, so that a copy at another rate looks the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ingest.curation.measurements.pictures import THUMB_HEIGHT, THUMB_WIDTH, ImageFacts, Luma
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.geometry import Array
from schemas.measurement import Measurement

FREQUENCIES, PARTS = 6, 12
COEFFICIENTS = FREQUENCIES**2 - 1
WIDTH = 1 + (1 + PARTS) * COEFFICIENTS
STILL_SHARE = 0.02  # of all change, at either end
SHORTEST_TIMESTEPS = 4.0
STEP_LUMA = 1 / 32  # rounded to: finer than any codec keeps, and parts on disk are a third as large

CHANGE = OutputField(
    name="look_change_luma",
    unit="luma",
    about="change of the image of the most active camera, RMS over coarse cosine coefficients",
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Below about half a luma there is nothing to recognise a motion by."""
    if view.videos:
        yield CHANGE.row(max(look[0] for look in _looks(view)), view.length)


def vectors(view: EpisodeView) -> Mapping[str, Array]:
    """The signature, of an episode that has a camera."""
    return {"pictures": np.concatenate(_looks(view))} if view.videos else {}


def _looks(view: EpisodeView) -> list[Array]:
    return [look_of(view.pictures[camera]) for camera in sorted(view.videos)]


def look_of(pictures: ImageFacts) -> Array:
    """[456] of one camera: change, scene [35], motion [12, 35]; luma."""
    parts = _parts(_coefficients(pictures.thumbs), _span(pictures.energy))
    scene = parts.mean(axis=0)
    motion = parts - scene
    change = np.sqrt((motion**2).sum(axis=1).mean())
    look = np.concatenate([[change], scene, motion.ravel()])
    return np.asarray(np.round(look / STEP_LUMA) * STEP_LUMA)


def _coefficients(thumbs: Luma) -> Array:
    """[K, 35] cosine coefficients of [K, 48, 64] thumbnails; sqrt(sum of squares) is at most the contrast in luma."""
    rows, columns = _cosines(THUMB_HEIGHT), _cosines(THUMB_WIDTH)
    coefficients = np.einsum(
        "vy,kyx,ux->kvu", rows, thumbs.astype(np.float32), columns, optimize=True
    )
    return np.asarray(coefficients.reshape(len(thumbs), -1)[:, 1:], dtype=np.float64)


def _cosines(size: int) -> Array:
    """[6, size] rows of the cosine transform, each with a mean square of one, over `size`."""
    at = (np.arange(size) + 0.5) / size
    waves = np.cos(np.pi * np.outer(np.arange(FREQUENCIES), at))
    waves[1:] *= np.sqrt(2.0)
    return np.asarray((waves / size).astype(np.float32))


def _span(energy: Array) -> tuple[float, float]:
    """Instants, in timesteps, between which all but 2 % of the change at either end is seen; [0, K] when nothing changes."""
    length = len(energy) + 1
    total = energy.sum()
    if total <= 0:
        return 0.0, float(length)
    seen = np.concatenate([[0.0], np.cumsum(energy)]) / total
    # Where `seen` stands still `interp` would take any instant: only its rises count.
    rises = np.append(True, np.diff(seen) > 0)
    at = np.flatnonzero(rises) + 0.5  # a step is seen about the instant at which its pictures meet
    first, last = np.interp([STILL_SHARE, 1 - STILL_SHARE], seen[rises], at)
    missing = max(0.0, SHORTEST_TIMESTEPS - (last - first))
    return max(0.0, first - missing / 2), min(float(length), last + missing / 2)


def _parts(coefficients: Array, span: tuple[float, float]) -> Array:
    """[12, 35] exact means over twelve equal parts of `span`; timestep k lasts from k to k + 1."""
    summed = np.concatenate([np.zeros((1, coefficients.shape[1])), np.cumsum(coefficients, axis=0)])
    edges = np.linspace(*span, PARTS + 1)
    whole = np.minimum(edges.astype(int), len(coefficients) - 1)
    at_edges = summed[whole] + (edges - whole)[:, None] * coefficients[whole]
    return np.asarray(np.diff(at_edges, axis=0) / np.diff(edges)[:, None])


MEASURE = Measure(
    name="look", version=1, outputs=(CHANGE,), compute=compute, needs_video=True, vectors=vectors
)
