"""DROID raw in its true layout: trajectory.h5, metadata JSON and one MP4 per camera.

The scene's hand is turned into panda_link8 by the registry's constant, written out here.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene, rigid_transform

RATE_HZ = 15
# z of link8 along the fingers, x forward: the canonical axes as columns, grasp centre 0.16 m out.
R_SRC_HAND = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], dtype=float)
TCP_M = 0.16
T_LINK8_WRISTCAM = rigid_transform(np.eye(3), [0.07, 0.0, 0.03])
START_MS = 1_690_000_000_123
SERIALS = {"wrist": "17368348", "ext1": "23007103", "ext2": "29431508"}


def write(root: Path) -> Written:
    """Two labs, one success and one failure, 2 s each."""
    scenes = {}
    names = ("AUTOLab/success", "IRIS/failure")
    for seed, place in enumerate(names):
        name = f"{place}/2023-07-07/Fri_Jul__7_09:42:2{seed}_2023"
        scenes[name] = Scene(seed=seed, width=160, height=120)
        write_episode(root / name, scenes[name], capture_ms=0)
    return Written(root=root, scenes=scenes, position_tolerance_m=3e-4)


def xyzrpy(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    T_hand_src = np.linalg.inv(rigid_transform(R_SRC_HAND, [0, 0, TCP_M]))
    return rows6(np.array([scene.T_base_hand(t) @ T_hand_src for t in t_s]))


def rows6(T: np.ndarray) -> np.ndarray:
    return np.hstack([T[:, :3, 3], Rotation.from_matrix(T[:, :3, :3]).as_euler("xyz")])


def write_episode(
    folder: Path,
    scene: Scene,
    *,
    extra_pictures: int = 1,
    capture_ms: int = 20,
    with_metadata: bool = True,
    cameras: tuple[str, ...] = ("wrist", "ext1"),
) -> None:
    """`extra_pictures`: the look that ends the episode gets a picture but no row; `capture_ms`: how long before a row."""
    num_rows = round(scene.duration_s * RATE_HZ)
    t_s = np.round(np.arange(num_rows) / RATE_HZ * 1000) / 1000  # clocks are in whole milliseconds
    recordings = folder / "recordings" / "MP4"
    recordings.mkdir(parents=True)
    with h5py.File(folder / "trajectory.h5", "w") as file:
        fill(file, scene, t_s, capture_ms)
        file.attrs["success"] = "success" in folder.parts
        file.attrs["current_task"] = "Move object into or out of container"
        file.attrs["building"] = "Tan Hall"
    for camera in cameras:
        path = recordings / f"{SERIALS[camera]}.mp4"
        write_video(path, scene, t_s - capture_ms / 1000, extra_pictures)
    if with_metadata:
        record = {
            "uuid": "AUTOLab+84bd5053+2023-07-07-09h-42m-23s",
            "lab": "AUTOLab",
            "user": "somebody",
            "user_id": "84bd5053",
            "current_task": "Put the marker in the mug",
            "building": "Tan Hall",
            "scene_id": 1234,
            "success": "success" in folder.parts,
            "trajectory_length": num_rows,
            **{f"{name}_cam_serial": serial for name, serial in SERIALS.items()},
        }
        (folder / "metadata_AUTOLab+84bd5053.json").write_text(json.dumps(record))


def fill(file: h5py.File, scene: Scene, t_s: np.ndarray, capture_ms: int) -> None:
    next_s = t_s + 1 / RATE_HZ
    state, commanded = xyzrpy(scene, t_s), xyzrpy(scene, next_s)
    opening = np.array([scene.gripper_opening(t) for t in t_s])
    now_ms = START_MS + np.round(t_s * 1000).astype(np.int64)
    robot = "observation/robot_state"
    file[f"{robot}/cartesian_position"] = state
    file[f"{robot}/gripper_position"] = 1 - opening
    file[f"{robot}/joint_positions"] = 0.5 * np.sin(t_s[:, None] + np.arange(7))
    file["action/cartesian_position"] = commanded
    file["action/cartesian_velocity"] = np.tile(0.1 * np.arange(6), (len(t_s), 1))
    file["action/gripper_position"] = np.array([1 - scene.gripper_opening(t) for t in next_s])
    file["action/gripper_velocity"] = np.zeros(len(t_s))
    file["observation/timestamp/robot_state/read_start"] = now_ms
    # The robot's own computer is two hours off: nothing may depend on it.
    file["observation/timestamp/robot_state/robot_timestamp_seconds"] = now_ms // 1000 - 7200
    file["observation/timestamp/robot_state/robot_timestamp_nanos"] = now_ms % 1000 * 1_000_000
    file["observation/controller_info/movement_enabled"] = np.ones(len(t_s), dtype=bool)
    wrist = np.array([T @ T_LINK8_WRISTCAM for T in matrices(state)])
    for name, serial in SERIALS.items():
        T = wrist if name == "wrist" else np.tile(scene.T_base_cam, (len(t_s), 1, 1))
        file[f"observation/camera_extrinsics/{serial}_left"] = rows6(T)
        file[f"observation/camera_type/{serial}"] = np.full(len(t_s), 0 if name == "wrist" else 1)
        file[f"observation/timestamp/cameras/{serial}_estimated_capture"] = now_ms - capture_ms
        if name == "ext1":
            K = np.tile(scene.K_cam, (len(t_s), 1, 1))
            file[f"observation/camera_intrinsics/{serial}_left"] = K


def matrices(rows: np.ndarray) -> np.ndarray:
    R = Rotation.from_euler("xyz", rows[:, 3:]).as_matrix()
    return np.array([rigid_transform(r, p) for r, p in zip(R, rows[:, :3], strict=True)])


def write_video(path: Path, scene: Scene, t_s: np.ndarray, extra: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE_HZ, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        for t in (*t_s, *[t_s[-1]] * extra)[: len(t_s) + extra]:
            picture = av.VideoFrame.from_ndarray(scene.picture(t), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
