"""Galaxea Open-World as its toolkit writes it: split float64 list columns, poses x y z + quaternion x y z w, gripper 0..100.

R1 Lite (6 joints, no pose commands) or R1 Pro (7, with them). The pose frame is hand_xfz itself (axes identity, origin at the
link). Merged sets point into tasks.jsonl by four columns; a row without a fine annotation points to the text "null".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import xyz_quat
from jobs.demo.raw.scene import Scene
from tests.generators.lerobot_set import Set, arm_joints, feature, picture

FPS = 15
SIDES = ("left", "right")
# coarse, fine as Chinese@English, no annotation, and the two labels of quality
TASKS = ("clean the table", "拿起红色方块@Pick up the red box", "null", "qualified", "unqualified")
CAMERAS = ("head_rgb", "left_wrist_rgb")


def write(
    root: Path, *, robot: str = "r1lite", is_merged: bool = True, pictures: bool = True
) -> Written:
    """Two episodes of about 2 s; `robot` r1lite or r1pro."""
    dof = 6 if robot == "r1lite" else 7
    scenes = {
        n: Scene(seed=n, duration_s=2.0 + 0.2 * n, sides=SIDES, width=192, height=144, focal_px=180)
        for n in range(2)
    }

    def rows(index: int, scene: Scene, n: int) -> dict[str, pa.Array]:
        t_s = np.arange(n) / FPS
        out: dict[str, object] = {
            "observation.state.chassis.imu": np.zeros((n, 10)),
            "observation.state.chassis": np.zeros((n, 3)),
            "observation.state.torso": arm_joints(n, 4),
        }
        for side in SIDES:
            out[f"observation.state.{side}_arm"] = arm_joints(n, dof, phase=index)
            out[f"observation.state.{side}_ee_pose"] = _poses(scene, side, t_s)
            out[f"observation.state.{side}_gripper"] = _grippers(scene, t_s)
            out[f"action.{side}_arm"] = arm_joints(n, dof, phase=index + 0.02)
            out[f"action.{side}_gripper"] = _grippers(scene, t_s + 1 / FPS)
            if robot == "r1pro":
                out[f"action.{side}_ee_pose"] = _poses(scene, side, t_s + 1 / FPS)
        columns = {k: pa.array(np.asarray(v).tolist()) for k, v in out.items()}
        fine = np.where(np.arange(n) < n // 2, 1, 2)  # the second half has no annotation
        index_columns = {"task_index": pa.array(fine)}
        if is_merged:
            index_columns["coarse_task_index"] = pa.array(np.zeros(n, dtype=np.int64))
            index_columns["quality_index"] = pa.array(np.full(n, 3))
            index_columns["coarse_quality_index"] = pa.array(np.full(n, 3))
        return columns | index_columns

    return Set(
        scenes=scenes,
        fps=FPS,
        robot_type=robot,
        features=_features(robot, dof, is_merged),
        cameras={f"observation.images.{c}": picture(144, 192) for c in CAMERAS},
        rows=rows,
        tasks=[{"task_index": i, "task": text} for i, text in enumerate(TASKS)],
        episode=lambda _index, _n: {"tasks": [TASKS[0], TASKS[1], "null", "qualified"]},
        pictures=pictures,
    ).write(root, root.name)


def _poses(scene: Scene, side: str, t_s: np.ndarray) -> np.ndarray:
    return np.stack([xyz_quat(scene.T_base_hand(t, side), "xyzw") for t in t_s])


def _grippers(scene: Scene, t_s: np.ndarray) -> np.ndarray:
    return 100 * np.array([scene.gripper_opening(t) for t in t_s])


def _features(robot: str, dof: int, is_merged: bool) -> dict[str, object]:
    out = {
        "observation.state.chassis.imu": feature("float64", 10),
        "observation.state.chassis": feature("float64", 3),
        "observation.state.torso": feature("float64", 4),
    }
    for side in SIDES:
        for group in ("observation.state", "action"):
            out[f"{group}.{side}_arm"] = feature("float64", dof)
            out[f"{group}.{side}_gripper"] = feature("float64", 1)
        out[f"observation.state.{side}_ee_pose"] = feature("float64", 7)
        if robot == "r1pro":
            out[f"action.{side}_ee_pose"] = feature("float64", 7)
    if is_merged:
        for name in ("coarse_task_index", "quality_index", "coarse_quality_index"):
            out[name] = feature("int64", 1)
    return out
