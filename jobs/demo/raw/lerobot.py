"""LeRobot sets in their true layout: v2.0 and v2.1 (one file per episode), v3.0 (shared files), with modality.json.

One Franka arm named as EI-30K does. The hand of the scene is turned into the panda_hand frame by the registry's constant,
written out here: T_src = T_hand @ inv([[R, t], [0, 1]]). Row k is at k / fps, its action is the pose one period later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot_files import (
    DEFAULT_FEATURES,
    fixed,
    num_rows,
    write_json,
    write_lines,
    write_parquet,
    write_video,
    xyz_quat,
)
from jobs.demo.raw.scene import Scene, rigid_transform

R_SRC_HAND = np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], dtype=float)
T_SRC_HAND = rigid_transform(R_SRC_HAND, [0.0, 0.0, 0.1034])
CAMERA = "observation.images.top_head"
TASKS = ("Put the red box on the plate.", "Reach for the blue box.", "Lift the blue box.")
NAMES = [f"left_eef_{n}" for n in ("x", "y", "z", "qx", "qy", "qz", "qw")] + ["left_gripper_open"]
DURATIONS_S = (2.0, 2.1, 1.9)


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """What real sets do to the standard; the default is a healthy set."""

    version: str = "v2.1"
    fps: float = 30
    width: int = 320
    height: int = 240
    gop: int = 2
    robot_type: str | None = "panda_hand"
    columns: str = "fixed"  # fixed (LeRobot) | list (pandas) | nested (Array2D of [2, 4])
    names: str = "list"  # list | dict | name | short | none
    is_wxyz: bool = False  # the order of its quaternion, in values and names; else xyzw
    gripper_name: str = "left_gripper_open"
    frame_index: bool = True
    timestamp_start_s: float = 0.0
    timestamp_double: bool = False
    gap_s: float = 0.0  # a pause after the tenth row that only the timestamps show
    restart_index: bool = False
    phantom_camera: bool = False
    depth_camera: bool = False
    inline_images: bool = False  # PNG bytes in the parquet instead of a video
    blank_lines: bool = False
    int_tasks: bool = False
    subtasks: bool = False
    other_tasks: bool = False  # episodes.jsonl names a task that tasks.jsonl does not have
    copied_action: bool = False
    is_absolute: bool | None = True
    rotation_type: str | None = None
    modality: bool = True
    wrong_counts: bool = False  # splits, totals, declared lengths
    chunks_size: int = 1000
    data_path: str | None = None
    video_path: str | None = None
    task_column: str = "__index_level_0__"  # v3.0: or task
    short_durations: bool = False  # v3.0: claimed times leave out the last frame of every episode
    removed_episode: int | None = None  # v3.0: gone from the table, its frames stayed in the video


def write(root: Path, *, scenes: Sequence[Scene] | None = None, **quirks: Any) -> Written:
    """Three episodes of about 2 s, v2.1 at 30 Hz by default; every field of `Quirks` is a keyword.

    `scenes` are written instead, whose size is that of the set.
    """
    q = replace(Quirks(), **quirks)
    scenes = scenes or [
        Scene(seed=seed, duration_s=duration, width=q.width, height=q.height)
        for seed, duration in enumerate(DURATIONS_S)
    ]
    tables = [_table(q, scene, number, scenes) for number, scene in enumerate(scenes)]
    if q.version.removeprefix("v").startswith("3"):
        _write_v3(root, q, scenes, tables)
    else:
        _write_v2(root, q, scenes, tables)
    write_json(root / "meta/info.json", _info(q, tables))
    if q.modality:
        write_json(root / "meta/modality.json", _modality(q))
    kept = [n for n in range(len(scenes)) if n != q.removed_episode]
    return Written(root=root, scenes={f"{root.name}/episode_{n:06d}": scenes[n] for n in kept})


def state_at(scene: Scene, t_s: float, order: str = "xyzw") -> np.ndarray:
    """[8] position in metres, quaternion of panda_hand in its base, opening."""
    T = scene.T_base_hand(t_s) @ np.linalg.inv(T_SRC_HAND)
    return np.concatenate([xyz_quat(T, order), [scene.gripper_opening(t_s)]])


def _table(q: Quirks, scene: Scene, number: int, scenes: Sequence[Scene]) -> pa.Table:
    n = num_rows(scene, q.fps)
    t_s = np.arange(n) / q.fps
    state = np.stack([state_at(scene, t, "wxyz" if q.is_wxyz else "xyzw") for t in t_s])
    due = np.stack([state_at(scene, t + 1 / q.fps, "wxyz" if q.is_wxyz else "xyzw") for t in t_s])
    stored_s = t_s + q.timestamp_start_s + q.gap_s * (np.arange(n) > 9)
    before = 0 if q.restart_index else sum(num_rows(s, q.fps) for s in scenes[:number])
    columns = {
        "observation.state": _vectors(q, state),
        "action": _vectors(q, state if q.copied_action else due),
        "timestamp": pa.array(stored_s, pa.float64() if q.timestamp_double else pa.float32()),
        "frame_index": pa.array(np.arange(n)),
        "episode_index": pa.array(np.full(n, number)),
        "index": pa.array(np.arange(n) + before),
        "task_index": pa.array(
            np.where(np.arange(n) < n // 2, 1, 2) if q.subtasks else np.zeros(n, int)
        ),
    }
    if not q.frame_index:
        del columns["frame_index"]
    if q.inline_images:
        rows = [
            {"bytes": _png(scene.picture(t)), "path": f"frame_{k:06d}.png"}
            for k, t in enumerate(t_s)
        ]
        columns[CAMERA] = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    return pa.table(columns)


def _vectors(q: Quirks, values: np.ndarray) -> pa.Array:
    if q.columns == "list":
        return pa.array(values.tolist(), pa.list_(pa.float64()))
    if q.columns == "nested":
        return pa.array(values.reshape(-1, 2, 4).tolist(), pa.list_(pa.list_(pa.float32())))
    return fixed(values)


def _write_v2(root: Path, q: Quirks, scenes: Sequence[Scene], tables: list[pa.Table]) -> None:
    data, video = _templates(q)
    lines = []
    for number, (scene, table) in enumerate(zip(scenes, tables, strict=True)):
        chunk = number // q.chunks_size
        places = {"episode_chunk": chunk, "chunk_index": chunk, "episode_index": number}
        write_parquet(root / data.format(**places), table)
        if not q.inline_images:
            write_video(
                root / video.format(video_key=CAMERA, **places), [scene], fps=q.fps, gop=q.gop
            )
        task_names: list[object] = [TASKS[i] for i in sorted(set(table["task_index"].to_pylist()))]
        task_names = [0] if q.int_tasks else ["task_stack_basket"] if q.other_tasks else task_names
        length = table.num_rows + 5 * q.wrong_counts
        lines.append({"episode_index": number, "tasks": task_names, "length": length})
    write_lines(root / "meta/episodes.jsonl", lines, is_blank=q.blank_lines)
    tasks = [{"task_index": i, "task": text} for i, text in enumerate(TASKS)]
    write_lines(root / "meta/tasks.jsonl", tasks, is_blank=q.blank_lines)


def _write_v3(root: Path, q: Quirks, scenes: Sequence[Scene], tables: list[pa.Table]) -> None:
    rate = Fraction(q.fps)
    places = {"chunk_index": 0, "file_index": 0}
    kept = [t for n, t in enumerate(tables) if n != q.removed_episode]
    write_parquet(root / _templates(q)[0].format(**places), pa.concat_tables(kept))
    write_video(
        root / _templates(q)[1].format(video_key=CAMERA, **places), scenes, fps=q.fps, gop=q.gop
    )
    rows, start_s, first = [], Fraction(0), 0
    for number, table in enumerate(tables):
        end_s = start_s + Fraction(table.num_rows - q.short_durations) / rate
        if number != q.removed_episode:
            rows.append(
                {
                    "episode_index": number,
                    "tasks": [TASKS[i] for i in sorted(set(table["task_index"].to_pylist()))],
                    "length": table.num_rows,
                    "data/chunk_index": 0,
                    "data/file_index": 0,
                    "dataset_from_index": first,
                    "dataset_to_index": first + table.num_rows,
                    f"videos/{CAMERA}/chunk_index": 0,
                    f"videos/{CAMERA}/file_index": 0,
                    f"videos/{CAMERA}/from_timestamp": float(start_s),
                    f"videos/{CAMERA}/to_timestamp": float(end_s),
                    "stats/action/mean": [0.0] * 8,
                }
            )
        start_s, first = end_s, first + table.num_rows
    write_parquet(root / "meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist(rows))
    texts = pa.table({"task_index": list(range(len(TASKS))), q.task_column: list(TASKS)})
    write_parquet(root / "meta/tasks.parquet", texts)


def _templates(q: Quirks) -> tuple[str, str]:
    if q.version.removeprefix("v").startswith("3"):
        return (
            q.data_path or "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            q.video_path or "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        )
    return (
        q.data_path or "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        q.video_path
        or "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )


def _info(q: Quirks, tables: list[pa.Table]) -> dict[str, object]:
    names = [*_named(q)]
    shape = [2, 4] if q.columns == "nested" else [8]
    vector: dict[str, object] = {"dtype": "float32", "shape": shape}
    spelt: dict[str, dict[str, object]] = {
        "list": {"names": names},
        "dict": {"names": {"motors": names}},
        "name": {"name": names},
        "short": {"names": names[:-1]},
        "none": {"names": None},
    }
    vector |= spelt[q.names]
    features: dict[str, object] = {"observation.state": vector, "action": vector}
    picture = {
        "dtype": "image" if q.inline_images else "video",
        "shape": [q.height, q.width, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.fps": int(q.fps), "video.codec": "h264", "video.is_depth_map": False},
    }
    features[CAMERA] = picture
    if q.phantom_camera:
        features["observation.images.egoview"] = picture
    if q.depth_camera:
        deep = {"video.is_depth_map": True, "video.codec": "hevc"}
        features["observation.images.wrist_z"] = {**picture, "info": deep}
    for name, kind in DEFAULT_FEATURES.items():
        if name != "frame_index" or q.frame_index:
            features[name] = {"dtype": kind, "shape": [1], "names": None}
    data, video = _templates(q)
    return {
        "codebase_version": q.version,
        "robot_type": q.robot_type,
        "total_episodes": 100 if q.wrong_counts else len(tables),
        "total_frames": 7 if q.wrong_counts else sum(t.num_rows for t in tables),
        "total_tasks": len(TASKS),
        "total_chunks": 0 if q.wrong_counts else 1,
        "chunks_size": q.chunks_size,
        "fps": q.fps,
        "splits": {"train": "0:100" if q.wrong_counts else f"0:{len(tables)}"},
        "data_path": data,
        "video_path": video,
        "features": features,
    }


def _named(q: Quirks) -> list[str]:
    names = [*NAMES[:-1], q.gripper_name]
    return [*names[:3], names[6], *names[3:6], names[7]] if q.is_wxyz else names


def _modality(q: Quirks) -> dict[str, object]:
    spans = {"left_eef_position": (0, 3), "left_eef_rotation": (3, 7), "left_gripper": (7, 8)}
    state: dict[str, dict[str, object]] = {k: {"start": a, "end": b} for k, (a, b) in spans.items()}
    state["left_eef_rotation"]["rotation_type"] = q.rotation_type
    absolute = {} if q.is_absolute is None else {"absolute": q.is_absolute}
    return {
        "state": state,
        "action": {k: {**v, **absolute} for k, v in state.items()},
        "video": {"top_head": {"original_key": CAMERA}},
        "annotation": {"language.action_text": {"original_key": "task_index"}},
    }


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
