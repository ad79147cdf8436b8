"""Does the camera see the hand: the end-effector projected with the source's own calibration.

quality_signals.md §2 ("share of frames with the TCP inside the image and in front of the camera; < 0.5: bad extrinsics", AgiBot's
missing_ratio). The better camera counts: another may look elsewhere. A ray beyond the angle at which the lens model stops growing
is outside: polynomials fold back there. Hands that stay in a moving camera's frame are projected as they are when there is one
camera (a hand's frame is the world or a camera of its episode, schemas/episode.py); with several the camera is ambiguous, and there is no value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ingest.curation.measurements.camera_track import camera_track
from ingest.curation.measurements.registry import Measure, OutputField
from ingest.curation.measurements.view import EpisodeView, Mask
from schemas.camera_model import Lens, project
from schemas.geometry import Array
from schemas.measurement import Measurement

SHARE = OutputField(
    name="eef_in_image_share",
    unit="share",
    about="valid hands inside the image, best camera",
)
SIDE = {
    side: OutputField(
        name=f"eef_in_image_share.{side}", unit="share", about=f"the same, {side} hand"
    )
    for side in ("left", "right")
}


def compute(view: EpisodeView) -> Iterator[Measurement]:
    """One share over both hands and one for each, over the timesteps in which hand and camera are valid."""
    seen = [
        masks_by_side for camera in view.row["cameras"] if (masks_by_side := _seen_by(view, camera))
    ]
    if not seen:
        return
    both = [np.concatenate(list(masks_by_side.values())) for masks_by_side in seen]
    best = max(both, key=_share)
    yield SHARE.row(_share(best), len(best))
    for side, output in SIDE.items():
        masks = [masks_by_side[side] for masks_by_side in seen if side in masks_by_side]
        if masks:
            best = max(masks, key=_share)
            yield output.row(_share(best), len(best))


def _share(mask: Mask) -> float:
    return float(mask.mean())


def _seen_by(view: EpisodeView, camera: Mapping[str, Any]) -> dict[str, Mask]:
    """For each side, whether its hand is in the picture, at the timesteps where that is known."""
    if camera["K_cam"] is None:
        return {}
    masks = {}
    for side in view.sides:
        position = view.part("observation.state", f"{side}.position_m")
        if position is None:
            continue
        p_cam_m, known = _in_camera(view, camera["name"], position)
        known = known & view.valid("observation.state", f"{side}.position_m")
        if known.any():
            masks[side] = _in_image(p_cam_m[known], camera)
    return masks


def _in_camera(view: EpisodeView, camera: str, position_m: Array) -> tuple[Array, Mask]:
    """[K, 3] points of the state's frame in the camera, and [K] where its pose is known."""
    track = camera_track(view, camera)
    if track is not None:
        return np.einsum("kba,kb->ka", track.rotmat, position_m - track.position_m), track.valid
    is_in_it = not view.row["camera_motion_removed"] and len(view.row["cameras"]) == 1
    return position_m, np.full(len(position_m), is_in_it)


def _in_image(p_cam_m: Array, camera: Mapping[str, Any]) -> Mask:
    lens = Lens(model=camera["lens_model"], params=tuple(camera["lens_params"]))
    uv, in_front = project(p_cam_m, np.reshape(camera["K_cam"], (3, 3)), lens)
    size = np.array([camera["width"], camera["height"]])
    # pixel centres lie at integers: the picture reaches half a pixel beyond the first and the last
    inside = ((uv >= -0.5) & (uv <= size - 0.5)).all(axis=1)
    off_axis_rad = np.arctan2(np.linalg.norm(p_cam_m[:, :2], axis=1), p_cam_m[:, 2])
    return np.asarray(inside & in_front & (off_axis_rad < _widest_rad(lens)))


def _widest_rad(lens: Lens) -> float:
    """The angle from the axis up to which the lens maps further out what lies further out."""
    angle_rad = np.deg2rad(np.linspace(0.0, 89.5, 180))
    rays = np.stack([np.tan(angle_rad), np.zeros(180), np.ones(180)], axis=1)
    uv, _ = project(rays, np.eye(3), lens)
    folds = np.flatnonzero(np.diff(uv[:, 0]) <= 0)
    return float(angle_rad[folds[0]]) if len(folds) else float(np.pi / 2)


MEASURE = Measure(name="projection", version=1, outputs=(SHARE, *SIDE.values()), compute=compute)
