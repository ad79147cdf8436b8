"""The files that every LeRobot generator writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial.transform import Rotation

from jobs.demo.raw.scene import Scene

DEFAULT_FEATURES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
X264 = {"preset": "veryfast", "crf": "23", "x264-params": "open-gop=0"}
X265 = {"preset": "ultrafast", "crf": "18", "x265-params": "log-level=none:open-gop=0"}


def num_rows(scene: Scene, fps: float) -> int:
    """Rows of an episode: its duration at `fps`, first row at 0."""
    return round(scene.duration_s * fps)


def write_video(
    path: Path, scenes: Sequence[Scene], *, fps: float, gop: int, codec: str = "libx264"
) -> None:
    """Constant rate, closed GOP, the images of all `scenes` one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        assert isinstance(stream, av.VideoStream)  # both codecs are of videos
        stream.width, stream.height = scenes[0].width, scenes[0].height
        stream.pix_fmt = "yuv420p"
        stream.options = {**(X264 if codec == "libx264" else X265), "g": str(gop)}
        for scene in scenes:
            for k in range(num_rows(scene, fps)):
                picture = av.VideoFrame.from_ndarray(scene.picture(k / fps), format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_parquet(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False))


def write_lines(
    path: Path, rows: Sequence[Mapping[str, object]], *, is_blank: bool = False
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    end = "\n\n" if is_blank else "\n"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + end for row in rows))


def fixed(values: np.ndarray, kind: type = np.float32) -> pa.Array:
    """[N, n] as LeRobot writes it: fixed_size_list."""
    flat = pa.array(np.asarray(values, dtype=kind).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def xyz_quat(T: np.ndarray, order: str) -> np.ndarray:
    """[7] position and quaternion, "xyzw" or "wxyz"."""
    quat = Rotation.from_matrix(T[:3, :3]).as_quat()
    return np.concatenate([T[:3, 3], quat if order == "xyzw" else quat[[3, 0, 1, 2]]])
