"""BEHAVIOR-1K, 2025 edition: paths by task and eight digits, one state vector of 256, nine videos of which three are pictures.

episode_index = task * 10000 + k. frame_index and task_index are not declared; task_index is 0 in every task, as an older writer
has it. Depth and segmentation files are no videos at all here, so whoever opens one fails.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import fixed, write_json, xyz_quat
from jobs.demo.raw.scene import Scene
from tests.generators.lerobot_set import Set, arm_joints, picture

FPS = 30
SIDES = ("left", "right")
PROMPTS = {
    0: "Turn on the radio in the living room.",
    3: "Clean up the plates and the food.",
}
RGB = ("left_wrist", "right_wrist", "head")
POSE = {"left": 186, "right": 225}
FINGERS = {"left": 193, "right": 232}
SKILLS = [
    {"skill_description": ["move to"], "object_id": [["radio_89"]], "frame_duration": [0, 20]},
    {
        "skill_description": ["pick up from"],
        "object_id": [["radio_89", "coffee_table_koagbh_0"]],
        "frame_duration": [20, 45],
    },
]


def write(root: Path, *, pictures: bool = True) -> Written:
    """Three episodes of about 1.5 s in two tasks."""
    scenes = {
        index: Scene(
            seed=n, duration_s=1.5 + 0.2 * n, sides=SIDES, width=96, height=96, focal_px=107
        )
        for n, index in enumerate((10, 20, 30010))
    }
    keys = [
        f"observation.images.{kind}.{c}"
        for kind in ("rgb", "depth", "seg_instance_id")
        for c in RGB
    ]
    written = Set(
        scenes=scenes,
        fps=FPS,
        robot_type="R1Pro",
        features={
            "action": {"dtype": "float32", "shape": [23], "names": None},
            "observation.cam_rel_poses": {"dtype": "float32", "shape": [21], "names": None},
            "observation.state": {"dtype": "float32", "shape": [256], "names": None},
            "observation.task_info": {"dtype": "float32", "shape": [None], "names": None},
        },
        cameras={k: _camera(k) for k in keys},
        rows=_rows,
        tasks=[
            {"task_index": i, "task_name": f"task_{i}", "task": text} for i, text in PROMPTS.items()
        ],
        episode=lambda index, _n: {"tasks": [PROMPTS[index // 10_000]], "distance_traveled": 1.5},
        info={
            "metainfo_path": "meta/episodes/task-{episode_chunk:04d}/episode_{episode_index:08d}.json",
            "annotation_path": "annotations/task-{episode_chunk:04d}/episode_{episode_index:08d}.json",
        },
        chunks_size=10_000,
        data_path="data/task-{episode_chunk:04d}/episode_{episode_index:08d}.parquet",
        video_path="videos/task-{episode_chunk:04d}/{video_key}/episode_{episode_index:08d}.mp4",
        without=("frame_index", "task_index"),
        codec="libx265",
        unreadable=tuple(k for k in keys if ".rgb." not in k),
        pictures=pictures,
    ).write(root, "behavior_1k")
    for index in scenes:
        name = f"task-{index // 10_000:04d}/episode_{index:08d}.json"
        write_json(root / "meta/episodes" / name, {"scene_file": "{}", "num_samples": 60})
        write_json(root / "annotations" / name, {"task_name": "t", "skill_annotation": SKILLS})
    return written


def _rows(index: int, scene: Scene, n: int) -> dict[str, pa.Array]:
    t_s = np.arange(n) / FPS
    state = np.random.default_rng(index).normal(0.0, 0.2, (n, 256))
    state[:, 158:165] = arm_joints(n, 7)
    state[:, 197:204] = arm_joints(n, 7, phase=1.0)
    action = arm_joints(n, 23)
    for side, told in (("left", 14), ("right", 22)):
        poses = [xyz_quat(scene.T_base_hand(t, side), "xyzw") for t in t_s]
        state[:, POSE[side] : POSE[side] + 7] = poses
        # The two fingers do not move alike: only their sum is the opening.
        width_m = 0.1 * np.array([scene.gripper_opening(t) for t in t_s])
        state[:, FINGERS[side]] = 0.4 * width_m
        state[:, FINGERS[side] + 1] = 0.6 * width_m
        action[:, told] = [2 * scene.gripper_opening(t + 1 / FPS) - 1 for t in t_s]
    return {
        "action": fixed(action),
        "observation.cam_rel_poses": fixed(np.zeros((n, 21))),
        "observation.state": fixed(state),
        "observation.task_info": pa.array([[0.0] * (1 + k % 3) for k in range(n)]),  # ragged
        "task_index": pa.array(np.zeros(n, dtype=np.int64)),
        "timestamp": pa.array(t_s),
    }


def _camera(key: str) -> dict[str, object]:
    """Sizes as the real set declares them: its intrinsics belong to those."""
    size = 720 if key.endswith("head") else 480
    return picture(size, size, **{"video.is_depth_map": ".depth." in key})
