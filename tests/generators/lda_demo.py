"""LDA-1B's demo set in its true layout (`playground/demo_data/sim_pick_place`): LeRobot v2.1, 30 Hz, `list<double>` columns.

26 columns of the same motion (poses as quaternion w x y z and as extrinsic xyz Euler angles, deltas, a turned frame, joints), a gripper that is
commanded (-1 open, 1 closed) and not measured, 21 annotation columns that are pickles, three cameras of which one has no file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import (
    DEFAULT_FEATURES,
    num_rows,
    write_json,
    write_lines,
    write_parquet,
    write_video,
)
from jobs.demo.raw.scene import Scene
from tests.generators.lerobot_set import arm_joints, in_frame, picture

FPS = 30
# panda_hand with a Robotiq on link8: R has the axes of the canonical hand as columns, 45 degrees about z from link8.
R_SRC_HAND = np.array([[0, 0.5**0.5, 0.5**0.5], [0, -(0.5**0.5), 0.5**0.5], [1, 0, 0]])
TCP_M = [0.0, 0.0, 0.145]
VIEWS = ("base_view", "base_view_2", "ego_view")
WIDTHS = {  # of both groups, then of one
    "joints": 7,
    "gripper_width": 6,
    "eef_position": 3,
    "eef_rotation": 3,
    "eef_quaternion": 4,
    "eef_position_frankaX": 3,
    "eef_rotation_frankaX": 3,
    "eef_quaternion_frankaX": 4,
}
STATE_ONLY = {"joints_velocity": 7, "gripper_velocity": 6}
ACTION_ONLY = {
    "gripper_close": 1,
    "delta_joints": 7,
    **{f"delta_{name}": width for name, width in WIDTHS.items() if name.startswith("eef_")},
}
BOXES = ("bbox2d_tight", "bbox2d_loose")
ANNOTATIONS = (
    "tcp_3d_trace",
    *(f"{view}.tcp_2d_trace" for view in VIEWS),
    "pick_obj_uid",
    "place_obj_uid",
    *(f"{view}.{box}{more}" for box in BOXES for view in VIEWS for more in ("", "_id2labels")),
    "bbox3d",
    "bbox3d_id2labels",
    "rewrite_instructions",
)
TASKS = ("Move the shoe to the top of the cooking pot.", "Move the potato to the top of the books.")
# A pickle that runs a command when it is loaded: os.system("false").
PICKLE = b"cos\nsystem\n(S'false'\ntR."


def write(root: Path, *, annotation: bytes = PICKLE, without: tuple[str, ...] = ()) -> Written:
    """Two episodes of 2 s. `without` are video files to leave out, "base_view/0" say; base_view_2 has none at all."""
    scenes = [Scene(seed=seed, duration_s=2.0, width=64, height=48) for seed in range(2)]
    before = 0
    for index, scene in enumerate(scenes):
        table = _table(scene, index, before, annotation)
        write_parquet(root / f"data/chunk-000/episode_{index:06d}.parquet", table)
        before += len(table)
        for view in ("base_view", "ego_view"):
            if f"{view}/{index}" not in without:
                path = root / f"videos/chunk-000/video.{view}/episode_{index:06d}.mp4"
                write_video(path, [scene], fps=FPS, gop=30)
    write_json(root / "meta/info.json", _info(before))
    write_json(root / "meta/modality.json", _modality())
    write_lines(
        root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(TASKS)]
    )
    lines = [
        {"episode_index": i, "tasks": [TASKS[i]], "length": num_rows(s, FPS), "task_data": {}}
        for i, s in enumerate(scenes)
    ]
    write_lines(root / "meta/episodes.jsonl", lines)
    ids = {f"{root.name}/episode_{i:06d}": scene for i, scene in enumerate(scenes)}
    return Written(root=root, scenes=ids)


def closed(scene: Scene, n: int) -> np.ndarray:
    """[n, 1] the gripper command of each row: -1 open, 1 closed, two switches as in the real set."""
    return np.where(np.abs(np.arange(n) - n / 2) < n / 6, 1.0, -1.0)[:, None]


def _table(scene: Scene, index: int, before: int, annotation: bytes) -> pa.Table:
    n = num_rows(scene, FPS)
    # The real command leads the state by more than one row; here it is where the hand is a tenth of a second later.
    groups = {"state": np.arange(n) / FPS, "action": np.arange(n) / FPS + 0.1}
    columns: dict[str, np.ndarray] = {}
    for group, t_s in groups.items():
        T = np.stack([in_frame(scene, "left", t, R_SRC_HAND, TCP_M) for t in t_s])
        turned = T @ np.block([[R_SRC_HAND, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
        for pose, suffix in ((T, ""), (turned, "_frankaX")):
            for name, values in _pose(pose).items():
                columns[f"{group}.{name}{suffix}"] = values
                if group == "action":
                    columns[f"action.delta_{name}{suffix}"] = np.diff(
                        values, axis=0, append=values[-1:]
                    )
        columns[f"{group}.joints"] = arm_joints(n, 7, phase=t_s[0])
        columns[f"{group}.gripper_width"] = np.clip(closed(scene, n), 0, 1) * [1, 1, -1, -1, -1, -1]
    columns["action.gripper_close"] = closed(scene, n)
    columns["action.delta_joints"] = np.diff(columns["action.joints"], axis=0, prepend=0)
    columns["state.joints_velocity"] = np.gradient(columns["state.joints"], axis=0) * FPS
    columns["state.gripper_velocity"] = np.gradient(columns["state.gripper_width"], axis=0) * FPS
    arrays = {
        name: pa.array(columns[name].tolist(), pa.list_(pa.float64())) for name in _features()
    }
    arrays |= {
        f"annotation.{name}": pa.array([annotation] * n, pa.binary()) for name in ANNOTATIONS
    }
    k = np.arange(n)
    numbering = {
        "timestamp": (k / FPS).astype(np.float32),
        "frame_index": k,
        "episode_index": np.full(n, index),
        "index": before + k,
        "task_index": np.full(n, index),
    }
    return pa.table(arrays | {name: pa.array(values) for name, values in numbering.items()})


def _pose(T: np.ndarray) -> dict[str, np.ndarray]:
    turn = Rotation.from_matrix(T[:, :3, :3])
    return {
        "eef_position": T[:, :3, 3],
        "eef_rotation": turn.as_euler("xyz"),
        "eef_quaternion": np.roll(turn.as_quat(), 1, axis=1),
    }


def _features() -> dict[str, int]:
    action = {f"action.{name}": width for name, width in (WIDTHS | ACTION_ONLY).items()}
    return action | {f"state.{name}": width for name, width in (WIDTHS | STATE_ONLY).items()}


def _info(num_frames: int) -> dict[str, object]:
    numbers = {name: {"dtype": "float64", "shape": [width]} for name, width in _features().items()}
    pickles = {f"annotation.{name}": {"dtype": "binary", "shape": [1]} for name in ANNOTATIONS}
    own = {n: {"dtype": kind, "shape": [1], "names": None} for n, kind in DEFAULT_FEATURES.items()}
    return {
        "codebase_version": "v2.1",
        "robot_type": "franka_robotiq",
        "total_episodes": 2,
        "total_frames": num_frames,
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": "0:2"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": numbers | {f"video.{view}": picture(48, 64) for view in VIEWS} | pickles | own,
    }


def _modality() -> dict[str, object]:
    groups: dict[str, dict[str, object]] = {"action": {}, "state": {}}
    for name, width in _features().items():
        group, _, key = name.partition(".")
        groups[group][key] = {"start": 0, "end": width, "original_key": name}
    return {
        **groups,
        "video": {view: {"original_key": f"video.{view}"} for view in VIEWS},
        "annotation": {"human.action.task_description": {"original_key": "task_index"}}
        | {name: {"original_key": f"annotation.{name}"} for name in ANNOTATIONS},
    }


def info_of(root: Path) -> dict[str, object]:
    """meta/info.json as it is written."""
    found: dict[str, object] = json.loads((root / "meta/info.json").read_text())
    return found
