"""Columns that say nothing: constant, stuck while the robot moves, clipped at a bound, or the state under another name.

Constant: max - min < 1e-3 (RoboMIND utils). Stuck: the same value, to the last bit, while the rest of the arm moves: one coordinate
for 1 s that varies otherwise, a whole pose or all joints for 0.5 s (RoboMIND's is_stuck, by runs; no sensor repeats itself to the last bit in motion).
Clipped: at the episode's own bound (lerobot-doctor 0.2.0), counted while other elements of the command move, since at rest every
column is at some bound, and not for a bound of 0 (rest of a delta) nor for elements of at most 3 values (switches).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.curation.measurements.arm import ArmTrack
from ingest.curation.measurements.each.command import pairs_of
from ingest.curation.measurements.each.validity import whole_valid
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from ingest.transforms.resample import runs
from schemas.geometry import Array
from schemas.measurement import Measurement

CONSTANT = 1e-3
STUCK_COLUMN_S, STUCK_POSE_S = 1.0, 0.5
STUCK_PATH_M = 0.02  # way of what moves on, meanwhile
FEW_VALUES = 3
_BESIDE = ("observation.joint_position_rad", "observation.source_state")

CONSTANTS = OutputField(
    name="constant_columns", unit="count", about="elements of state and joints, range < 1e-3"
)
STUCK_SHARE = OutputField(
    name="stuck_share", unit="share", about="timesteps in an interval of stuck_s"
)
STUCK = OutputField(
    name="stuck_s", unit="s", about="a column stuck while its arm moves", is_interval=True
)
CLIPPED = OutputField(
    name="command_clipped_share",
    unit="share",
    about="the same for the worst element of the raw command",
)
RAW_COPY = OutputField(
    name="raw_is_copy",
    unit="share",
    about="moving timesteps in which a raw command element equals an element of the source's state, median element",
)


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """State and joints, then the raw command."""
    seen = [
        values for values in (_state(view), _joints(view)) if values is not None and len(values)
    ]
    if seen:
        constant = sum(int((np.ptp(values, axis=0) < CONSTANT).sum()) for values in seen)
        yield CONSTANTS.row(constant, max(len(values) for values in seen))
    yield from _stuck(view)
    raw = view.columns.get("action.raw")
    if raw is not None and view.valid("action", "raw_command").any():
        yield from _command(raw[view.valid("action", "raw_command")], view)


def _state(view: EpisodeView) -> Array | None:
    """Without keypoints: some of them are constant by construction (the wrist in the wrist's frame).

    Slices that are not measured hold a filler and are excluded too.
    """
    valid = whole_valid(view, "observation.valid")
    if valid is None:
        return None
    names = view.names["observation.state"]
    unmeasured = tuple(f"{name}." for name in view.command_only)
    kept = [
        i
        for i, name in enumerate(names)
        if "hand_keypoints_m" not in name and not f"{name}.".startswith(unmeasured)
    ]
    return view.columns["observation.state"][valid][:, kept]


def _joints(view: EpisodeView) -> Array | None:
    joints = view.columns.get("observation.joint_position_rad")
    valid = view.valid("observation.joint_position_rad", "joint_position_rad")
    return None if joints is None else joints[valid]


def _stuck(view: EpisodeView) -> Iterator[Measurement]:
    steps = [steps for arm in view.arms for steps in _stuck_steps(view, arm)] + list(
        _stuck_joints(view)
    )
    if not view.arms:
        return
    covered = np.zeros(view.length, dtype=bool)
    for start, end in steps:
        covered[start : end + 1] = True
    yield STUCK_SHARE.row(covered.mean(), view.length)
    for start, end in runs(covered):
        yield STUCK.row((end - start) / view.rate_hz, end - start, (start, end))


def _stuck_steps(view: EpisodeView, arm: ArmTrack) -> Iterator[tuple[int, int]]:
    """Steps [start, end) in which a coordinate, or the whole pose, does not change by a bit."""
    same = arm.step_m == 0.0
    moved = np.where(arm.known, arm.metres, 0.0)
    # What never changes is constant, not stuck: the height of an arm that pushes on a table.
    varies = np.ptp(arm.position_m[arm.valid], axis=0) >= CONSTANT
    for column in same.T[varies]:
        yield from _lasting(column & arm.known, moved, STUCK_COLUMN_S * view.rate_hz)
    pair = next((pair for pair in pairs_of(view) if pair.arm is arm), None)
    if pair is not None:
        asked = np.linalg.norm(np.diff(pair.position_m, axis=0), axis=1)
        asked = np.where(pair.valid[:-1] & pair.valid[1:], asked, 0.0)
        still = same.all(axis=1) & (arm.radians == 0.0) & arm.known
        yield from _lasting(still, asked, STUCK_POSE_S * view.rate_hz)


def _stuck_joints(view: EpisodeView) -> Iterator[tuple[int, int]]:
    joints = view.columns.get("observation.joint_position_rad")
    if joints is None or not view.arms:
        return
    valid = view.valid("observation.joint_position_rad", "joint_position_rad")
    still = (np.diff(joints, axis=0) == 0.0).all(axis=1) & valid[:-1] & valid[1:]
    moved = np.max([np.where(arm.known, arm.metres, 0.0) for arm in view.arms], axis=0)
    yield from _lasting(still, moved, STUCK_POSE_S * view.rate_hz)


def _lasting(still: Mask, moved_m: Array, steps: float) -> Iterator[tuple[int, int]]:
    for start, end in runs(still):
        if end - start >= steps and moved_m[start:end].sum() > STUCK_PATH_M:
            yield start, end


def _command(raw: Array, view: EpisodeView) -> Iterator[Measurement]:
    changes = np.diff(raw, axis=0) != 0.0
    moving = np.concatenate([[False], changes.any(axis=1)])
    values = raw[moving]
    if len(values) < 2:
        return
    ordered = np.sort(values, axis=0)
    num_values = 1 + (np.diff(ordered, axis=0) != 0.0).sum(axis=0)
    analogue = num_values > FEW_VALUES
    if analogue.any():
        shares = [_clipped(column) for column in values[:, analogue].T]
        yield CLIPPED.row(max(shares), len(values))
    states = [view.columns[name] for name in _BESIDE if name in view.columns]
    varying = np.flatnonzero(num_values > 1)
    if states and len(varying):
        beside = np.concatenate(states, axis=1)[view.valid("action", "raw_command")]
        shares = [
            float((raw[moved, i][:, None] == beside[moved]).mean(axis=0).max())
            for i in varying
            for moved in [np.flatnonzero(changes[:, i]) + 1]
            if len(moved)
        ]
        yield RAW_COPY.row(float(np.median(shares)), len(values))


def _clipped(column: Array) -> float:
    """Share at either bound; the one sample that has to be there does not count."""
    bounds = [bound for bound in (column.min(), column.max()) if bound != 0.0]
    return float(sum((column == bound).sum() - 1 for bound in bounds) / len(column))


MEASURE = Measure(
    name="columns",
    version=1,
    outputs=(CONSTANTS, STUCK_SHARE, STUCK, CLIPPED, RAW_COPY),
    compute=compute,
)
