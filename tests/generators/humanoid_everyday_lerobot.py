"""Humanoid Everyday as he2lerobot.py writes it: version "2.0.1", lengths of -1, tasks as integers, index from 0 in each episode.

Depth lies in the rows (Array2D, 480 x 640 in the real set, 24 x 32 here), lidar and tactile too and ragged. The video template has
no {video_key}. The task is the name of a folder; what was told is its description.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import write_json, write_lines
from jobs.demo.raw.scene import Scene
from tests.generators.lerobot_set import Set, arm_joints, picture

FPS = 30
DEPTH = "observation.depth.egocentric"
TASKS = (
    ("tool_use/staple_paper", "tool_use", "Staple the sheets of paper."),
    ("basic/push_chair", "basic", ""),  # the script writes "" where it has no description
)
HANDS, LEGS = {"g1": 14, "h1": 12}, {"g1": 15, "h1": 13}


def write(
    root: Path,
    *,
    robots: tuple[str, ...] = ("g1", "g1"),
    name_robot: bool = True,
    pictures: bool = True,
) -> Written:
    """One episode of about 2 s for each of `robots`, all of the first task."""
    scenes = {
        n: Scene(seed=n, duration_s=2.0 + 0.2 * n, width=192, height=144, focal_px=180)
        for n in range(len(robots))
    }
    starts = np.cumsum([0, *(round(s.duration_s * FPS) for s in scenes.values())])

    def rows(index: int, _scene: Scene, n: int) -> dict[str, pa.Array]:
        robot = robots[index]
        hands, legs = HANDS[robot], LEGS[robot]
        out = {
            "observation.arm_joints": arm_joints(n, 14, phase=index),
            "observation.leg_joints": arm_joints(n, legs, phase=1.0),
            "observation.hand_joints": 0.5 * arm_joints(n, hands, phase=2.0),
            "observation.imu.quaternion": np.full((n, 4), np.nan),
            "observation.odometry.quat": np.tile([1.0, 0, 0, 0], (n, 1)),
            "action": np.concatenate([np.full((n, hands), 0.25), arm_joints(n, 14)], axis=1),
        }
        nested = pa.list_(pa.list_(pa.float32()))
        return {k: pa.array(v.tolist(), pa.list_(pa.float32())) for k, v in out.items()} | {
            DEPTH: pa.array(np.full((n, 24, 32), 1234.0).tolist(), nested),
            "observation.lidar": pa.array([[[0.0] * 3] * (k % 3) for k in range(n)], nested),
            "observation.tactile": pa.array([[[float("nan")] * 4] * 2] * n, nested),
            "index": pa.array(np.arange(n)),
            "next.done": pa.array(np.arange(n) == n - 1),
        }

    def episode(index: int, n: int) -> dict[str, object]:
        first = int(starts[index])
        own = {"robot_type": robots[index]} if name_robot else {}
        return {
            "tasks": [0],
            "dataset_from_index": first,
            "dataset_to_index": first + n - 1,  # inclusive
            "instruction": TASKS[0][2],
            **own,
        }

    written = Set(
        scenes=scenes,
        fps=FPS,
        robot_type=robots[0] if len(set(robots)) == 1 else "mixed",
        features=_features(),
        cameras={
            "observation.images.egocentric": picture(480, 640)
        },  # the file is smaller, for speed
        rows=rows,
        tasks=[
            {"task_index": i, "task": name, "category": category, "description": text}
            for i, (name, category, text) in enumerate(TASKS)
        ],
        episode=episode,
        version="2.0.1",
        video_path="videos/chunk-{episode_chunk:03d}/egocentric/episode_{episode_index:06d}.mp4",
        pictures=pictures,
    ).write(root, "humanoid_everyday")
    empty = [{"episode_index": n, "stats": {}} for n in scenes]
    write_lines(root / "meta/episodes_stats.jsonl", empty)
    write_json(root / "meta/stats.json", {"g1": {"action_min": [0.0] * 28}})
    return written


def _features() -> dict[str, object]:
    shapes = {
        DEPTH: [480, 640],
        "observation.lidar": [-1, 3],
        "observation.imu.quaternion": [4],
        "observation.odometry.quat": [4],
        "observation.arm_joints": [-1],
        "observation.leg_joints": [-1],
        "observation.hand_joints": [-1],
        "observation.tactile": [-1, -1],
        "action": [-1],
        "next.done": [1],
    }
    return {k: {"dtype": "float32", "shape": shape} for k, shape in shapes.items()}
