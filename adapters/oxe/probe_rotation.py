"""Which rotation form a set really uses, measured on its first episodes; what cannot be distinguished is left open.

Three tests. A 4x4 matrix shows its order by where the row 0,0,0,1 lies. A second copy of the same rotation must agree with
the right pair of forms, and only with that. The rotation that the action asks for must turn the way the state turns.
Continuity over time decides nothing: it holds for a wrong order too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from adapters.oxe.motion import BOTTOM, ArmArrays, Array, poses, rotmats
from adapters.oxe.registry import MATRIX_FORMS, CopyEntry
from schemas.action_probe import is_clear
from schemas.errors import SourceError
from schemas.geometry import geodesic_rad, rotvec_from_rotmat

# Every form with that many values that anybody might have used.
FORMS_BY_WIDTH = {
    3: (
        "euler_xyz_extrinsic",
        "euler_xyz_intrinsic",
        "euler_zyx_extrinsic",
        "euler_zyx_intrinsic",
        "rotvec",
    ),
    4: ("quat_xyzw", "quat_wxyz"),
    16: MATRIX_FORMS,
}
SAME_RAD = 2e-3  # two records of one float32 rotation agree within this
TURNING_RAD = 0.01  # steps that turn less say nothing
MIN_STEPS = 30
AGREES = 0.8  # cosine


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationVerdict:
    """`form` is what the measurement decided (None: undecided); `against` that it rules the claimed form out."""

    form: str | None
    evidence: str
    against: bool = False


def state_form(
    episodes: list[ArmArrays],
    candidates: tuple[str, ...],
    copy: CopyEntry | None,
    delta_forms: tuple[str, ...],
) -> RotationVerdict:
    """Which of `candidates` the eef state uses; `delta_forms` are the forms its action may have."""
    width = _width(episodes)
    if width == 16:
        return _matrix_order(episodes)
    if width == 4 and (off := _norm_error(episodes)) > 0.05:
        evidence = f"median norm error {off:.3g}: these four values are no quaternion"
        return RotationVerdict(form=None, evidence=evidence, against=True)
    if copy is not None:
        verdict = _by_copy(episodes, candidates, copy.candidates)
        if verdict.form is not None:
            return verdict
    return _by_turning(episodes, candidates, delta_forms)


def _width(episodes: list[ArmArrays]) -> int:
    widths = {e.rotation.shape[1] for e in episodes if e.rotation is not None}
    return widths.pop() if len(widths) == 1 else 0


def _norm_error(episodes: list[ArmArrays]) -> float:
    norms = [np.linalg.norm(e.rotation, axis=1) for e in episodes if e.rotation is not None]
    return float(np.median(np.abs(np.concatenate(norms) - 1.0))) if norms else 0.0


def _matrix_order(episodes: list[ArmArrays]) -> RotationVerdict:
    T = np.concatenate([e.rotation for e in episodes if e.rotation is not None]).reshape(-1, 4, 4)
    off_row = float(np.abs(T[:, 3] - BOTTOM).max())
    off_column = float(np.abs(T[:, :, 3] - BOTTOM).max())
    evidence = f"0,0,0,1 off by {off_row:.3g} in the last row, {off_column:.3g} in the last column"
    if (off_row < 1e-3) == (off_column < 1e-3):
        return RotationVerdict(form=None, evidence=evidence)
    form = "matrix4x4_row_major" if off_row < off_column else "matrix4x4_col_major"
    return RotationVerdict(form=form, evidence=evidence)


def _by_copy(
    episodes: list[ArmArrays], candidates: tuple[str, ...], copies: tuple[str, ...]
) -> RotationVerdict:
    """The candidate that agrees with a second record of the same rotation; only if no other candidate does."""
    worst: dict[str, float] = {}
    for form, other in product(candidates, copies):
        errors = [
            geodesic_rad(a, b)
            for e in episodes
            if (a := _rotations(e.rotation, form)) is not None
            and (b := _rotations(e.rotation_copy, other)) is not None
        ]
        if errors:
            off = float(np.quantile(np.concatenate(errors), 0.99))
            worst[form] = min(off, worst.get(form, np.inf))
    evidence = "copy of the rotation differs by " + ", ".join(
        f"{off:.3g} rad in {form}" for form, off in sorted(worst.items())
    )
    same = [form for form, off in worst.items() if off < SAME_RAD]
    return RotationVerdict(form=same[0] if len(same) == 1 else None, evidence=evidence)


def _rotations(values: Array | None, form: str) -> Array | None:
    if values is None:
        return None
    try:
        if form in MATRIX_FORMS:
            return poses(None, values, form, where="probe")[:, :3, :3]
        return rotmats(values, form, where="probe")
    except SourceError:  # these values cannot be of that form: one candidate fewer
        return None


def state_rotations(episode: ArmArrays, form: str) -> Array | None:
    """[T, 3, 3] of the eef state in the axes of the robot base; None where the values cannot be of that form."""
    R = _rotations(episode.rotation, form)
    if R is None or episode.T_state_base is None:
        return R
    return np.asarray(np.swapaxes(episode.T_state_base[:, :3, :3], 1, 2) @ R)


def _by_turning(
    episodes: list[ArmArrays], candidates: tuple[str, ...], delta_forms: tuple[str, ...]
) -> RotationVerdict:
    """The state form whose turns between steps are best explained by the rotations the action asks for.

    The action's form must be held to what the registry allows: with both forms free, a relabelling of the axes in
    both explains everything equally well.
    """
    cosines: dict[str, float] = {}
    for form in candidates:
        agreements = [
            result.cosine
            for frame in ("state", "eef")
            for delta in delta_forms
            if (result := turning(episodes, form, delta, frame)) is not None
        ]
        if agreements:
            cosines[form] = max(agreements)
    text = ", ".join(f"{form} {cosine:.3f}" for form, cosine in sorted(cosines.items()))
    evidence = f"cosine of commanded and achieved turns: {text or 'too few turning steps'}"
    ranked = sorted(cosines, key=lambda form: -cosines[form])
    if not ranked or cosines[ranked[0]] < AGREES:
        return RotationVerdict(form=None, evidence=evidence)
    if len(ranked) > 1 and not is_clear(cosines[ranked[0]], cosines[ranked[1]]):
        return RotationVerdict(form=None, evidence=evidence + " (not told apart)")
    return RotationVerdict(form=ranked[0], evidence=evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turning:
    """Cosine between commanded and achieved rotation vectors over `num_steps` turning steps, and achieved / commanded."""

    cosine: float
    ratio: float
    num_steps: int


def delta_candidates(episodes: list[ArmArrays]) -> tuple[str, ...]:
    """Forms with as many values as the rotation part of the action has."""
    widths = {e.command_rotation.shape[1] for e in episodes if e.command_rotation is not None}
    return FORMS_BY_WIDTH.get(widths.pop(), ()) if len(widths) == 1 else ()


def turning(
    episodes: list[ArmArrays], form: str, delta_form: str, frame: str, scale_rad: float = 1.0
) -> Turning | None:
    """How well the action's rotation explains the state's; None without enough turning steps."""
    asked, done = [], []
    for episode in episodes:
        R = state_rotations(episode, form)
        values = episode.command_rotation
        if R is None or values is None or len(R) < 2:
            continue
        is_angle = not delta_form.startswith("quat")
        dR = _rotations(values * scale_rad if is_angle else values, delta_form)
        if dR is None:
            return None
        before, after = R[:-1], R[1:]
        turn = (
            np.swapaxes(before, 1, 2) @ after
            if frame == "eef"
            else after @ np.swapaxes(before, 1, 2)
        )
        asked.append(rotvec_from_rotmat(dR[:-1]))
        done.append(rotvec_from_rotmat(turn))
    if not asked:
        return None
    return _compare(np.concatenate(asked), np.concatenate(done))


def _compare(asked: Array, done: Array) -> Turning | None:
    moves: npt.NDArray[np.bool_] = (np.linalg.norm(done, axis=1) > TURNING_RAD) & (
        np.linalg.norm(asked, axis=1) > TURNING_RAD
    )
    if moves.sum() < MIN_STEPS:
        return None
    a, d = asked[moves], done[moves]
    dot = float((a * d).sum())
    return Turning(
        cosine=dot / float(np.linalg.norm(a) * np.linalg.norm(d)),
        ratio=dot / float((a * a).sum()),
        num_steps=int(moves.sum()),
    )


def forms_differ_rad(episodes: list[ArmArrays], forms: tuple[str, ...]) -> float:
    """How far apart the forms are on the actions seen: the 99th percentile of their largest angle, radians."""
    values = [e.command_rotation for e in episodes if e.command_rotation is not None]
    if not values or not forms:
        return 0.0
    built = [R for form in forms if (R := _rotations(np.concatenate(values), form)) is not None]
    return max(
        (float(np.quantile(geodesic_rad(built[0], R), 0.99)) for R in built[1:]), default=0.0
    )


def absolute_form(
    episodes: list[ArmArrays], form: str, candidates: tuple[str, ...]
) -> RotationVerdict:
    """Which form an absolute action uses, given that the state is in `form`: it must come close to the next state."""
    errors: dict[str, float] = {}
    for candidate in candidates:
        off = []
        for episode in episodes:
            R = _rotations(episode.rotation, form)
            C = _rotations(episode.command_rotation, candidate)
            if R is not None and C is not None and len(R) > 1:
                off.append(geodesic_rad(C[:-1], R[1:]))
        if off:
            errors[candidate] = float(np.median(np.concatenate(off)))
    text = ", ".join(f"{name} {off:.3f} rad" for name, off in sorted(errors.items()))
    ranked = sorted(errors, key=lambda name: errors[name])
    is_close = bool(ranked) and errors[ranked[0]] < 0.15
    is_alone = len(ranked) < 2 or errors[ranked[1]] > max(2 * errors[ranked[0]], 0.05)
    evidence = f"median angle between action and next state: {text or 'nothing to compare'}"
    return RotationVerdict(form=ranked[0] if is_close and is_alone else None, evidence=evidence)
