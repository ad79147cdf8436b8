"""How much a camera moves: by its pose where the source gives one, by its pictures in any case.

By pose: a step moves when the camera goes faster than 0.02 m/s or turns faster than 0.05 rad/s (ours; the turn is that of an idle
arm, quality_signals.md §3). By pictures: neighbouring thumbnails are laid over each other by the shift that phase correlation
finds (Kuglin & Hines 1975, OpenCV's phaseCorrelate); the share of the motion energy that this shift explains is the camera's. A
shift is no turn about the axis, no parallax and no zoom, so this is a lower bound; and where there is no texture behind, a
moving arm is all there is to shift. Of several cameras the one that moves most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.camera_track import CameraTrack, camera_track
from ingest.curation.measurements.pictures import (
    NOISE_LUMA,
    THUMB_HEIGHT,
    THUMB_WIDTH,
    ImageFacts,
)
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from schemas.measurement import Measurement

MOVES_M_S, TURNS_RAD_S = 0.02, 0.05
MAX_SHIFT = 16  # cells of the thumbnail: a third of its height
Cells = npt.NDArray[Any]  # float32

MOVING = OutputField(
    name="camera_moving_share", unit="share", about="share of steps in which the camera moves"
)
SPEED = OutputField(
    name="camera_speed_p95_m_s", unit="m/s", about="95th percentile of the camera speed"
)
TURN = OutputField(
    name="camera_turn_p95_rad_s",
    unit="rad/s",
    about="95th percentile of the camera's angular speed",
)
ENERGY = OutputField(
    name="camera_energy_share",
    unit="share",
    about="share of image motion explained by a shift of the whole image (lower bound)",
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """By pose for cameras with one, by pictures for those that change at all."""
    tracks = [camera_track(view, camera) for camera in view.videos]
    moving = [track for track in tracks if track is not None and track.known.any()]
    if moving:
        most = max(moving, key=lambda track: float(_moves(track, view.rate_hz).mean()))
        steps = int(most.known.sum())
        yield MOVING.row(_moves(most, view.rate_hz).mean(), steps)
        yield SPEED.row(np.percentile(most.metres[most.known] * view.rate_hz, 95), steps)
        yield TURN.row(np.percentile(most.radians[most.known] * view.rate_hz, 95), steps)
    shares = [share for seen in view.pictures.values() if (share := _shift_share(seen)) is not None]
    if shares:
        yield ENERGY.row(max(shares), view.length - 1)


def _moves(track: CameraTrack, rate_hz: float) -> Mask:
    """Of the known steps, those in which it moves."""
    fast = track.metres * rate_hz > MOVES_M_S
    turns = track.radians * rate_hz > TURNS_RAD_S
    return np.asarray((fast | turns)[track.known])


def _shift_share(seen: ImageFacts) -> float | None:
    """Share of the motion energy that goes away when each picture is shifted onto the next; None when nothing changes."""
    window = cv2.createHanningWindow((THUMB_WIDTH, THUMB_HEIGHT), cv2.CV_32F)
    all_, left = 0.0, 0.0
    for k in np.flatnonzero(seen.energy).tolist():
        before, after = seen.thumbs[k].astype(np.float32), seen.thumbs[k + 1].astype(np.float32)
        raw, rest = _energies(before, after, window)
        all_ += raw
        left += min(raw, rest)
    return 1.0 - left / all_ if all_ else None


def _energies(before: Cells, after: Cells, window: Cells) -> tuple[float, float]:
    """Motion energy of a step without and with the best shift, over the cells that both show."""
    # phaseCorrelate windows its arguments in place when their size suits its transform
    (dx, dy), _ = cv2.phaseCorrelate(before.copy(), after.copy(), window)
    margin = int(np.ceil(max(abs(dx), abs(dy)))) + 1
    if margin > MAX_SHIFT:
        dx, dy, margin = 0.0, 0.0, 1
    to = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float32)
    shifted = cv2.warpAffine(before, to, (THUMB_WIDTH, THUMB_HEIGHT))
    inner = np.s_[margin : THUMB_HEIGHT - margin, margin : THUMB_WIDTH - margin]
    return _energy(before[inner], after[inner]), _energy(shifted[inner], after[inner])


def _energy(before: Cells, after: Cells) -> float:
    return float(np.maximum(np.abs(after - before) - NOISE_LUMA, 0.0).mean())


MEASURE = Measure(
    name="camera",
    version=1,
    needs_video=True,
    outputs=(MOVING, SPEED, TURN, ENERGY),
    compute=compute,
)
