"""The pose of a camera over an episode: T_base_cam of a robot's, T_world_cam of a person's, in the frame of the state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ingest.curation.measurements.view import EpisodeView, Mask
from schemas.geometry import Array, geodesic_rad, rotmat_from_rot6d_cols


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraTrack:
    """K poses of a camera, OpenCV axes: `position_m` [K, 3], `rotmat` [K, 3, 3], `valid` [K]."""

    position_m: Array
    rotmat: Array
    valid: Mask

    @property
    def known(self) -> Mask:
        """[K - 1] steps with a valid pose at both ends."""
        return np.asarray(self.valid[:-1] & self.valid[1:])

    @property
    def metres(self) -> Array:
        """[K - 1] way of each step."""
        return np.asarray(np.linalg.norm(np.diff(self.position_m, axis=0), axis=1))

    @property
    def radians(self) -> Array:
        """[K - 1] turn of each step."""
        return geodesic_rad(self.rotmat[:-1], self.rotmat[1:])

    def flow_m(self, depth_m: float) -> Array:
        """[K - 1] how far, on average, what stands at `depth_m` before the camera seems to move in a step, metres there.

        Speed and turn alone would not do: a turn can cancel a translation, or add to it.
        """
        rays = np.stack(np.meshgrid([-0.5, -0.25, 0.0, 0.25, 0.5], [-0.4, 0.0, 0.4]), axis=-1)
        rays = np.append(rays.reshape(-1, 2), np.ones((15, 1)), axis=1)
        seen_m = np.einsum("kab,nb->kna", self.rotmat[:-1], rays * depth_m)
        world_m = seen_m + self.position_m[:-1, None]
        then_m = np.einsum("kba,knb->kna", self.rotmat[1:], world_m - self.position_m[1:, None])
        depth = np.maximum(then_m[..., 2:], 0.1 * depth_m)  # what goes past the camera
        shift = then_m[..., :2] / depth - rays[:, :2]
        return np.asarray(np.linalg.norm(shift, axis=2).mean(axis=1) * depth_m)


def camera_track(view: EpisodeView, camera: str) -> CameraTrack | None:
    """The track of `camera`, or None when the source gives no pose."""
    name = f"camera_pose.{camera}"
    pose = view.part(f"observation.{name}", name)
    if pose is None:
        return None
    return CameraTrack(
        position_m=pose[:, :3],
        rotmat=rotmat_from_rot6d_cols(pose[:, 3:]),
        valid=view.valid(f"observation.{name}", name),
    )
