"""Is this hand, in this frame, to be believed: eight tests, each recorded as a bit (formats: hands.md §11).

A test that cannot be made (no confidences, no camera model) passes and is listed as unknown: silence is no evidence. The
thresholds are the recipe's; every default is a value of public code, cited in the format page, or marked ours there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingest.recipe import HandSettings
from ingest.transforms.resample import Mask
from ingest.transforms.time_grid import Instants
from schemas.camera_model import project
from schemas.episode import Camera
from schemas.geometry import Array, geodesic_rad
from schemas.hand import MCPS, NUM_JOINTS, PalmFit, joint_parents

BITS = ("present", "confident", "in_view", "palm", "bones", "angles", "speed", "camera")
_FINGERS = (1, 5, 9, 13, 17)  # first joint of each finger, thumb first


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Validity:
    """`bits` [N, 8] in the order of `BITS`; `known` [8]: whether the test could be made at all."""

    bits: Mask
    known: Mask

    @property
    def valid(self) -> Mask:
        """[N] all eight hold."""
        return np.asarray(self.bits.all(axis=1))

    @property
    def unknown(self) -> tuple[str, ...]:
        return tuple(bit for bit, known in zip(BITS, self.known, strict=True) if not known)


def gathered(present: Mask, tests: dict[str, Mask | None]) -> Validity:
    """The bits of all tests; one that is None, or not there, is unknown and passes. Absent hands fail every known one."""
    by_bit = {"present": present, **tests}
    columns, known = [], []
    for bit in BITS:
        test = by_bit.get(bit)
        known.append(test is not None)
        columns.append(np.ones(len(present), dtype=bool) if test is None else test)
    return Validity(bits=np.stack(columns, axis=1), known=np.array(known))


def is_confident(confidence: Array | None, wrist: int, settings: HandSettings) -> Mask | None:
    """[N]: the wrist, and enough of the [N, 21] joints, above the floor."""
    if confidence is None:
        return None
    above = confidence >= settings.confidence_min
    return np.asarray(above[:, wrist] & (above.sum(axis=1) >= settings.confident_joints_min))


def is_in_view(
    p_cam_m: Array | None, has: Mask, camera: Camera | None, settings: HandSettings
) -> Mask | None:
    """[N]: the wrist and enough of the joints [N, 21, 3] fall inside the picture, beyond the smallest depth."""
    if p_cam_m is None or camera is None or camera.K_cam is None or camera.K_size is None:
        return None
    uv, is_shown = project(p_cam_m, camera.K_cam, camera.lens)
    width, height = camera.K_size
    margin = settings.view_margin_px
    inside = (
        is_shown
        & (uv >= margin).all(axis=-1)
        & (uv[..., 0] <= width - 1 - margin)
        & (uv[..., 1] <= height - 1 - margin)
        & (p_cam_m[..., 2] > settings.depth_min_m)
    )
    enough = (inside & has).sum(axis=1) >= min(settings.joints_in_view_min, int(has.sum()))
    return np.asarray(inside[:, 0] & enough)


def is_palm(fit: PalmFit, R_native: Array | None, settings: HandSettings) -> Mask:
    """[N]: the palm looks like a palm, of human size, and agrees with the source's own wrist [N, 3, 3] if it has one."""
    low, high = settings.palm_scale
    fits = (fit.scaled_rms_m <= settings.palm_rms_max_m) & (fit.scale >= low) & (fit.scale <= high)
    ok = fit.ok & (fits | (fit.rms_m <= settings.palm_unscaled_rms_max_m))
    if R_native is not None:
        angle = geodesic_rad(fit.T_ref_wrist[:, :3, :3], R_native)
        ok = ok & (angle <= np.deg2rad(settings.wrist_disagreement_max_deg))
    return np.asarray(ok)


def bone_lengths_m(points: Array) -> Array:
    """[N, 21, 3] -> [N, 20]: from each joint but the wrist to its parent."""
    parents = np.array(joint_parents()[1:])
    return np.asarray(np.linalg.norm(points[:, 1:] - points[:, parents], axis=2))


def has_plausible_bones(points: Array, has: Mask, present: Mask, settings: HandSettings) -> Mask:
    """[N]: every bone of human length, wrist to MCP too, and none far from its own median over the episode."""
    lengths = bone_lengths_m(points)
    is_palm_bone = np.isin(np.arange(1, NUM_JOINTS), MCPS)
    low = np.where(is_palm_bone, settings.wrist_to_mcp_m[0], settings.bone_m[0])
    high = np.where(is_palm_bone, settings.wrist_to_mcp_m[1], settings.bone_m[1])
    good = (lengths >= low) & (lengths <= high)
    if present.any():
        median = np.median(lengths[present], axis=0)
        good &= np.abs(lengths - median) <= settings.bone_change_max * median
    both = has[1:] & has[np.array(joint_parents()[1:])]
    return np.asarray((good | ~both).all(axis=1))


def has_plausible_angles(points: Array, has: Mask, settings: HandSettings) -> Mask:
    """[N]: no joint is bent further than a hand can: interior angles, 180 degrees being straight."""
    good = np.ones(len(points), dtype=bool)
    for first, limits_deg in zip(
        _FINGERS, (settings.thumb_angle_min_deg, *[settings.finger_angle_min_deg] * 4), strict=True
    ):
        chain = (0, first, first + 1, first + 2, first + 3)
        for k, limit_deg in enumerate(limits_deg):
            before, joint, after = chain[k : k + 3]
            if not has[[before, joint, after]].all():
                continue
            a, b = points[:, before] - points[:, joint], points[:, after] - points[:, joint]
            norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosine = np.einsum("na,na->n", a, b) / np.where(norm > 0, norm, 1.0)
            good &= (norm > 0) & (cosine <= np.cos(np.deg2rad(limit_deg)))
    return good


def is_slow_enough(
    T_ref_wrist: Array, t_ns: Instants, present: Mask, settings: HandSettings
) -> Mask:
    """[N]: neither the step to this sample nor the one from it is faster than a hand; steps to absent samples do not count."""
    good = np.ones(len(t_ns), dtype=bool)
    if len(t_ns) < 2:
        return good
    dt_s = np.diff(t_ns) / 1e9
    metres = np.linalg.norm(np.diff(T_ref_wrist[:, :3, 3], axis=0), axis=1)
    radians = geodesic_rad(T_ref_wrist[:-1, :3, :3], T_ref_wrist[1:, :3, :3])
    # A pair of exposures 0.1 ms apart (Aria) would make noise into speed: what counts is the way in a frame's time.
    dt_s = np.maximum(dt_s, settings.speed_over_s)
    fast = (metres > settings.speed_max_m_s * dt_s) | (radians > settings.turn_max_rad_s * dt_s)
    fast &= present[:-1] & present[1:]
    good[:-1] &= ~fast
    good[1:] &= ~fast
    return good
