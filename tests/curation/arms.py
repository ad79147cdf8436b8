"""Episodes for motion measures: arms on given paths, seen through a source's clock, with whatever fault a test puts in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.curation.measurements.registry import compute, measures
from ingest.curation.measurements.view import EpisodeView
from ingest.transforms.resample import resample
from schemas.episode import Stream, pose_channel
from schemas.geometry import Array, rot6d_cols_from_rotmat, rotmat_from_rotvec, transform
from schemas.measurement import Measurement
from schemas.rate import instants_ns

RATE_HZ = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class ArmPath:
    """[K, ...] on the 10 Hz grid; no command means the achieved next state, as ingestion has it."""

    position_m: Array
    rotmat: Array | None = None  # none: it does not turn
    opening: Array | None = None
    command_m: Array | None = None
    command_rotmat: Array | None = None
    command_opening: Array | None = None
    valid: npt.NDArray[np.bool_] | None = None


def following(values: Array) -> Array:
    """The achieved next state of each timestep."""
    return np.concatenate([values[1:], values[-1:]])


def view_of(
    arms: Mapping[str, ArmPath],
    *,
    row: Mapping[str, Any] | None = None,
    extras: Mapping[str, tuple[tuple[str, ...], Array]] | None = None,
) -> EpisodeView:
    """A committed episode with these arms; `extras` are features with their names, `observation.valid` is all True beside."""
    state: dict[str, Array] = {}
    action: dict[str, Array] = {}
    valid: dict[str, Array] = {}
    for side, arm in arms.items():
        length = len(arm.position_m)
        turned = np.broadcast_to(np.eye(3), (length, 3, 3)) if arm.rotmat is None else arm.rotmat
        parts = {
            "position_m": (arm.position_m, arm.command_m),
            "rot6d_cols": (
                rot6d_cols_from_rotmat(turned),
                None if arm.command_rotmat is None else rot6d_cols_from_rotmat(arm.command_rotmat),
            ),
        }
        if arm.opening is not None:
            command = None if arm.command_opening is None else arm.command_opening[:, None]
            parts["gripper_opening"] = (arm.opening[:, None], command)
        for part, (seen, asked) in parts.items():
            state[f"{side}.{part}"] = seen
            action[f"{side}.{part}"] = following(seen) if asked is None else asked
            is_valid = np.ones(length, dtype=bool) if arm.valid is None else arm.valid
            valid[f"{side}.{part}"] = is_valid[:, None].astype(float)
    columns = {"observation.state": state, "action": action, "observation.valid": valid}
    columns["action.valid"] = dict(valid)
    names = {f: tuple(_names(parts)) for f, parts in columns.items()}
    values = {f: np.concatenate(list(p.values()), axis=1) for f, p in columns.items() if p}
    length = (
        len(next(iter(values.values()))) if values else len(next(iter((extras or {}).values()))[1])
    )
    for feature, (elements, array) in (extras or {}).items():
        names[feature], values[feature] = elements, array
    # float32 on disk, float64 in a view, as open_view has it
    stored = {f: v.astype(np.float32).astype(np.float64) for f, v in values.items()}
    return EpisodeView(
        row={
            "length": length,
            "source_rate_hz": 30.0,
            "camera_motion_removed": True,
            **(row or {}),
        },
        segments=(),
        columns=stored,
        names={f: names[f] for f in stored},
        rate_hz=RATE_HZ,
    )


def _names(parts: Mapping[str, Array]) -> list[str]:
    return [
        name if values.shape[1] == 1 else f"{name}.{i}"
        for name, values in parts.items()
        for i in range(values.shape[1])
    ]


def with_masks(view: EpisodeView, feature: str, masks: Mapping[str, Array]) -> EpisodeView:
    """The view with more masks beside those of its slices."""
    columns, names = dict(view.columns), dict(view.names)
    added = np.stack(list(masks.values()), axis=1).astype(float)
    have = columns.get(feature, np.empty((len(added), 0)))
    columns[feature] = np.concatenate([have, added], axis=1)
    names[feature] = (*names.get(feature, ()), *masks)
    return replace(view, columns=columns, names=names)


def found(view: EpisodeView, measure: str) -> list[Measurement]:
    return list(compute(measures()[measure], view))


def numbers(view: EpisodeView, *names: str) -> dict[str, Any]:
    """Every number for the episode as a whole, by name."""
    rows = [m for name in names for m in found(view, name) if m.start is None]
    return {m.name: m.value for m in rows}


def intervals(view: EpisodeView, measure: str, name: str) -> list[tuple[int, int]]:
    """[start, end) of every interval called `name`."""
    rows = [m for m in found(view, measure) if m.name == name]
    return [(m.start, m.end) for m in rows if m.start is not None and m.end is not None]


def minimum_jerk(start: Array, end: Array, steps: int) -> Array:
    """[steps + 1, 3] Flash and Hogan 1985."""
    s = np.linspace(0, 1, steps + 1)[:, None]
    return start + (end - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)


def smooth_arm(seconds: float, seed: int) -> Any:
    """p(t [n] s) -> [n, 4, 4]: a few sines in all axes below 0.7 Hz, as a hand would move."""
    rng = np.random.default_rng(seed)
    hz = np.array([0.11, 0.23, 0.37, 0.52])
    reach = rng.uniform(-1, 1, (3, 4)) * [0.12, 0.08, 0.04, 0.02]
    turns = rng.uniform(-1, 1, (3, 4)) * [0.5, 0.3, 0.15, 0.1]
    phase = rng.uniform(0, 2 * np.pi, (6, 4))

    def pose(t: Array) -> Array:
        waves = np.sin(2 * np.pi * hz * t[:, None, None] + phase)
        position = np.array([0.4, 0.1, 0.3]) + (waves[:, :3] * reach).sum(axis=2)
        rotmat = rotmat_from_rotvec((waves[:, 3:] * turns).sum(axis=2))
        return transform(rotmat, position)

    return pose


def recorded(pose: Any, seconds: float, source_hz: int) -> Array:
    """[K, 4, 4] `pose` as a source of that rate has it, brought to the 10 Hz grid by ingestion's own resampling."""
    t_ns = instants_ns(int(seconds * source_hz) + 1, Fraction(source_hz))
    stream = Stream(spec=pose_channel("left.T_base_eef"), t_ns=t_ns, values=pose(t_ns / 1e9))
    at = instants_ns(int(seconds * 10), Fraction(10))
    return resample(stream, at, gap_periods=2, gap_ms=250).values


def arm_of(poses: Array, **more: Any) -> ArmPath:
    return ArmPath(position_m=poses[:, :3, 3], rotmat=poses[:, :3, :3], **more)
