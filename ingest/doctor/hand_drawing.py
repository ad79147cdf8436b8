"""Hands drawn into the pictures they were seen in: a wrong convention is then seen at a glance.

Each end-effector is its axes, x red, y green, z blue, from the grasp centre; a human hand is its 21 points besides, so that a
swapped hand, a transposed camera or millimetres stand beside the skin and not on it.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ingest.transforms.hand_poses import hand_points
from schemas.camera_model import Lens, project
from schemas.geometry import Array, rotmat_from_rot6d_cols, transform
from schemas.hand import NUM_JOINTS, joint_parents

AXIS_LENGTH_M = 0.08
LEAST_WIDTH_PX = 224  # Bridge's 64 px would hold neither a letter nor an axis
TITLE_HEIGHT_PX = 20
_AXIS_COLOURS_BGR = ((60, 60, 235), (60, 200, 60), (235, 120, 40))
_BONE_COLOURS_BGR = {"left": (235, 200, 60), "right": (60, 220, 245)}
_FAR_PX = 10_000.0

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A camera at one instant: its pose [4, 4] in the frame of the hands, and its row of the catalog. Pixels are those of the picture `scale` times as large."""

    T_ref_cam: Array
    camera: Mapping[str, Any]
    scale: int = 1  # of the picture that is drawn into

    def pixels(self, p_ref: Array) -> tuple[list[tuple[int, int]], bool]:
        """[N, 3] points to pixels of the stored video, and whether all are in front of the camera."""
        p_cam = (p_ref - self.T_ref_cam[:3, 3]) @ self.T_ref_cam[:3, :3]
        lens = Lens(
            model=self.camera["lens_model"] or "pinhole",
            params=tuple(self.camera["lens_params"] or ()),
        )
        uv, in_front = project(p_cam, np.array(self.camera["K_cam"]).reshape(3, 3), lens)
        uv = (
            np.nan_to_num(uv) + 0.5
        ) * self.scale - 0.5  # the centre of a pixel is at whole numbers
        whole = np.clip(uv, -_FAR_PX, _FAR_PX).round().astype(int)
        return [(int(u), int(v)) for u, v in whole], bool(in_front.all())


def scale_of(width_px: int) -> int:
    """How many times as large a picture is drawn, so that hands and letters can be made out."""
    return max(1, math.ceil(LEAST_WIDTH_PX / width_px))


def enlarged(picture: Picture, scale: int) -> Picture:
    """Every pixel as a square of scale x scale."""
    if scale == 1:
        return picture
    size = (picture.shape[1] * scale, picture.shape[0] * scale)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def titled(picture: Picture, title: str) -> Picture:
    """A line of text above a picture, on black; what is no ASCII is a `?`, for OpenCV draws nothing else."""
    bar = np.zeros((TITLE_HEIGHT_PX, picture.shape[1], 3), np.uint8)
    text = title.encode("ascii", errors="replace").decode()
    cv2.putText(bar, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([bar, picture])


def draw_hands(
    picture: Picture,
    view: View,
    state: Array,
    names: Sequence[str],
    embodiment: str,
    believed: Container[str],
) -> None:
    """Draw the hands of the sides in `believed`; `names` are the elements of the state vector."""
    for side in ("left", "right"):
        if f"{side}.position_m.x" not in names or side not in believed:
            continue
        at = list(names).index(f"{side}.position_m.x")
        T_ref_hand = transform(rotmat_from_rot6d_cols(state[at + 3 : at + 9]), state[at : at + 3])
        _draw_axes(picture, view, T_ref_hand)
        first = f"{side}.hand_keypoints_m.wrist.x"
        if first in names:
            start = list(names).index(first)
            in_wrist = state[None, start : start + 3 * NUM_JOINTS]
            points = hand_points(in_wrist, T_ref_hand[None], embodiment, side)
            if points is not None:
                _draw_bones(picture, view, points[0], side)


def _draw_axes(picture: Picture, view: View, T_ref_hand: Array) -> None:
    tips = np.concatenate([np.zeros((1, 3)), AXIS_LENGTH_M * np.eye(3)])
    (origin, *ends), is_seen = view.pixels(tips @ T_ref_hand[:3, :3].T + T_ref_hand[:3, 3])
    if is_seen:
        for end, colour in zip(ends, _AXIS_COLOURS_BGR, strict=True):
            cv2.line(picture, origin, end, colour, 2)


def _draw_bones(picture: Picture, view: View, points: Array, side: str) -> None:
    uv, is_seen = view.pixels(points)
    if not is_seen:
        return
    for joint, parent in enumerate(joint_parents()):
        if parent >= 0:
            cv2.line(picture, uv[parent], uv[joint], _BONE_COLOURS_BGR[side], 1, cv2.LINE_AA)
