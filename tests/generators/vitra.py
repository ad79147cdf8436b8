"""VITRA episodes in their true layout (microsoft/VITRA:data/data.md and its example): pickled dicts, and the videos they name.

Written out here, not taken from the package: extrinsics world -> camera; the left hand in the right model's convention; K for the
picture at full size, three times the stored one, with its centre at w / 2, h / 2. The last video is stretched, as the example is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.raw.mano_model import finger_rotvec
from jobs.demo.raw import Written
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.video_files import write_scene

RATE_HZ = 30
FULL = 3  # times the width of the stored picture
MIRROR_ROTVEC = np.array([1.0, -1.0, -1.0])
LONG, CUT, EPIC = (
    "03cc49c3-a7d1-445b-9a2a-545c4fae6843",
    "5e0b1c77-0000-4a5b-8c3d-1f2e3d4c5b6a",
    "P01_101",
)
FOLDER = "Metadata/{}/episodic_annotations/{}_{}_ep_{}"
FIRST = FOLDER.format("ego4d_cooking_and_cleaning", "Ego4D", LONG, "000000")
SECOND = FOLDER.format("ego4d_cooking_and_cleaning", "Ego4D", LONG, "000001")
WHOLE = FOLDER.format("epic", "epic", EPIC, "000000")
STRETCHED = FOLDER.format("ego4d_other", "Ego4D", CUT, "000007")


@dataclass(frozen=True)
class Filmed(HandScene):
    """The scene as a picture of 4 : 3 that was resized to width x height."""

    @property
    def K_cam(self) -> np.ndarray:
        fy = self.focal_px * self.height / (0.75 * self.width)
        return np.array([[self.focal_px, 0, self.width / 2], [0, fy, self.height / 2], [0, 0, 1]])


SCENES = {
    FIRST: Filmed(seed=51, duration_s=3.2),
    WHOLE: Filmed(seed=52, duration_s=1.6),
    STRETCHED: Filmed(seed=53, duration_s=1.6, height=246),
}


def write(root: Path) -> Written:
    """Two episodes of one video, one of a whole video with the right hand alone, one whose video was cut to it."""
    write_scene(root / f"videos/{LONG}.mp4", SCENES[FIRST])
    write_scene(root / f"videos/P01/videos/{EPIC}.MP4", SCENES[WHOLE])
    write_scene(root / f"videos/{CUT}.mp4", SCENES[STRETCHED])
    text = {"left": "Hold the bowl.", "right": "Pick up the spoon"}
    save(root, FIRST, episode(SCENES[FIRST], LONG, range(45), text=text))
    later = episode(SCENES[FIRST], LONG, range(48, 93), text={"right": "Stir."}, lost=range(20, 23))
    save(root, SECOND, later)
    save(
        root,
        WHOLE,
        episode(SCENES[WHOLE], EPIC, range(48), text={"right": "Wave."}, sides=("right",)),
    )
    save(root, STRETCHED, episode(SCENES[STRETCHED], CUT, range(300, 348), from_frame=300))
    half = replace(SCENES[FIRST], duration_s=1.5)  # the scene is exact at any time
    scenes = {**SCENES, FIRST: half, SECOND: half}
    return Written(root=root, scenes=scenes, t0_s={SECOND: 48 / RATE_HZ})


def save(root: Path, name: str, value: object) -> Path:
    """As `numpy.save` does with a dict: one pickled object."""
    path = root / f"{name}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


def episode(
    scene: HandScene,
    video: str,
    frames: range,
    *,
    from_frame: int = 0,
    sides: tuple[str, ...] = ("left", "right"),
    lost: range | tuple[int, ...] = (),
    text: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`from_frame`: the one that shows the scene's start. The right hand is not kept in rows `lost`; `sides` are there at all."""
    t_s = [(k - from_frame) / RATE_HZ for k in frames]
    T_cam_world = np.array([np.linalg.inv(scene.T_world_cam(t)) for t in t_s])
    K = scene.K_cam
    K[0] *= FULL
    K[1] *= FULL * 0.75 * scene.width / scene.height
    return {
        "video_clip_id_segment": np.full(len(frames), 19),
        "extrinsics": T_cam_world,
        "intrinsics": K,
        "video_decode_frame": np.array(frames),
        "video_name": video,
        "avg_speed": np.float64(0.029),
        "total_rotvec_degree": np.float64(44.1),
        "total_transl_dist": np.float64(0.226),
        "anno_type": "right",
        **texts(text or {"right": "Pick up the spray bottle."}, len(frames)),
        **{
            side: hand(scene, t_s, side, T_cam_world, lost if side == "right" else ())
            if side in sides
            else no_hand(len(frames))
            for side in ("left", "right")
        },
    }


def texts(text: Mapping[str, str], count: int) -> dict[str, Any]:
    """For the whole episode; a hand without a text has one over an empty range, as in the example."""
    spans = {
        side: (0, np.int64(count) if side in text else np.int64(0)) for side in ("left", "right")
    }
    words = {side: text.get(side, "Pick up a brush.") for side in spans}
    again = {side: [w.rstrip("."), f" Now {w.rstrip('.').lower()}"] for side, w in words.items()}
    return {
        "text": {side: [(words[side], spans[side])] for side in spans},
        "text_rephrase": {side: [(again[side], spans[side])] for side in spans},
    }


def hand(
    scene: HandScene,
    t_s: list[float],
    side: str,
    T_cam_world: np.ndarray,
    lost: range | tuple[int, ...],
) -> dict[str, Any]:
    T = np.array([scene.T_world_wrist(t, side) for t in t_s])
    joints = np.array([scene.joints_world(t, side) for t in t_s])
    fingers = np.array([finger_rotvec(scene, t, side) for t in t_s])
    fingers = fingers * MIRROR_ROTVEC if side == "left" else fingers  # data.md: based on MANO_RIGHT
    rotations = np.array([[cv2.Rodrigues(r)[0] for r in row] for row in fingers])
    kept = np.ones(len(t_s), dtype=np.int64)
    kept[list(lost)] = 0
    joints[kept == 0] = np.nan
    in_cam = np.einsum("nab,njb->nja", T_cam_world[:, :3, :3], joints) + T_cam_world[:, None, :3, 3]
    return {
        "beta": np.zeros(10),
        "global_orient_camspace": T_cam_world[:, :3, :3] @ T[:, :3, :3],
        "global_orient_worldspace": T[:, :3, :3],
        "hand_pose": rotations,
        "transl_camspace": np.zeros((len(t_s), 3)),
        "transl_worldspace": T[:, :3, 3],
        "kept_frames": kept,
        "joints_camspace": in_cam.astype(np.float32),
        "joints_worldspace": joints,
        "wrist": np.zeros((len(t_s), 1, 3), np.float32),
        "max_translation_movement": np.float64(0.08),
    }


def no_hand(count: int) -> dict[str, Any]:
    """Zeros and identities, kept nowhere."""
    return {
        "beta": np.zeros(10),
        "global_orient_camspace": np.tile(np.eye(3), (count, 1, 1)),
        "global_orient_worldspace": np.tile(np.eye(3), (count, 1, 1)),
        "hand_pose": np.tile(np.eye(3), (count, 15, 1, 1)),
        "transl_camspace": np.zeros((count, 3)),
        "transl_worldspace": np.zeros((count, 3)),
        "kept_frames": np.zeros(count, dtype=np.int64),
        "joints_camspace": np.zeros((count, 21, 3), np.float32),
        "joints_worldspace": np.zeros((count, 21, 3)),
        "wrist": np.zeros((count, 1, 3), np.float32),
        "max_translation_movement": None,
    }
