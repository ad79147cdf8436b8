"""RoboCOIN's newer sets: joints and SDK poses in one vector, eef_sim_pose_* of both arms in one frame, labels by index.

`eef_sim_pose_*` is x y z and Euler angles (scipy "xyz") of each arm, left first. Nobody states how its axes lie in the hand, so
the scene's hand frame stands for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import fixed, write_lines
from jobs.demo.raw.scene import Scene
from tests.generators.lerobot_set import Set, arm_joints, feature, picture

FPS = 30
SIDES = ("left", "right")
DOF = 6
SUBTASKS = ("null", "Pick up the plastic bowl", "Place the plastic bowl on the table", "End")
SIM = [f"{s}_eef_{w}_{a}" for s in SIDES for w in ("pos", "ori") for a in "xyz"]
STATE = [
    *(f"left_arm_joint_{i}_rad" for i in range(1, DOF + 1)),
    "left_gripper_open",
    *(f"right_arm_joint_{i}_rad" for i in range(1, DOF + 1)),
    "right_gripper_open",
    # the SDK's own pose, in a frame of its own: never to be taken for the unified one
    *(f"left_eef_pos_{a}" for a in "xyz"),
    *(f"left_eef_rot_{a}" for a in "xyz"),
]


def write(
    root: Path, *, is_copied: bool = False, num_names: int | None = None, pictures: bool = True
) -> Written:
    """Two episodes of about 2 s. `is_copied`: the robot had no leader; `num_names`: fewer names than numbers."""
    scenes = {
        n: Scene(seed=n, duration_s=2.0 + 0.2 * n, sides=SIDES, width=192, height=144, focal_px=180)
        for n in range(2)
    }

    def rows(index: int, scene: Scene, n: int) -> dict[str, pa.Array]:
        out: dict[str, pa.Array] = {}
        for column, sim, late in (
            ("observation.state", "state", 0.0),
            ("action", "action", 0.0 if is_copied else 1 / FPS),
        ):
            t_s = np.arange(n) / FPS + late
            opening = np.array([[scene.gripper_opening(t)] for t in t_s])
            joints = arm_joints(n, 2 * DOF, phase=index + late)
            sdk = np.full((n, 6), 1.5)
            vector = [joints[:, :DOF], opening, joints[:, DOF:], opening, sdk]
            out[column] = fixed(np.concatenate(vector, axis=1))
            poses = [[_pose6(scene, side, t) for side in SIDES] for t in t_s]
            out[f"eef_sim_pose_{sim}"] = fixed(np.array(poses).reshape(n, 12))
            out[f"gripper_open_scale_{sim}"] = fixed(np.repeat(opening, 2, axis=1))
        out["subtask_annotation"] = fixed(_slots(n), np.int32)
        out["scene_annotation"] = pa.array(np.zeros(n, dtype=np.int32))
        return out

    written = Set(
        scenes=scenes,
        fps=FPS,
        robot_type="R1_Lite",
        features=_features(STATE if num_names is None else STATE[:num_names]),
        cameras={
            "observation.images.cam_head_rgb": picture(144, 192),
            "observation.images.cam_left_wrist_rgb": picture(144, 192),
        },
        rows=rows,
        tasks=[{"task_index": 0, "task": "Clear the plastic bowl."}],
        episode=lambda _index, _n: {"tasks": ["Clear the plastic bowl."]},
        chunks_size=39,
        info={"splits": {"train": "0:1"}, "discarded_episode_indices": []},
        pictures=pictures,
    ).write(root, root.name)
    write_lines(
        root / "annotations/subtask_annotations.jsonl",
        [{"subtask_index": i, "subtask": text} for i, text in enumerate(SUBTASKS)],
    )
    return written


def _pose6(scene: Scene, side: str, t_s: float) -> list[float]:
    T = scene.T_base_hand(t_s, side)
    return [*T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_euler("xyz")]


def _slots(n: int) -> np.ndarray:
    """[n, 5]: picking in the first two thirds, placing from the first third on in another slot, the end in the last row."""
    k = np.arange(n)
    slots = np.zeros((n, 5), dtype=np.int32)
    slots[k < 2 * n // 3, 0] = 1
    slots[k >= n // 3, 1] = 2
    slots[k >= 2 * n // 3, 0] = 2  # the same text moves to the first slot
    slots[-1, 2] = 3
    return slots


def _features(state: list[str]) -> dict[str, object]:
    width = len(STATE)
    vector = {"dtype": "float32", "shape": [width], "names": state}
    out: dict[str, object] = {"observation.state": vector, "action": vector}
    for sim in ("state", "action"):
        out[f"eef_sim_pose_{sim}"] = feature("float32", 12, SIM)
        names = [f"{s}_gripper_open_scale" for s in SIDES]
        out[f"gripper_open_scale_{sim}"] = feature("float32", 2, names)
    out["subtask_annotation"] = feature("int32", 5)
    out["scene_annotation"] = feature("int32", 1)
    return out
