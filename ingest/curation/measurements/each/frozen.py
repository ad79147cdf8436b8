"""When a camera is frozen: it repeats its picture though something moves in its view.

A picture that stands still is right where nothing moves in view, and storing erases the sensor's noise of a live view. So three things are asked for:

- For 0.5 s the source's own pictures repeat (ingest/video/stats.py): bit for bit, or as a codec repeats them and the stored picture does too (pictures.py), which is
  finer in place. A source below 10 Hz shows one picture several times; that repeats nothing.
- Meanwhile an end-effector travels 1 cm, turns 0.1 rad or opens by a fifth, or a joint turns 0.1 rad, or nothing says what moves.
- That motion is expected in view. Pictures that are equal bit for bit in a source without prediction between pictures (JPEG, PNG, raw) prove it: the
  noise of a live sensor never repeats. Prediction does repeat a live picture, so of other sources the view itself is asked: a frozen picture catches up in
  one step of at least 1.5 times the usual change, one that ends the episode stops from a change of at least half the usual one; an arm that
  was out of view comes in and goes out by degrees. A picture that never changes in the whole episode is frozen.

A corpus from before the source's pictures were compared is judged by its stored pictures and the last rule. The levels are ours.
The first picture of a run is a true one and does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ingest.curation.measurements.arm import ArmTrack
from ingest.curation.measurements.pictures import ImageFacts
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs

FROZEN_S, TRAVEL_M, TURN_RAD, OPENING = 0.5, 0.01, 0.1, 0.2
CATCH_UP, STOPS_FROM = 1.5, 0.5  # of the median change of a picture that is not repeated
STOPS_WITHIN = 3  # steps before a run that ends the episode
# Codecs whose pictures do not depend on each other, in the words of ffmpeg; ArrayFrames are stored as rawvideo.
INTRA_CODECS = frozenset({"mjpeg", "png", "rawvideo", "ffv1", "webp", "bmp", "tiff", "jpegxl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """Timesteps [start, end) of one camera. `source_luma`: largest difference of the source's pictures; None where not compared."""

    start: int
    end: int
    source_luma: float | None


def frozen_runs(camera: str, seen: ImageFacts, view: EpisodeView) -> list[Frozen]:
    """The frozen runs of one camera, in order."""
    return [
        run
        for run in _repeated(camera, seen, view)
        if _may_move(view, slice(run.start - 1, run.end - 1))
        and (_is_proof(camera, run, view) or _is_in_view(run, seen))
    ]


def _repeated(camera: str, seen: ImageFacts, view: EpisodeView) -> Iterator[Frozen]:
    """Runs of 0.5 s and more in which the source repeats its picture, or, where it was not compared, the stored video does."""
    least_s, rows = FROZEN_S, view.row.get("source_repeats")
    if rows is None:  # at least one more picture of the source must lie in a run
        least_s = max(FROZEN_S, 2.0 / (view.row.get("source_rate_hz") or view.rate_hz))
    of_camera = [row for row in rows or () if row["camera"] == camera]
    is_repeated = np.concatenate([[False], seen.repeated])
    if rows is not None:
        is_repeated &= _timesteps(of_camera, view.length)
        is_repeated |= _timesteps([row for row in of_camera if row["luma"] == 0.0], view.length)
    for start, end in runs(is_repeated):
        if (end - start) / view.rate_hz >= least_s:
            lumas = [row["luma"] for row in of_camera if row["start"] < end and row["end"] > start]
            yield Frozen(start=start, end=end, source_luma=max(lumas, default=None))


def _timesteps(rows: list[dict[str, float]], length: int) -> Mask:
    out = np.zeros(length, dtype=bool)
    for row in rows:
        out[int(row["start"]) : int(row["end"])] = True
    return out


def _is_proof(camera: str, run: Frozen, view: EpisodeView) -> bool:
    codecs = {row["name"]: row.get("source_codec") for row in view.row["cameras"]}
    return run.source_luma == 0.0 and codecs.get(camera) in INTRA_CODECS


def _is_in_view(run: Frozen, seen: ImageFacts) -> bool:
    """Whether the picture changes around the run as it does when what moves is seen."""
    energy = seen.energy
    changes = energy[~seen.repeated]
    if not len(changes):
        return True
    usual = float(np.median(changes))
    if run.end - 1 < len(energy):
        return bool(energy[run.end - 1] >= CATCH_UP * usual)
    before = energy[max(0, run.start - 1 - STOPS_WITHIN) : run.start - 1]
    return bool(before.max(initial=0.0) >= STOPS_FROM * usual)


def _may_move(view: EpisodeView, at: slice) -> bool:
    """Whether some arm or joint moves in those steps, or its motion is unknown."""
    arms = [arm for arm in view.arms if arm.known[at].any()]
    if any(_travels(arm, at) for arm in arms):
        return True
    joints = view.columns.get("observation.joint_position_rad")
    if joints is None:
        return not arms
    valid = view.valid("observation.state", "joint_position_rad")
    turned = np.abs(np.diff(joints, axis=0))[at][(valid[:-1] & valid[1:])[at]]
    return not len(turned) or bool(turned.sum(axis=0).max() >= TURN_RAD)


def _travels(arm: ArmTrack, at: slice) -> bool:
    known = arm.known[at]
    if arm.metres[at][known].sum() >= TRAVEL_M or arm.radians[at][known].sum() >= TURN_RAD:
        return True
    if arm.opening is None:
        return False
    return bool(np.abs(np.diff(arm.opening))[at][known].sum() >= OPENING)
