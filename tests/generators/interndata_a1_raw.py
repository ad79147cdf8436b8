"""InternData-A1 in its raw layout: one LMDB and one meta_info.pkl per episode, written as the engine's logger does."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.scene import Scene, rigid_transform, rot_z

RATE_HZ = 30
GL = np.diag([1.0, -1.0, -1.0, 1.0])
T_ENV_ROBOT = rigid_transform(rot_z(np.pi / 2), [0.4, -0.3, 0.75])
# The canonical axes as columns in source axes, and the grasp centre: panda_link8 and lift2's link6.
HALF = np.sqrt(0.5)
T_SRC_HAND = {
    "franka": rigid_transform(
        np.array([[0, -HALF, HALF], [0, -HALF, -HALF], [1, 0, 0]]), [0, 0, 0.1034]
    ),
    "lift2": rigid_transform(np.eye(3), [0.16157, 0, 0]),
}
ARM_BASES = {
    "left": [0.163030156, 0.248420062, 0.694000185],
    "right": [0.163030139, -0.248420087, 0.694000185],
}
OPEN_M = {"franka": 0.08, "lift2": 0.088}
Columns = dict[str, Any]


def write(root: Path) -> Written:
    """A Franka and a Lift-2 with two arms; 2 s each."""
    one = Scene(seed=0, width=320, height=240)
    two = Scene(seed=1, width=320, height=240, sides=("left", "right"))
    scenes = {
        "franka/Pick_up_the_cup/set1_collector1/2025-07-15_10_00_00_000001": one,
        "lift2/Sort_the_rubbish/set1_collector1/2025-07-16_09_00_00_000002": two,
    }
    for name, scene in scenes.items():
        columns = columns_of(scene, name.partition("/")[0])
        write_episode(root / name, columns, pictures_of(scene, columns))
    return Written(root=root, scenes=scenes)


def columns_of(scene: Scene, robot: str = "franka") -> Columns:
    """Lists with one item a step. Commands are where the scene will be one step later; openness is 1 or 0."""
    count = round(scene.duration_s * RATE_HZ)
    now, then = np.arange(count) / RATE_HZ, np.arange(1, count + 1) / RATE_HZ
    columns: Columns = {"T_world_base": [T_ENV_ROBOT.copy() for _ in now]}
    columns["camera2env_pose.head"] = [T_ENV_ROBOT @ scene.T_base_cam @ GL for _ in now]
    columns["json_data"] = {"head_camera_params": scene.K_cam.tolist()}
    for side in scene.sides:
        prefix = "" if scene.sides == ("left",) else f"{side}_"
        num_joints = 7 if robot == "franka" else 6
        joints = [0.5 * np.sin(t + np.arange(num_joints)) for t in (*now, then[-1])]
        widths = [np.array([OPEN_M[robot] * scene.gripper_opening(t)]) for t in (*now, then[-1])]
        opens = [float(scene.gripper_opening(t) > 0.5) for t in then]
        columns[f"states.{prefix}joint.position"] = joints[:-1]
        columns[f"states.{prefix}gripper.position"] = widths[:-1]
        columns[f"master_actions.{prefix}joint.position"] = joints[1:]
        columns[f"master_actions.{prefix}gripper.position"] = widths[1:]
        columns[f"master_actions.{prefix}gripper.openness"] = opens
        if robot == "franka":
            columns["states.gripper.pose"] = [six(source_pose(scene, robot, t, side)) for t in now]
            columns["master_actions.gripper.pose"] = [
                six(source_pose(scene, robot, t, side)) for t in then
            ]
        else:
            to_arm = np.linalg.inv(rigid_transform(np.eye(3), ARM_BASES[side]))
            columns[f"T_base_ee_f{side[0]}"] = [
                to_arm @ source_pose(scene, robot, t, side) for t in now
            ]
    states = {k: v for k, v in columns.items() if k.startswith("states.")}
    for key, rows in states.items():
        columns[key.replace("states.", "actions.")] = [*rows[1:], rows[-1]]
    return columns


def source_pose(scene: Scene, robot: str, t_s: float, side: str) -> np.ndarray:
    return scene.T_base_hand(t_s, side) @ np.linalg.inv(T_SRC_HAND[robot])


def six(T: np.ndarray) -> np.ndarray:
    return np.r_[T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_euler("xyz")]


def pictures_of(scene: Scene, columns: Columns) -> dict[str, list[np.ndarray]]:
    count = len(columns["camera2env_pose.head"])
    return {"head": [scene.picture(k / RATE_HZ) for k in range(count)]}


def write_episode(
    folder: Path,
    columns: Columns,
    pictures: dict[str, list[np.ndarray]],
    *,
    steps: Iterable[int] | None = None,
    **changes: Any,
) -> None:
    """`steps` are those that have pictures (all); `changes` are members of meta_info.pkl."""
    (folder / "lmdb").mkdir(parents=True)
    meta: dict[str, Any] = {
        "keys": {"scalar_data": [key.encode() for key in columns]},
        "max_size": 1 << 40,
        "language_instruction": "Pick up the cup.",
        "detailed_language_instruction": "Pick up the cup with the left gripper.",
        "tpi_initial_info": {},
        "image_valid_step_ids": {},
        "num_steps": len(next(v for k, v in columns.items() if k.startswith("states."))),
    }
    with (
        lmdb.open(str(folder / "lmdb"), map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in columns.items():
            transaction.put(key.encode(), pickle.dumps(value))
        for camera, images in pictures.items():
            at = list(steps) if steps is not None else list(range(len(images)))
            keys = [f"images.rgb.{camera}/{step:04d}".encode() for step in at]
            meta["keys"][f"images.rgb.{camera}"] = keys
            for key, image in zip(keys, images, strict=True):
                # RGB handed to an encoder that takes BGR, as the logger does.
                transaction.put(key, pickle.dumps(cv2.imencode(".jpg", image)[1]))
    (folder / "meta_info.pkl").write_bytes(pickle.dumps({**meta, **changes}))
