"""How smoothly the end-effectors move. Of each arm whose path is over 5 cm (a still arm would score like a moving one); the worst arm.

SPARC: Balasubramanian et al. 2015, J. NeuroEng. Rehab. 12:112, eq. 5, with the constants of its reference (github siva82kb/
smoothness): spectrum padded to 2^(ceil(log2 n) + 4), relative amplitude at least 0.05; cut off at 5 Hz, the Nyquist frequency.
LDLJ: ibid.; -ln(T^3 / v_max^2 * integral |jerk|^2 dt). Over a whole episode it measures its length (quality_signals.md 3), so it is
the median over windows of 4 s, every 2 s, that move over 5 cm themselves. Both grow towards zero with smoothness.
Derivatives are of positions averaged over three timesteps (`Arm.calm_m` says why). A source below 5 Hz is taken at its own pace
and its Nyquist frequency, and looks smoother than it is: compare such numbers within a source rate.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ingest.curation.measurements.arm import MIN_PATH_M, ArmTrack, worst
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from schemas.geometry import Array
from schemas.measurement import Measurement

CUT_OFF_HZ, AMPLITUDE, PADDING = 5.0, 0.05, 4
WINDOW_S, HOP_S = 4.0, 2.0
MIN_RUN_S = 1.5  # a stretch shorter than a window is one window, if it is at least this long

SPARC = OutputField(name="sparc", unit="ratio", about="spectral arc length of the speed, worst arm")
SPARC_4S = OutputField(
    name="sparc_4s", unit="ratio", about="median of spectral arc length over windows of 4 s"
)
LDLJ_4S = OutputField(
    name="ldlj_4s", unit="ratio", about="log dimensionless jerk, median over windows of 4 s"
)
ACC = OutputField(
    name="acc_rms_m_s2", unit="m/s^2", about="root mean square acceleration, worst arm"
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """The four numbers, each of the arm that it is worst for."""
    arms = [arm.thinned for arm in view.arms if arm.moves]
    for output, measure, largest in (
        (SPARC, _sparc, False),
        (SPARC_4S, _sparc_4s, False),
        (LDLJ_4S, _ldlj_4s, False),
        (ACC, _acceleration, True),
    ):
        extreme = worst([f for arm in arms if (f := measure(arm)) is not None], largest=largest)
        if extreme is not None:
            yield output.row(*extreme)


def spectral_arc_length(speed: Array, rate_hz: float, cut_off_hz: float = CUT_OFF_HZ) -> Array:
    """[W, n] speeds, at least one of each W positive -> [W], each at most -1."""
    size = 1 << (int(np.ceil(np.log2(speed.shape[1]))) + PADDING)
    hz = np.fft.rfftfreq(size, 1 / rate_hz)
    bins = int((hz <= cut_off_hz).sum())
    spectrum = np.abs(np.fft.rfft(speed, size, axis=1))[:, :bins]
    spectrum /= spectrum.max(axis=1, keepdims=True)
    last = bins - 1 - np.argmax(spectrum[:, ::-1] >= AMPLITUDE, axis=1)
    rises = np.diff(spectrum, axis=1)
    arcs = np.sqrt((1 / np.maximum(last, 1)[:, None]) ** 2 + rises**2)
    kept = np.arange(bins - 1) < last[:, None]
    return np.asarray(-np.where(kept, arcs, 0.0).sum(axis=1))


def log_dimensionless_jerk(jerk: Array, speed: Array, rate_hz: float) -> Array:
    """-ln(T^3 / v_max^2 * integral |jerk|^2 dt) of |jerk| [W, m] and speed [W, n]: T is n steps. [W]"""
    seconds = speed.shape[1] / rate_hz
    integral = (jerk**2).sum(axis=1) / rate_hz
    jerks = seconds**3 / speed.max(axis=1) ** 2 * np.maximum(integral, 1e-300)
    return np.asarray(-np.log(jerks))


def _sparc(arm: ArmTrack) -> tuple[float, int] | None:
    """Of each stretch without a gap, weighted by its length."""
    values, weights = [], []
    for start, end in _stretches(arm):
        metres = arm.metres[start : end - 1]
        if metres.sum() > MIN_PATH_M:
            values.append(float(spectral_arc_length(metres[None] * arm.rate_hz, arm.rate_hz)[0]))
            weights.append(len(metres))
    return (float(np.average(values, weights=weights)), sum(weights)) if values else None


def _sparc_4s(arm: ArmTrack) -> tuple[float, int] | None:
    lengths = []
    for start, end in _stretches(arm):
        speeds, moving = _windows(arm.metres[start : end - 1] * arm.rate_hz, arm.rate_hz)
        if moving.any():
            lengths.append(spectral_arc_length(speeds[moving], arm.rate_hz))
    return _median(lengths)


def _ldlj_4s(arm: ArmTrack) -> tuple[float, int] | None:
    jerks_of_runs = []
    for start, end in _stretches(arm):
        calm = arm.calm_m[start : end - 2]
        speed = np.linalg.norm(np.diff(calm, axis=0), axis=1) * arm.rate_hz
        jerk = np.linalg.norm(np.diff(calm, 3, axis=0), axis=1) * arm.rate_hz**3
        speeds, moving = _windows(speed, arm.rate_hz)
        jerks = _slices(jerk, speeds.shape[1] - 2, arm.rate_hz)[: len(speeds)]
        if moving.any():
            jerks_of_runs.append(log_dimensionless_jerk(jerks[moving], speeds[moving], arm.rate_hz))
    return _median(jerks_of_runs)


def _stretches(arm: ArmTrack) -> list[tuple[int, int]]:
    """Timesteps [start, end) without a gap, long enough; eight, for a source of 2.5 Hz, leave three jerks."""
    least = max(MIN_RUN_S * arm.rate_hz, 8)
    return [(start, end) for start, end in arm.runs if end - start >= least]


def _windows(speed: Array, rate_hz: float) -> tuple[Array, Mask]:
    """[n] -> [W, w] windows of 4 s, or the whole when it is shorter, and [W] which of them move over 5 cm."""
    windows = _slices(speed, min(len(speed), round(WINDOW_S * rate_hz)), rate_hz)
    return windows, np.asarray(windows.sum(axis=1) / rate_hz > MIN_PATH_M)


def _slices(values: Array, width: int, rate_hz: float) -> Array:
    return sliding_window_view(values, width)[:: round(HOP_S * rate_hz)]


def _median(values_of_runs: list[Array]) -> tuple[float, int] | None:
    values = np.concatenate(values_of_runs) if values_of_runs else np.empty(0)
    return (float(np.median(values)), len(values)) if len(values) else None


def _acceleration(arm: ArmTrack) -> tuple[float, int] | None:
    acceleration = arm.acceleration_m_s2
    return (
        (float(np.sqrt((acceleration**2).mean())), len(acceleration)) if len(acceleration) else None
    )


MEASURE = Measure(
    name="smoothness", version=1, outputs=(SPARC, SPARC_4S, LDLJ_4S, ACC), compute=compute
)
