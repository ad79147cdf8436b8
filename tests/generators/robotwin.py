"""RoboTwin 2.0 files in both of their layouts: JPEG with red and blue swapped, OpenGL camera poses, wxyz quaternions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

RATE_HZ = 250 / 15
BEHIND_M = 0.12  # the recorded pose lies so far behind the grasp centre, along its x
SIDES = ("left", "right")


def write(root: Path) -> Written:
    """Two episodes of the legacy layout, one of the current one; 2 s each."""
    scenes: dict[str, Scene] = {}
    for seed, number in enumerate((2, 10)):
        scene = Scene(seed=seed, sides=SIDES, width=96, height=72, focal_px=90.0)
        write_legacy(root / "stack_blocks/aloha-agilex_clean_50", number, scene)
        scenes[f"stack_blocks/aloha-agilex_clean_50/episode{number}"] = scene
    scene = Scene(seed=2, sides=SIDES, width=96, height=72, focal_px=90.0)
    write_current(root / "demo_clean/adjust_bottle/aloha_agilex", 3, scene)
    scenes["demo_clean/adjust_bottle/aloha_agilex/episode_0000003"] = scene
    return Written(root=root, scenes=scenes)


def times_s(scene: Scene) -> np.ndarray:
    return np.arange(int(scene.duration_s * RATE_HZ) + 1) / RATE_HZ


def endposes(scene: Scene, t_s: np.ndarray, side: str) -> np.ndarray:
    """[T, 7] xyz and quaternion wxyz."""
    T = np.array([scene.T_base_hand(t, side) for t in t_s])
    position = T[:, :3, 3] - BEHIND_M * T[:, :3, 0]
    quat_xyzw = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    return np.hstack([position, quat_xyzw[:, [3, 0, 1, 2]]])


def arm(t_s: np.ndarray) -> np.ndarray:
    return 0.5 * np.sin(t_s[:, None] + np.arange(6))


def openings(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    return np.array([scene.gripper_opening(t) for t in t_s])


def jpegs(pictures: list[np.ndarray]) -> np.ndarray:
    """As the recorder does: RGB handed to an encoder that takes BGR, then fixed-length strings."""
    coded = [cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for p in pictures]
    return np.array(coded, dtype=f"S{max(map(len, coded))}")


def cam2world_gl(scene: Scene) -> np.ndarray:
    """The scene's camera with y up and z backward: second and third axis turned round."""
    T = scene.T_base_cam.copy()
    T[:3, 1:3] *= -1
    return T


def world2cam_cv(scene: Scene) -> np.ndarray:
    """[3, 4], OpenCV axes."""
    R, p = scene.T_base_cam[:3, :3], scene.T_base_cam[:3, 3]
    return np.hstack([R.T, -(R.T @ p)[:, None]])


def write_legacy(config: Path, number: int, scene: Scene) -> Path:
    t_s = times_s(scene)
    path = config / "data" / f"episode{number}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        vector = []
        for side in SIDES:
            file[f"joint_action/{side}_arm"] = arm(t_s)
            file[f"joint_action/{side}_gripper"] = openings(scene, t_s)
            file[f"endpose/{side}_endpose"] = endposes(scene, t_s, side)
            file[f"endpose/{side}_gripper"] = openings(scene, t_s)
            vector += [arm(t_s), openings(scene, t_s)[:, None]]
        file["joint_action/vector"] = np.hstack(vector)
        file["pointcloud"] = np.zeros((len(t_s), 0))
        camera = file.create_group("observation/head_camera")
        camera["rgb"] = jpegs([scene.picture(t) for t in t_s])
        camera["intrinsic_cv"] = np.tile(scene.K_cam, (len(t_s), 1, 1))
        camera["cam2world_gl"] = np.tile(cam2world_gl(scene), (len(t_s), 1, 1))
        camera["extrinsic_cv"] = np.tile(world2cam_cv(scene), (len(t_s), 1, 1))
    texts = {
        "seen": ["Put the red box on the blue one.", "Stack red on blue."],
        "unseen": ["Pile."],
    }
    write_json(config / "instructions" / f"episode{number}.json", texts)
    return path


def write_current(config: Path, number: int, scene: Scene, *, steps: int = 15) -> Path:
    """Rows of `action` are those of `state` one later; the last one recorded has no state."""
    t_s = times_s(scene)
    path = config / "data" / f"episode_{number:07d}.hdf5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["source_format"] = "RoboTwin"
        file["data_format_version"] = "v1.0"
        file["instructions"] = json.dumps(["Turn the bottle upright.", "Adjust the bottle."])
        file["additional_info/frequency"] = np.int32(steps)
        for group, rows in (("state", slice(None, -1)), ("action", slice(1, None))):
            for side in SIDES:
                file[f"{group}/{side}_arm_joint_states"] = np.float32(arm(t_s)[rows])
                file[f"{group}/{side}_ee_joint_states"] = np.float32(
                    openings(scene, t_s)[rows, None]
                )
                file[f"{group}/{side}_ee_poses"] = np.float32(endposes(scene, t_s, side)[rows])
        camera = file.create_group("vision/cam_head")
        camera["colors"] = jpegs([scene.picture(t) for t in t_s[:-1]])
        camera["shape"] = np.int32([scene.height, scene.width, 3])
        camera["intrinsic_matrix"] = np.tile(scene.K_cam, (len(t_s) - 1, 1, 1))
        camera["extrinsics_matrix"] = np.tile(cam2world_gl(scene), (len(t_s) - 1, 1, 1))
    texts = {"seen": ["Turn the bottle upright."], "unseen": ["Right the bottle."]}
    write_json(config / "instruction" / f"episode_{number:07d}.json", texts)
    return path


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))
