"""Where hands and end effectors are: in the frame of their poses, and in the pictures of every camera whose pose and lens are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.stored_episode import StoredEpisode
from schemas.camera_model import Lens, project
from schemas.embodiment import embodiment_for
from schemas.episode import SIDES
from schemas.geometry import Array, inverse, rotmat_from_rot6d_cols, transform
from schemas.hand import NUM_JOINTS, from_wrist_frame

MAX_STEPS = 600  # of an answer; more are thinned evenly
TRAIL = 10  # timesteps before and after, drawn into a picture
STATE = "observation.state"
NO_TURN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # rot6d_cols
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hand:
    """One end effector at K timesteps, metres; NaN where the pose may not be believed."""

    side: str
    position: Array  # [K, 3]
    points: Array | None  # [K, 21, 3]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HandInPictures:
    """A hand in the pictures of a camera, pixels of the stored video; NaN where it is not known or not in front of the camera."""

    camera: str
    side: str
    trail: Array  # [k, 2 * TRAIL + 1, 2] the path around each timestep, the timestep itself in the middle
    points: Array | None  # [k, 21, 2]


def shown_timesteps(length: int) -> Ints:
    """At most MAX_STEPS timesteps, evenly."""
    stride = max(-(-length // MAX_STEPS), 1)
    return np.arange(0, length, stride)


def hands_of(episode: StoredEpisode) -> list[Hand]:
    """Every side that has a pose in the state."""
    names = episode.features.get(STATE, ())
    return [
        _hand(episode, side)
        for side in SIDES
        if f"{side}.position_m.x" in names and f"{side}.rot6d_cols.xx" in names
    ]


def _hand(episode: StoredEpisode, side: str) -> Hand:
    position = episode.values(STATE, f"{side}.position_m").astype(np.float64)
    is_known = episode.valid(STATE, f"{side}.position_m")
    position[~is_known] = np.nan
    points = None
    if f"{side}.hand_keypoints_m.wrist.x" in episode.features[STATE]:
        points = _points(episode, side, position)
    return Hand(side=side, position=position, points=points)


def _points(episode: StoredEpisode, side: str, position: Array) -> Array | None:
    """[K, 21, 3] in the frame of the hand's pose: the stored ones are in the wrist frame."""
    arm = embodiment_for(episode.row["embodiment"]).arms.get(side)
    if arm is None or arm.T_src_hand is None:
        return None
    rotation = _rotations(
        episode.values(STATE, f"{side}.rot6d_cols"), episode.valid(STATE, f"{side}.rot6d_cols")
    )
    T_ref_wrist = transform(rotation, position) @ inverse(arm.T_src_hand)
    flat = episode.values(STATE, f"{side}.hand_keypoints_m").astype(np.float64)
    points = from_wrist_frame(flat.reshape(-1, NUM_JOINTS, 3), T_ref_wrist)
    points[~episode.valid(STATE, f"{side}.hand_keypoints_m")] = np.nan
    return points


def seen_by(
    episode: StoredEpisode, camera: Mapping[str, Any], hands: list[Hand], at: Ints
) -> list[HandInPictures]:
    """The hands in the pictures of a camera at some timesteps; none where its pose or its lens is not known."""
    T_ref_cam = _camera_poses(episode, camera["name"])
    if T_ref_cam is None or camera["K_cam"] is None:
        return []
    around = np.arange(-TRAIL, TRAIL + 1)
    place = at[:, None] + around
    is_inside = (place >= 0) & (place < episode.length)
    out = []
    for hand in hands:
        path = hand.position[np.clip(place, 0, episode.length - 1)]
        path[~is_inside] = np.nan
        points = None if hand.points is None else _pixels(hand.points[at], T_ref_cam[at], camera)
        trail = _pixels(path, T_ref_cam[at], camera)
        if np.isfinite(trail).any():
            out.append(
                HandInPictures(camera=camera["name"], side=hand.side, trail=trail, points=points)
            )
    return out


def _camera_poses(episode: StoredEpisode, camera: str) -> Array | None:
    """[K, 4, 4] the camera in the frame of the hands; None where that is not known."""
    own = {
        fact["value"]
        for fact in episode.row["facts"] or ()
        if fact["name"].startswith("hand_frame.")
    }
    if camera in own:  # its hands are in its own frame
        return np.broadcast_to(np.eye(4), (episode.length, 4, 4))
    feature, part = f"observation.camera_pose.{camera}", f"camera_pose.{camera}"
    if feature not in episode.features:
        return None
    pose, is_known = episode.values(feature).astype(np.float64), episode.valid(STATE, part)
    pose[~is_known, :3] = np.nan
    return transform(_rotations(pose[:, 3:], is_known), pose[:, :3])


def _rotations(rot6d: npt.ArrayLike, is_known: npt.NDArray[np.bool_]) -> Array:
    """[K, 3, 3]; what is not known is no rotation at all, and its position is NaN."""
    return rotmat_from_rot6d_cols(np.where(is_known[:, None], rot6d, NO_TURN))


def _pixels(points: Array, T_ref_cam: Array, camera: Mapping[str, Any]) -> Array:
    """[k, n, 3] -> [k, n, 2]."""
    moved = points - T_ref_cam[:, None, :3, 3]
    in_camera = np.einsum("kni,kij->knj", moved, T_ref_cam[:, :3, :3])
    lens = Lens(model=camera["lens_model"] or "pinhole", params=tuple(camera["lens_params"] or ()))
    uv, is_shown = project(in_camera, np.array(camera["K_cam"]).reshape(3, 3), lens)
    uv[~is_shown | ~np.isfinite(uv).all(axis=-1)] = np.nan
    return uv
