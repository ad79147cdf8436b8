"""Do the pictures move when the arms do: the lag at which the motion energy of a camera goes best with their speed.

quality_signals.md §5 (a shift of 3 steps must be found). Energy is the change of neighbouring thumbnails beyond noise. At each lag
within 1 s it is explained by speeds with non-negative weights (Lawson & Hanson's NNLS); the correlation is that of energy and
explanation, 0..1. Each arm brings three speeds: of its end-effector, of its turning and of its jaws or fingers, so that one out of
sight does no harm; a robot without poses brings its joints'. Positive lag: the pictures come later than the state.

A camera that moves confounds: when its pose is known, what it makes a scene at the hands' distance seem to move joins the regressors
(for a head camera this removes it; for one on the wrist it is the arm's motion itself). Without a pose a person's camera says nothing and is left out; a
robot's is taken as it is, since only the robot moves it. Hands that stay in a moving camera's frame have no speed to compare.
The camera that correlates best speaks for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ingest.curation.measurements.arm import ArmTrack
from ingest.curation.measurements.camera_track import CameraTrack, camera_track
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from schemas.geometry import Array
from schemas.measurement import Measurement

MAX_LAG_S = 1.0
MIN_PAIRS = 30
TURN_LEVER_M, JAW_M = (
    0.1,
    0.05,
)  # metres that a radian of the hand, or the whole way of the jaws, is worth
DISTANCE_M = (0.3, 2.0)
MIN_SPREAD_M_S = 0.005  # deviation of a speed below which it tells nothing

LAG = OutputField(
    name="alignment_lag_s",
    unit="s",
    about="lag of the images behind the state, best camera",
)
CORRELATION = OutputField(
    name="alignment_correlation",
    unit="correlation",
    about="correlation of image motion and arm speed at that lag; if it is low, the lag is not reliable",
)
AT_ZERO = OutputField(
    name="alignment_correlation.zero", unit="correlation", about="the same at zero lag"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """The best lag of one camera in steps, its correlation, that at lag 0, and the pairs it rests on."""

    lag: float
    correlation: float
    at_zero: float
    pairs: int


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Lag and correlation of the best camera; nothing for what does not move or is too short."""
    fits = [fit for camera in view.videos if (fit := _fit(view, camera)) is not None]
    if not fits:
        return
    best = max(fits, key=lambda fit: fit.correlation)
    yield LAG.row(best.lag / view.rate_hz, best.pairs)
    yield CORRELATION.row(best.correlation, best.pairs)
    yield AT_ZERO.row(best.at_zero, best.pairs)


def _fit(view: EpisodeView, camera: str) -> _Fit | None:
    speeds = _speeds(view, camera)
    if speeds is None:
        return None
    x, known = speeds
    x = x[:, x[known].std(axis=0) >= MIN_SPREAD_M_S] if known.any() else x[:, :0]
    energy = view.pictures[camera].energy
    if not x.shape[1] or not energy.any():
        return None
    reach = round(MAX_LAG_S * view.rate_hz)
    lags = range(-reach, reach + 1)
    fitted = [_explained(energy, x, known, lag) for lag in lags]
    scores = np.array([score for score, _ in fitted])
    if np.isnan(scores[reach]):
        return None
    at = int(np.nanargmax(scores))
    return _Fit(
        lag=lags[at] + _vertex(scores, at),
        correlation=float(scores[at]),
        at_zero=float(scores[reach]),
        pairs=fitted[at][1],
    )


def _speeds(view: EpisodeView, camera: str) -> tuple[Array, Mask] | None:
    """[K - 1, n] speeds that may show in the camera, m/s, and where all are known; None when it says nothing."""
    track = camera_track(view, camera)
    if track is None and view.row["embodiment"].startswith("human"):
        return None
    columns = [column for arm in view.arms for column in _arm_columns(view, arm)]
    known = [arm.known for arm in view.arms]
    if not columns and (joints := view.columns.get("observation.joint_position_rad")) is not None:
        valid = view.valid("observation.state", "joint_position_rad")
        columns, known = [_mean_change(joints)], [valid[:-1] & valid[1:]]
    if not columns:
        return None
    if track is not None:
        columns.append(track.flow_m(_distance_m(view, track)))
        known.append(track.known)
    return np.stack(columns, axis=1) * view.rate_hz, np.logical_and.reduce(known)


def _distance_m(view: EpisodeView, track: CameraTrack) -> float:
    """Of the hands from the camera, within reason; a metre when there are none."""
    distances = [
        np.linalg.norm(arm.position_m - track.position_m, axis=1)[arm.valid & track.valid]
        for arm in view.arms
    ]
    together = np.concatenate(distances) if distances else np.ones(1)
    return float(np.clip(np.median(together), *DISTANCE_M)) if len(together) else 1.0


def _arm_columns(view: EpisodeView, arm: ArmTrack) -> Iterator[Array]:
    """[K - 1] metres of each step: of the hand, of its turn on a lever, of its jaws or fingers."""
    yield arm.metres
    yield TURN_LEVER_M * arm.radians
    if arm.opening is not None:
        yield JAW_M * np.abs(np.diff(arm.opening))
    if arm.finger_rad is not None:
        yield TURN_LEVER_M * _mean_change(arm.finger_rad)
    points = view.part("observation.state", f"{arm.side}.hand_keypoints_m")
    if points is not None:
        yield _mean_change(points)


def _mean_change(values: Array) -> Array:
    """[K, n] -> [K - 1] mean absolute change of an element."""
    return np.asarray(np.abs(np.diff(values, axis=0)).mean(axis=1))


def _explained(energy: Array, x: Array, known: Mask, lag: int) -> tuple[float, int]:
    """Correlation of energy[k + lag] and its explanation by x[k], and the pairs; NaN for too few of them."""
    late, early = max(lag, 0), max(-lag, 0)
    count = len(energy) - late - early
    if count < MIN_PAIRS:
        return float("nan"), 0
    use = known[early : early + count]
    y, a = energy[late : late + count][use], x[early : early + count][use]
    if len(y) < MIN_PAIRS:
        return float("nan"), 0
    y, a = y - y.mean(), a - a.mean(axis=0)
    total = float(y @ y)
    if total == 0.0:
        return 0.0, len(y)
    from scipy.optimize import nnls  # 0.2 s to import, which plain video never needs

    _, residual = nnls(a, y)
    return float(np.sqrt(max(0.0, 1.0 - residual**2 / total))), len(y)


def _vertex(scores: Array, at: int) -> float:
    """Where between the steps the parabola through the best score and its neighbours peaks, -0.5..0.5."""
    if not 0 < at < len(scores) - 1 or not np.isfinite(scores[at - 1 : at + 2]).all():
        return 0.0
    before, here, after = scores[at - 1 : at + 2]
    bend = before - 2 * here + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0


MEASURE = Measure(
    name="alignment",
    version=1,
    needs_video=True,
    outputs=(LAG, CORRELATION, AT_ZERO),
    compute=compute,
)
