"""ALOHA in its true layout: one HDF5 per episode, raw pictures or padded JPEG rows."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

RATE_HZ = 50


def write(root: Path) -> Written:
    """Two tasks: two episodes with raw pictures, one compressed; 2 s each."""
    scenes: dict[str, Scene] = {}
    for seed, name in enumerate(("lift_box/episode_0", "lift_box/episode_10", "stack/episode_2")):
        scene = Scene(seed=seed, sides=("left", "right"), width=160, height=120)
        write_episode(root / f"{name}.hdf5", scene, compress=seed == 2)
        scenes[name] = scene
    return Written(root=root, scenes=scenes)


def rows(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    """[T, 14]: per arm six joints sin(t + k) and the gripper's opening."""
    arm = np.column_stack([np.sin(t_s + k) for k in range(6)])
    opening = np.array([[scene.gripper_opening(t)] for t in t_s])
    return np.hstack([arm, opening, arm + 1, opening])


def write_episode(
    path: Path, scene: Scene, *, compress: bool = False, mobile: bool = False
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    t_s = np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ
    pictures = np.array([scene.picture(t) for t in t_s])
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = not (compress or mobile)
        file["action"] = rows(scene, t_s + 1 / RATE_HZ).astype(np.float32)
        file["observations/qpos"] = rows(scene, t_s).astype(np.float32)
        file["observations/qvel"] = np.zeros((len(t_s), 14), np.float32)
        if mobile:
            file["base_action"] = np.tile(np.float32([0.5, -0.25]), (len(t_s), 1))
        if not compress:
            file.create_dataset(
                "observations/images/cam_high", data=pictures, chunks=(1, *pictures.shape[1:])
            )
            return
        file.attrs["compress"] = True
        # As the recorder does: RGB handed to an encoder that takes BGR, then zeros up to the longest row.
        coded = [cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for p in pictures]
        longest = max(len(c) for c in coded)
        padded = np.array([np.pad(c, (0, longest - len(c))) for c in coded], np.uint8)
        file["observations/images/cam_high"] = padded
        file["compress_len"] = np.array([[len(c) for c in coded]], np.float64)
