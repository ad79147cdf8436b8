"""The shape of an episode's motion as one short vector, for what compares episodes: task deviation (population.py), near duplicates.

Kind `trajectory`: 32 points x arms (left before right) x (x, y, z relative to the arm's first point in metres, opening), flat. Points are
equally spaced in time over the moving part, idle head and tail left out, so that trimming an episode changes little. Gaps are
bridged; an arm without a gripper has opening 0. Axes are the base's or the world's: compare within an embodiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ingest.curation.measurements.arm import ArmTrack
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView
from schemas.geometry import Array
from schemas.measurement import Measurement

POINTS, WIDTH = 32, 4

EXTENT = OutputField(
    name="trajectory_extent_m", unit="m", about="farthest an arm gets from where it starts"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """How far any arm gets: the scale of the signature."""
    if view.arms:
        reach = np.linalg.norm(_shape(view)[..., :3], axis=2).max()
        yield EXTENT.row(reach, max(int(arm.valid.sum()) for arm in view.arms))


def vectors(view: EpisodeView) -> Mapping[str, Array]:
    """The signature, of an episode that has an arm."""
    return {"trajectory": _shape(view).reshape(-1)} if view.arms else {}


def _shape(view: EpisodeView) -> Array:
    """[32, arms, 4]"""
    moving = np.flatnonzero(~np.logical_and.reduce([arm.is_idle for arm in view.arms]))
    first, last = (moving[0], moving[-1] + 1) if len(moving) else (0, view.length - 1)
    at = np.linspace(first, last, POINTS)
    return np.stack([_points(arm, at) for arm in view.arms], axis=1)


def _points(arm: ArmTrack, at: Array) -> Array:
    """[32, 4] of one arm."""
    seen = np.flatnonzero(arm.valid)
    position = np.stack([np.interp(at, seen, arm.position_m[seen, i]) for i in range(3)], axis=1)
    opening = np.zeros(len(at))
    if arm.opening is not None and arm.opening_valid is not None and arm.opening_valid.any():
        open_at = np.flatnonzero(arm.opening_valid)
        opening = np.interp(at, open_at, arm.opening[open_at])
    return np.concatenate([position - position[0], opening[:, None]], axis=1)


MEASURE = Measure(name="trajectory", version=1, outputs=(EXTENT,), compute=compute, vectors=vectors)
