"""RoboCasa-GR1 as GR00T's demonstration set has it: v2.0, 44 joints by modality.json, no frame_index, clock from 0.05 s.

info.json promises a camera that has no file, 100 episodes and no chunk; tasks.jsonl has the pseudo-task "valid".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import write_json
from jobs.demo.raw.scene import Scene
from tests.generators.lerobot_set import Set, arm_joints, feature, picture

FPS = 20
CAMERA = "observation.images.ego_view"
TASKS = ("pick the red box from the counter and place it in the plate", "valid")
TEXT, VALIDITY = "annotation.human.action.task_description", "annotation.human.validity"
PARTS = {
    "left_arm": (0, 7),
    "left_hand": (7, 13),
    "left_leg": (13, 19),
    "neck": (19, 22),
    "right_arm": (22, 29),
    "right_hand": (29, 35),
    "right_leg": (35, 41),
    "waist": (41, 44),
}


def write(root: Path, *, pictures: bool = True) -> Written:
    """Two episodes of about 2 s."""
    scenes = {
        n: Scene(seed=n, duration_s=2.0 + 0.2 * n, width=192, height=192, focal_px=190)
        for n in range(2)
    }

    def rows(index: int, _scene: Scene, n: int) -> dict[str, pa.Array]:
        state = arm_joints(n, 44, phase=index)
        action = np.concatenate([state[1:], state[-1:]])
        action[:, 7:13] = np.where(np.arange(n) < n // 2, -1.5, 1.5)[:, None]  # the hand closes
        return {
            "observation.state": pa.array(state.tolist()),
            "action": pa.array(action.tolist()),
            "timestamp": pa.array(0.05 + np.arange(n) / FPS),
            TEXT: pa.array(np.zeros(n, dtype=np.int64)),
            VALIDITY: pa.array(np.ones(n, dtype=np.int64)),
            "next.reward": pa.array((np.arange(n) == n - 1).astype(float)),
            "next.done": pa.array(np.arange(n) == n - 1),
        }

    written = Set(
        scenes=scenes,
        fps=FPS,
        robot_type="GR1ArmsOnly",
        features={
            "observation.state": feature("float64", 44, [f"motor_{i}" for i in range(44)]),
            "action": feature("float64", 44, [f"motor_{i}" for i in range(44)]),
            TEXT: feature("int64", 1),
            VALIDITY: feature("int64", 1),
            "next.reward": feature("float64", 1),
            "next.done": feature("bool", 1),
            "observation.images.egoview": picture(800, 1280),  # a leftover: no file
        },
        cameras={CAMERA: picture(192, 192)},
        rows=rows,
        tasks=[{"task_index": i, "task": text} for i, text in enumerate(TASKS)],
        episode=lambda _index, _n: {"tasks": list(TASKS)},
        info={"splits": {"train": "0:100"}, "total_chunks": 0, "total_videos": 2},
        version="v2.0",
        without=("frame_index",),
        pictures=pictures,
    ).write(root, root.name)
    spans = {k: {"start": a, "end": b} for k, (a, b) in PARTS.items()}
    modality = {
        "state": spans,
        "action": spans,
        "video": {"ego_view": {"original_key": CAMERA}},
        "annotation": {k.removeprefix("annotation."): {} for k in (TEXT, VALIDITY)},
    }
    write_json(root / "meta/modality.json", modality)
    return written
