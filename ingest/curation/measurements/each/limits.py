"""What no arm should do: too fast, too sudden, or from here to there within a step. The worst arm; numbers, not verdicts.

Limits 3 m/s and 20 rad/s, and a jump where the mean |z| of a step is over 8: quality_signals.md 2 (the former inferred there, the
latter as in lerobot-doctor 0.2.0). The z here is not lerobot-doctor's, which a single jump in a short episode cannot reach.
A step's excess is by how much it differs from the steps two timesteps (or a source period, if that is longer) before and after, and
from their mean, whichever is least: a swift start differs from one neighbour, a swift flank from both but not from their mean. Its
scale is 1.4826 x the median excess of all steps, at least 3 mm and 0.03 rad, and the mean is that of the way and of the turn.
A reach takes 0.4 s and more and rises and falls: whatever its size, no step of it is longer than what its two neighbours go
that way together, and no two are longer than twice that (minimum jerk, Flash and Hogan 1985). So of an excess counts only what is longer than that: a jump
within one timestep, or within two where a source of 15 or 25 Hz falls between them or one of 5 Hz is slower (ours).
Accelerations are those of `Arm.acceleration_m_s2`, at the pace of the source when it is below 5 Hz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ingest.curation.measurements.arm import ArmTrack, worst
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs
from schemas.geometry import Array, rotvec_from_rotmat
from schemas.measurement import Measurement

FAST_M_S, FAST_RAD_S = 3.0, 20.0
JUMP_Z = 8.0
MIN_SCALE_M, MIN_SCALE_RAD = 0.003, 0.03
_UNKNOWN = np.full((1, 3), np.nan)

TURN = OutputField(
    name="turn_rate_max_rad_s", unit="rad/s", about="fastest turn of any end-effector"
)
ACC = OutputField(
    name="acc_max_m_s2", unit="m/s^2", about="largest acceleration of any end-effector"
)
JOINT = OutputField(name="joint_speed_max_rad_s", unit="rad/s", about="fastest step of any joint")
FAST = OutputField(
    name="over_limit_share", unit="share", about="share of steps over 3 m/s or 20 rad/s"
)
TOP_Z = OutputField(name="jump_z_max", unit="ratio", about="largest mean |z| of a step")
COUNT = OutputField(name="jumps", unit="count", about="steps with a mean |z| over 8")
JUMP = OutputField(
    name="jump_z", unit="ratio", about="a jump: timesteps before and after", is_interval=True
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """Maxima, the share over the limits, and the jumps."""
    yield from _joints(view)
    if not view.arms:
        return
    rate_hz = view.rate_hz
    yield TURN.row(*_worst(view, lambda arm: float(arm.radians[arm.known].max()) * rate_hz))
    yield FAST.row(*_worst(view, _fast_share))
    accelerations = [arm.thinned.acceleration_m_s2 for arm in view.arms]
    if bad := worst([(float(a.max()), len(a)) for a in accelerations if len(a)]):
        yield ACC.row(*bad)
    scores = np.max([jump_z(arm) for arm in view.arms], axis=0)
    steps = int(np.logical_or.reduce([arm.known for arm in view.arms]).sum())
    yield TOP_Z.row(scores.max(), steps)
    yield COUNT.row((scores > JUMP_Z).sum(), steps)
    for start, end in runs(scores > JUMP_Z):
        yield JUMP.row(scores[start:end].max(), end - start, (start, end + 1))


def jump_z(arm: ArmTrack) -> Array:
    """[K - 1] mean |z| of each step's excess in way and turn; 0 where it is not known."""
    turn = np.zeros_like(arm.step_m)
    # In the world's axes, where equal turns stay equal whatever the pose: R_next @ R.T.
    turn[arm.known] = rotvec_from_rotmat(
        arm.rotmat[1:][arm.known] @ np.swapaxes(arm.rotmat[:-1][arm.known], 1, 2)
    )
    # Two, so that both are samples or both midpoints of a source of 5, 15 or 25 Hz.
    away = max(2, arm.stride)
    z_way = _z(_excess(arm.step_m, arm.known, away), arm.known, MIN_SCALE_M)
    z_turn = _z(_excess(turn, arm.known, away), arm.known, MIN_SCALE_RAD)
    return np.where(arm.known, (z_way + z_turn) / 2, 0.0)


def _excess(step: Array, known: Mask, away: int) -> Array:
    """[S] least difference from the steps `away` before and after and from their mean; from the only one near an end or a gap."""
    if len(step) <= away:
        return np.zeros(len(step))
    change = step[away:] - step[:-away]
    size = np.where(known[away:] & known[:-away], np.linalg.norm(change, axis=1), np.inf)
    none = np.full(away, np.inf)
    before, after = np.concatenate([none, size]), np.concatenate([size, none])
    excess = np.minimum(before, after)
    bend = np.full(len(step), np.inf)
    bend[away:-away] = np.linalg.norm(change[:-away] - change[away:], axis=1) / 2
    excess = np.where(np.isfinite(before) & np.isfinite(after), np.minimum(excess, bend), excess)
    excess = np.where(np.isfinite(excess), excess, 0.0)
    # A jump of a source below 5 Hz is spread over more steps than a reach may take.
    return excess if away > 2 else np.minimum(excess, _beyond_a_reach(step, known))


def _beyond_a_reach(step: Array, known: Mask) -> Array:
    """[S] by how much a step, or one of the two pairs that it is in, is longer than a reach could be next to its neighbours."""
    one = np.where(known[:, None], step, np.nan)
    padded = np.concatenate([_UNKNOWN, one, _UNKNOWN])
    before, after = padded[:-2], padded[2:]
    beyond = np.maximum(_longer(one, before, after, 1.0), 0.0)
    pairs = _longer(one[:-1] + one[1:], before[:-1], after[1:], 2.0)
    beyond[:-1] = np.fmax(beyond[:-1], pairs)
    beyond[1:] = np.fmax(beyond[1:], pairs)
    return np.asarray(np.nan_to_num(beyond))


def _longer(way: Array, before: Array, after: Array, times: float) -> Array:
    """[n] length of each way beyond so many times what those before and after go in its direction."""
    size = np.linalg.norm(way, axis=1)
    along = way / np.maximum(size, 1e-12)[:, None]
    beside = [np.maximum((along * near).sum(axis=1), 0.0) for near in (before, after)]
    return np.asarray(size - times * _both(*beside))


def _both(before: Array, after: Array) -> Array:
    """Their sum; where one is not known the other counts twice, and of none nothing is known."""
    one = np.where(np.isnan(before), after, before)
    return np.asarray(one + np.where(np.isnan(after), one, after))


def _z(excess: Array, known: Mask, least: float) -> Array:
    typical = float(np.median(excess[known])) if known.any() else 0.0
    return excess / max(1.4826 * typical, least)


def _worst(view: EpisodeView, value: Callable[[ArmTrack], float]) -> tuple[float, int]:
    return max(((value(arm), int(arm.known.sum())) for arm in view.arms), key=lambda f: f[0])


def _fast_share(arm: ArmTrack) -> float:
    fast = (arm.metres * arm.rate_hz > FAST_M_S) | (arm.radians * arm.rate_hz > FAST_RAD_S)
    return float(fast[arm.known].mean())


def _joints(view: EpisodeView) -> Iterator[Measurement]:
    joints = view.columns.get("observation.joint_position_rad")
    valid = view.valid("observation.joint_position_rad", "joint_position_rad")
    known = valid[:-1] & valid[1:]
    if joints is not None and known.any():
        steps = np.abs(np.diff(joints, axis=0))[known]
        yield JOINT.row(steps.max() * view.rate_hz, len(steps))


MEASURE = Measure(
    name="limits", version=2, outputs=(TURN, ACC, JOINT, FAST, TOP_Z, COUNT, JUMP), compute=compute
)
