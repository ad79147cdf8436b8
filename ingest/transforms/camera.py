"""Camera motion out of hand poses, and a world that stands upright (formats: hands.md §10).

What is seen in a moving camera is put into the world by composing with the camera's own pose at that instant:
`T_world_x(t) = T_world_cam(t) @ T_cam_x(t)`. Where the camera's pose is not known nothing is composed and nothing is
pretended: those samples are marked. Deltas `inv(T_k) @ T_(k+1)` do not depend on which fixed world it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ingest.transforms.resample import Mask, Samples, resample
from ingest.transforms.time_grid import Instants
from schemas.episode import Stream
from schemas.geometry import Array, inverse, transform
from schemas.hand_track import WORLD

_AXES = {"x": 0, "y": 1, "z": 2}


def T_upright_world(world_up: str | None) -> Array:
    """[4, 4] the world turned, by the shortest way about a horizontal axis, so that `world_up` becomes +z.

    The identity where the up axis is unknown.
    """
    if world_up is None:
        return np.eye(4)
    up = np.zeros(3)
    up[_AXES[world_up[1]]] = 1.0 if world_up[0] == "+" else -1.0
    z = np.array([0.0, 0.0, 1.0])
    if np.array_equal(up, z):
        return np.eye(4)
    if np.array_equal(up, -z):
        return transform(np.diag([1.0, -1.0, -1.0]), np.zeros(3))
    axis = np.cross(up, z)  # a quarter turn that takes `up` to z: up -> z, z -> -up, axis stays
    R = np.outer(axis, axis) + np.outer(z, up) - np.outer(up, z)
    return transform(R, np.zeros(3))


def upright_streams(streams: tuple[Stream, ...], T_upright: Array) -> tuple[Stream, ...]:
    """The streams with every `T_world_cam` in the upright world."""
    return tuple(
        replace(s, values=T_upright @ s.values) if s.name.startswith("T_world_cam.") else s
        for s in streams
    )


def camera_pose_at(
    stream: Stream | None, at: Instants, *, gap_periods: int, gap_ms: int
) -> Samples | None:
    """T_world_cam at the instants `at`, valid inside its runs; None when there is no such stream."""
    if stream is None:
        return None
    return resample(stream, at, gap_periods=gap_periods, gap_ms=gap_ms)


def in_world(T_frame_x: Array, frame: str, T_world_cam: Samples | None) -> tuple[Array, Mask]:
    """[N, 4, 4] poses in `frame` -> in the world, and where that could be done.

    With `frame` a camera of unknown pose the poses are returned unchanged.
    """
    if frame == WORLD:
        return T_frame_x, np.ones(len(T_frame_x), dtype=bool)
    if T_world_cam is None:
        return T_frame_x, np.zeros(len(T_frame_x), dtype=bool)
    return T_world_cam.values @ T_frame_x, T_world_cam.valid


def points_in_camera(
    points: Array, T_world_cam: Samples | None, frame: str, camera: str
) -> Array | None:
    """[N, J, 3] points given in `frame` -> in the optical frame of `camera`; None when that cannot be known."""
    if frame == camera:
        return points
    if T_world_cam is None:
        return None
    T = inverse(T_world_cam.values)
    return np.asarray(np.einsum("nab,njb->nja", T[:, :3, :3], points) + T[:, None, :3, 3])
