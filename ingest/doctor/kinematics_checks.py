"""Are the stored poses those of the robot's own kinematics? A pose that is stuck, late or of another frame is not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ingest.check import Check, judged, unmeasured
from ingest.doctor.eef_checks import is_moving
from ingest.recipe import Recipe
from ingest.transforms.forward_kinematics import Robot
from ingest.transforms.resample import resample
from schemas.episode import Episode
from schemas.errors import SourceError
from schemas.geometry import Array, geodesic_rad, inverse
from schemas.kinematics import all_kinematics

FK_M, FK_DEG, FK_MOTION_M = 1e-3, 0.1, 0.02
EXPECTED = f"position below {FK_M * 1000:g} mm, rotation below {FK_DEG:g} deg"


def episode_kinematics(episode: Episode, robot: Robot | None, recipe: Recipe) -> Iterator[Check]:
    """The test for every side whose pose is stored, at the instants of the joints."""
    stored = [
        s for s in episode.streams if s.name.endswith("T_base_eef") and s.name.count(".") == 1
    ]
    joints = episode.stream("joint_position_rad")
    if not stored or joints is None:
        return
    sides = [stream.name.partition(".")[0] for stream in stored]
    if robot is None:
        is_known = episode.embodiment in all_kinematics()
        why = "joints and poses are both stored; add --urdf FILE to compare them"
        why = (
            why
            if is_known
            else f"schemas/kinematics.yaml has no kinematic chain for {episode.embodiment}"
        )
        yield from (_unmeasured(side, why) for side in sides)
        return
    try:
        T_fk = robot.T_base_tip(joints.values[joints.valid], joints.spec.names)
    except SourceError as error:
        yield from (_unmeasured(side, str(error)) for side in sides)
        return
    at = joints.t_ns[joints.valid]
    for side, stream in zip(sides, stored, strict=True):
        sampled = resample(stream, at, gap_periods=recipe.gap_periods, gap_ms=recipe.gap_ms)
        if side in T_fk:
            yield from kinematics_checks(
                sampled.values[sampled.valid], T_fk[side][sampled.valid], side
            )


def _unmeasured(side: str, why: str) -> Check:
    return unmeasured("kinematics", side, unit="mm", expected=EXPECTED, explanation=why)


def kinematics_checks(T_stored: Array, T_fk: Array, side: str) -> Iterator[Check]:
    """(5) Stored poses against forward kinematics [N, 4, 4] at the same instants, up to one constant offset.

    The offset is at the tool (stored = FK @ X) or at the base (stored = B @ FK), whichever leaves less; the residual is
    the 99th percentile.
    """
    if len(T_fk) < 2 or not is_moving(T_fk, FK_MOTION_M):
        why = "the arm hardly moves, so the comparison proves nothing"
        yield _unmeasured(side, why)
        return
    X, B = _mean(inverse(T_fk) @ T_stored), _mean(T_stored @ inverse(T_fk))
    at_tool, at_base = _residual(T_stored, T_fk @ X), _residual(T_stored, B @ T_fk)
    where, offset = ("tool", X) if at_tool <= at_base else ("base", B)
    off_m, off_deg = min(at_tool, at_base)
    is_well = off_m < FK_M and off_deg < FK_DEG
    turn_deg = float(np.rad2deg(geodesic_rad(offset[:3, :3], np.eye(3))))
    shift_mm = np.linalg.norm(offset[:3, 3]) * 1000
    constant = f"a constant {shift_mm:.1f} mm and {turn_deg:.1f} deg at the {where}"
    if is_well:
        explanation = f"stored poses equal the forward kinematics of the URDF up to {constant}"
    elif not is_moving(T_stored, FK_M):
        explanation = "the stored pose does not change while the joints move: it is stuck"
    else:
        explanation = f"stored poses differ from the forward kinematics of the URDF even after removing {constant}: stuck, delayed, or a different frame"
    for name, value, unit in (("position", off_m * 1000, "mm"), ("rotation", off_deg, "deg")):
        yield judged(
            f"kinematics_{name}",
            side,
            value,
            unit=unit,
            expected=EXPECTED,
            is_well=is_well,
            explanation=explanation,
        )


def _mean(T: Array) -> Array:
    """[4, 4] the rigid transform nearest to all of [N, 4, 4]."""
    U, _, Vt = np.linalg.svd(T[:, :3, :3].mean(axis=0))
    out = np.eye(4)
    out[:3, :3] = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    out[:3, 3] = T[:, :3, 3].mean(axis=0)
    return out


def _residual(T_a: Array, T_b: Array) -> tuple[float, float]:
    """99th percentile of how far two series of poses are apart: metres, degrees."""
    off_m = np.linalg.norm(T_a[:, :3, 3] - T_b[:, :3, 3], axis=1)
    off_deg = np.rad2deg(geodesic_rad(T_a[:, :3, :3], T_b[:, :3, :3]))
    return float(np.quantile(off_m, 0.99)), float(np.quantile(off_deg, 0.99))
