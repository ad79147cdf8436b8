"""robomimic and LIBERO files in their true layout: many demonstrations in one HDF5.

The scene's hand is turned into robosuite's pair of frames: the position is the hand's own origin, the rotation that of the body
right_hand (z along the fingers, x up, y across), written out here.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene

RATE_HZ = 20
R_HAND_BODY = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], dtype=float).T  # columns: body axes
ENV = {
    "env_name": "Lift",
    "env_version": "1.4.1",
    "type": 1,
    "env_kwargs": {
        "robots": ["Panda"],
        "control_freq": RATE_HZ,
        "controller_configs": {"type": "OSC_POSE", "control_delta": True},
    },
}


def write(root: Path) -> Written:
    """A robomimic file with demonstrations 2 and 10, and a LIBERO file with one; 2 s each."""
    scenes = {f"lift/image/demo_{k}": Scene(seed=k, width=96, height=72) for k in (2, 10)}
    with robomimic_file(root / "lift" / "image.hdf5") as file:
        for name, scene in scenes.items():
            add_demo(file, name.rpartition("/")[2], scene)
        file["mask/train"] = np.array([b"demo_2"])
        file["mask/better"] = np.array([b"demo_2", b"demo_10"])
    libero = Scene(seed=3, width=96, height=72)
    with libero_file(root / "libero_goal" / "KITCHEN_SCENE2_open_the_drawer_demo.hdf5") as file:
        add_libero_demo(file, "demo_0", libero)
    scenes["libero_goal/KITCHEN_SCENE2_open_the_drawer_demo/demo_0"] = libero
    return Written(root=root, scenes=scenes)


def robomimic_file(path: Path, env: dict[str, object] = ENV) -> h5py.File:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = h5py.File(path, "w")
    file.create_group("data").attrs["env_args"] = json.dumps(env)
    return file


def libero_file(path: Path, *, is_original: bool = True) -> h5py.File:
    file = robomimic_file(path)
    if is_original:
        env = {**ENV, "env_name": "Libero_Kitchen_Tabletop_Manipulation"}
        file["data"].attrs["env_args"] = json.dumps(env)
        file["data"].attrs["macros_image_convention"] = "opengl"
        info = {"problem_name": "x", "language_instruction": "open the drawer"}
        file["data"].attrs["problem_info"] = json.dumps(info)
    else:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Libero_Kitchen"})
    return file


def body_poses(scene: Scene, t_s: np.ndarray, side: str = "left") -> np.ndarray:
    T = np.array([scene.T_base_hand(t, side) for t in t_s])
    T[:, :3, :3] = T[:, :3, :3] @ R_HAND_BODY
    return T


def qpos(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    half = np.array([0.04 * scene.gripper_opening(t) for t in t_s])
    return np.column_stack([half, -half])


def actions(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    """Six deltas and the gripper: +1 while it should be closed."""
    grip = np.array([1.0 if scene.gripper_opening(t + 0.2) < 0.5 else -1.0 for t in t_s])
    return np.column_stack([0.1 * np.sin(t_s[:, None] + np.arange(6)), grip])


def add_demo(file: h5py.File, name: str, scene: Scene, *, with_pictures: bool = True) -> None:
    """One or two arms, as the scene has sides."""
    t_s = np.arange(round(scene.duration_s * RATE_HZ)) / RATE_HZ
    demo = file.create_group(f"data/{name}")
    demo.attrs["num_samples"] = len(t_s)
    demo.attrs["model_file"] = "<mujoco/>"
    demo["actions"] = np.hstack([actions(scene, t_s)] * len(scene.sides))
    demo["states"] = np.zeros((len(t_s), 5))
    demo["rewards"] = np.r_[np.zeros(len(t_s) - 1), 1.0]
    demo["dones"] = np.r_[np.zeros(len(t_s) - 1), 1].astype(np.int64)
    for k, side in enumerate(scene.sides):
        T = body_poses(scene, t_s, side)
        demo[f"obs/robot{k}_eef_pos"] = T[:, :3, 3]
        demo[f"obs/robot{k}_eef_quat"] = Rotation.from_matrix(T[:, :3, :3]).as_quat()
        demo[f"obs/robot{k}_gripper_qpos"] = qpos(scene, t_s)
        demo[f"obs/robot{k}_joint_pos"] = 0.5 * np.sin(t_s[:, None] + np.arange(7))
    demo["obs/object"] = np.zeros((len(t_s), 10))
    if with_pictures:
        demo["obs/agentview_image"] = np.array([scene.picture(t) for t in t_s])


def add_libero_demo(file: h5py.File, name: str, scene: Scene) -> None:
    """Rows are seen AFTER their action: row k at (k + 1) / 20 s; pictures bottom row first."""
    num_rows = round(scene.duration_s * RATE_HZ)
    issue_s, seen_s = np.arange(num_rows) / RATE_HZ, np.arange(1, num_rows + 1) / RATE_HZ
    demo = file.create_group(f"data/{name}")
    demo.attrs["num_samples"] = num_rows
    T = body_poses(scene, seen_s)
    rotvec = Rotation.from_matrix(T[:, :3, :3]).as_rotvec()
    demo["actions"] = actions(scene, issue_s)
    demo["robot_states"] = np.zeros((num_rows, 9))
    demo["rewards"] = np.r_[np.zeros(num_rows - 1), 1].astype(np.uint8)
    demo["dones"] = np.r_[np.zeros(num_rows - 1), 1].astype(np.uint8)
    demo["obs/ee_pos"], demo["obs/ee_ori"] = T[:, :3, 3], rotvec
    demo["obs/ee_states"] = np.hstack([T[:, :3, 3], rotvec])
    demo["obs/gripper_states"] = qpos(scene, seen_s)
    demo["obs/joint_states"] = 0.5 * np.sin(seen_s[:, None] + np.arange(7))
    demo["obs/agentview_rgb"] = np.array([scene.picture(t)[::-1] for t in seen_s])
