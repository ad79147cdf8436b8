"""InternData-A1 as lmdb2lerobotv21 writes it: poses x y z + quaternion w x y z of the ee and of the tcp, to arm base and robot.

actions.* is the next state, its last row repeated; master_actions.* is the planner's. The head camera's extrinsics of the
one-armed sets are the hand camera's (a bug of the converter): nonsense is written there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import fixed, xyz_quat
from jobs.demo.raw.scene import Scene, rigid_transform
from tests.generators.lerobot_set import Set, arm_joints, feature, in_frame, picture

FPS = 30
TEXT = "Put the red box into the tray."
# robot -> sides, joints, robot_type of the converter, width of the gripper in m, [R, p] of the hand in the ee frame
ROBOTS = {
    "lift2": (("left_", "right_"), 6, "ARX Lift-2", 0.088, np.eye(3), (0.16157, 0, 0)),
    "split_aloha": (
        ("left_", "right_"),
        6,
        "AgileX Split Aloha",
        0.10,
        np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]]),
        (0, 0, 0.135),
    ),
    "genie1": (
        ("left_", "right_"),
        7,
        "piper",
        2.0,
        np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]),
        (0, 0, 0.22),
    ),
    "franka": (
        ("",),
        7,
        "piper",
        0.08,
        np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]]),
        (0, 0, 0.1034),
    ),
    "frankarobotiq": (("",), 7, "Franka", 1.0, np.eye(3), (0, 0, 0.145)),
}
# Where the arm stands in the robot's frame: another pose than the ee's to the robot, so that they cannot be confused.
ARM_BASE = rigid_transform(np.eye(3), [0.163, 0.248, 0.694])


def write(
    root: Path, *, robot: str = "lift2", robot_type: str | None = None, pictures: bool = True
) -> Written:
    """Two episodes a little longer than the converter's 100 steps."""
    prefixes, dof, said, width_m, R, p = ROBOTS[robot]
    sides = tuple(prefix.rstrip("_") or "left" for prefix in prefixes)
    size = (360, 640) if robot != "frankarobotiq" else (480, 640)
    small = {
        "width": size[1] // 4,
        "height": size[0] // 4,
    }  # the files, for speed; info.json says the real size
    scenes = {
        n: Scene(seed=n, duration_s=3.5 + 0.2 * n, sides=sides, focal_px=150, **small)
        for n in range(2)
    }

    def rows(index: int, scene: Scene, n: int) -> dict[str, pa.Array]:
        t_s = np.arange(n) / FPS
        out: dict[str, np.ndarray] = {}
        for prefix, side in zip(prefixes, sides, strict=True):
            ee = [in_frame(scene, side, t, R, p) for t in t_s]
            opening = np.array([[scene.gripper_opening(t)] for t in t_s])
            told = np.array([[float(scene.gripper_opening(t + 1 / FPS) > 0.5)] for t in t_s])
            if robot == "frankarobotiq":
                opening = (opening > 0.5).astype(float)
            state = {
                f"{prefix}joint.position": arm_joints(n, dof, phase=index),
                f"{prefix}gripper.position": opening * width_m,
                f"{prefix}ee_to_{prefix}armbase_pose": _wxyz(np.linalg.inv(ARM_BASE) @ ee),
                f"{prefix}ee_to_robot_pose": _wxyz(ee),
                f"{prefix}tcp_to_robot_pose": _wxyz(ee @ rigid_transform(np.eye(3), [0, 0, 0.095])),
            }
            out |= {f"states.{k}": v for k, v in state.items()}
            out |= {f"actions.{k}": np.concatenate([v[1:], v[-1:]]) for k, v in state.items()}
            out[f"master_actions.{prefix}joint.position"] = arm_joints(n, dof, phase=index + 0.02)
            out[f"master_actions.{prefix}gripper.position"] = opening * width_m
            out[f"master_actions.{prefix}gripper.openness"] = told
        out["states.robot_to_env_pose"] = _wxyz([np.eye(4)] * n)
        for name in _cameras(prefixes):
            centre = [600.0, 600.0, (size[1] - 1) / 2, (size[0] - 1) / 2]
            out[f"{name}_camera_intrinsics"] = np.tile(centre, (n, 1))
            out[f"{name}_camera_to_robot_extrinsics"] = np.full((n, 7), 9.0)
        return {
            k: fixed(v) if v.shape[1] > 1 else pa.array(v[:, 0], pa.float32())
            for k, v in out.items()
        }

    features = {
        k: feature("float32", 1 if pa.types.is_floating(v.type) else v.type.list_size)
        for k, v in rows(0, scenes[0], 2).items()
    }
    return Set(
        scenes=scenes,
        fps=FPS,
        robot_type=said if robot_type is None else robot_type,
        features=features,
        cameras={f"images.rgb.{name}": picture(*size) for name in _cameras(prefixes)},
        rows=rows,
        tasks=[{"task_index": 0, "task": TEXT}],
        episode=lambda _index, _n: {"tasks": [TEXT]},
        pictures=pictures,
    ).write(root, root.name)


def _wxyz(poses: np.ndarray | list[np.ndarray]) -> np.ndarray:
    return np.stack([xyz_quat(T, "wxyz") for T in poses])


def _cameras(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    return ("head", "hand") if prefixes == ("",) else ("head", "hand_left", "hand_right")
