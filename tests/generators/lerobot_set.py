"""LeRobot sets for tests: a whole set of the kind that has one file per episode, and quick variants of the demo's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.demo.raw import Written
from jobs.demo.raw.lerobot import write
from jobs.demo.raw.lerobot_files import (
    DEFAULT_FEATURES,
    num_rows,
    write_json,
    write_lines,
    write_parquet,
    write_video,
)
from jobs.demo.raw.scene import Scene, rigid_transform


def feature(kind: str, width: int, names: Sequence[str] | None = None) -> dict[str, object]:
    """A numeric feature of info.json."""
    return {"dtype": kind, "shape": [width], "names": None if names is None else list(names)}


def picture(height: int, width: int, **info: object) -> dict[str, object]:
    """A camera of info.json."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {"video.fps": 30, "video.codec": "h264", "video.is_depth_map": False, **info},
    }


def in_frame(
    scene: Scene, side: str, t_s: float, R_src_hand: np.ndarray, p_src_hand: Sequence[float]
) -> np.ndarray:
    """[4, 4] pose of the source's own end-effector frame: T_hand @ inv([[R, p], [0, 1]])."""
    return scene.T_base_hand(t_s, side) @ np.linalg.inv(
        rigid_transform(R_src_hand, list(p_src_hand))
    )


def arm_joints(n: int, count: int, *, phase: float = 0.0) -> np.ndarray:
    """[n, count] angles that move slowly and differ from each other."""
    k = np.arange(n)[:, None]
    return np.asarray(0.6 * np.sin(0.02 * k + np.arange(count) + phase))


@dataclass(frozen=True, kw_only=True)
class Set:
    """A set of one data file and one video per camera for each episode (v2.x)."""

    scenes: Mapping[int, Scene]  # by episode_index
    fps: int
    robot_type: str | None
    features: Mapping[str, object]  # without cameras and LeRobot's own columns
    cameras: Mapping[str, Mapping[str, object]]  # feature key -> feature
    rows: Callable[[int, Scene, int], dict[str, pa.Array]]  # of one episode, n rows
    tasks: Sequence[Mapping[str, object]]
    episode: Callable[[int, int], dict[str, object]]  # what episodes.jsonl adds to index, length
    info: Mapping[str, object] = field(default_factory=dict)
    version: str = "v2.1"
    chunks_size: int = 1000
    data_path: str = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    video_path: str = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    without: tuple[str, ...] = ()  # of LeRobot's own columns
    codec: str = "libx264"
    gop: int = 30
    unreadable: tuple[str, ...] = ()  # cameras whose files are no video at all
    pictures: bool = True  # False: no camera's is, for tests that look at rows only

    def table(self, index: int, before: int) -> pa.Table:
        n = num_rows(self.scenes[index], self.fps)
        own = {
            "timestamp": pa.array((np.arange(n) / self.fps).astype(np.float32)),
            "frame_index": pa.array(np.arange(n)),
            "episode_index": pa.array(np.full(n, index)),
            "index": pa.array(np.arange(n) + before),
            "task_index": pa.array(np.zeros(n, dtype=np.int64)),
        }
        own = {k: v for k, v in own.items() if k not in self.without}
        return pa.table(own | self.rows(index, self.scenes[index], n))

    def write(self, root: Path, name: str, **written: object) -> Written:
        """`name` is what episode ids start with."""
        before, lines = 0, []
        for index, scene in self.scenes.items():
            table = self.table(index, before)
            places = {"episode_chunk": index // self.chunks_size, "episode_index": index}
            write_parquet(root / self.data_path.format(**places), table)
            self._videos(root, scene, places)
            length = {"episode_index": index, "length": table.num_rows}
            lines.append({**length, **self.episode(index, table.num_rows)})
            before += table.num_rows
        write_lines(root / "meta/tasks.jsonl", self.tasks)
        write_lines(root / "meta/episodes.jsonl", lines)
        write_json(root / "meta/info.json", self._info(before))
        scenes = {f"{name}/episode_{i:06d}": s for i, s in self.scenes.items()}
        return Written(root=root, scenes=scenes, **written)  # type: ignore[arg-type]

    def _videos(self, root: Path, scene: Scene, places: Mapping[str, int]) -> None:
        for key in self.cameras:
            path = root / self.video_path.format(video_key=key, **places)
            if key in self.unreadable or not self.pictures:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"no video")
            else:
                write_video(path, [scene], fps=self.fps, gop=self.gop, codec=self.codec)

    def _info(self, frames: int) -> dict[str, object]:
        own = {n: feature(k, 1) for n, k in DEFAULT_FEATURES.items() if n not in self.without}
        return {
            "codebase_version": self.version,
            "robot_type": self.robot_type,
            "total_episodes": len(self.scenes),
            "total_frames": frames,
            "total_tasks": len(self.tasks),
            "total_chunks": 1,
            "chunks_size": self.chunks_size,
            "fps": self.fps,
            "splits": {"train": f"0:{len(self.scenes)}"},
            "data_path": self.data_path,
            "video_path": self.video_path,
            "features": {**self.features, **self.cameras, **own},
            **self.info,
        }


def write_ready(root: Path, **quirks: Any) -> Written:
    """A set that already has the canonical rate, size and GOP, so that its video packets can be copied."""
    return write(root, **{"fps": 10, "width": 256, "height": 256, "gop": 10, **quirks})


def write_small(root: Path, **quirks: Any) -> Written:
    """A set with tiny pictures, for tests that look at rows and metadata only."""
    return write(root, **{"width": 64, "height": 48, "gop": 30, **quirks})
