"""Episodes of a corpus as somebody else's LeRobot port of them: another rate, size, codec, crop, camera name and order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from ingest.corpus import snapshot
from ingest.curation.measurements.view import open_view
from jobs.demo.raw import lerobot

GRID_HZ = 10.0


@dataclass(frozen=True, eq=False)
class Replayed:
    """What `lerobot.write` asks of a scene, by looking it up in an episode: poses in between are interpolated, pictures the nearest."""

    T: np.ndarray  # [n, 4, 4]
    opening: np.ndarray  # [n]
    pictures: Sequence[np.ndarray]  # n of [h, w, 3] RGB
    width: int
    height: int
    uid: str

    @property
    def duration_s(self) -> float:
        return len(self.opening) / GRID_HZ

    def T_base_hand(self, t_s: float, side: str = "left") -> np.ndarray:
        at = min(t_s * GRID_HZ, len(self.T) - 1.0)
        before = int(at)
        after = min(before + 1, len(self.T) - 1)
        T: np.ndarray = self.T[before].copy()
        T[:3, 3] += (at - before) * (self.T[after][:3, 3] - T[:3, 3])
        return T

    def gripper_opening(self, t_s: float) -> float:
        return float(np.interp(t_s * GRID_HZ, np.arange(len(self.opening)), self.opening))

    def picture(self, t_s: float) -> np.ndarray:
        return self.pictures[min(int(t_s * GRID_HZ + 0.5), len(self.pictures) - 1)]


def port(root: Path, out: Path, *, width: int, height: int, crop_px: int, fps: int) -> list[str]:
    """Write the single-arm episodes of the corpus `root` as a LeRobot set, in reverse order of uid; their uids by number."""
    episodes = snapshot.load(root).read(root, "episodes").sort_by([("uid", "descending")])
    scenes = [_replayed(root, row, width, height, crop_px) for row in episodes.to_pylist()]
    lerobot.write(out, scenes=scenes, width=width, height=height, fps=fps, gop=30)  # type: ignore[arg-type]
    return [scene.uid for scene in scenes]


def _replayed(root: Path, row: dict[str, Any], width: int, height: int, crop_px: int) -> Replayed:
    features = json.loads((root / row["dataset_path"] / "meta/info.json").read_text())["features"]
    view = open_view(root, row, [], features, GRID_HZ)
    T = np.tile(np.eye(4), (row["length"], 1, 1))
    T[:, :3, :3] = view.rotmat("observation.state", "left")
    T[:, :3, 3] = view.part("observation.state", "left.position_m")
    with av.open(str(view.videos[row["cameras"][-1]["name"]])) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    inside = slice(crop_px, -crop_px)
    return Replayed(
        T=T,
        opening=np.ravel(view.part("observation.state", "left.gripper_opening")),
        pictures=[
            cv2.resize(f[inside, inside], (width, height), interpolation=cv2.INTER_CUBIC)
            for f in frames
        ],
        width=width,
        height=height,
        uid=row["uid"],
    )
