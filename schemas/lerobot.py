"""LeRobot v2.1 as we write it: feature tables and the models of `meta/`.

Source: huggingface/lerobot v0.3.3 `src/lerobot/datasets/{utils,compute_stats}.py`, as described in the format page
for LeRobot v2.1, §1.2-§1.6. Key order in `info.json` is the reference writer's.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.json_text import JsonLimits

CHUNK_SIZE = 1000
INFO_LIMITS = JsonLimits(max_bytes=1 << 24, max_elements=1 << 18)  # of `meta/info.json`
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

# Always present, after the user's features. `task_index` may change inside an episode.
DEFAULT_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}


class Feature(BaseModel):
    """One entry of `features`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dtype: Literal["float32", "bool", "int64", "video"]
    shape: list[int]
    names: list[str] | None
    info: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check(self) -> Feature:
        if any(n <= 0 for n in self.shape):
            raise ValueError(f"shape {self.shape}")
        is_video = self.dtype == "video"
        if is_video != (self.info is not None) or is_video != (len(self.shape) == 3):
            raise ValueError(
                "a video feature, and only a video feature, has info and shape [h, w, c]"
            )
        if self.names is not None and not is_video and len(self.names) != self.shape[0]:
            raise ValueError(f"{len(self.names)} names for shape {self.shape}")
        return self


MOST_FPS = 10_000


class Info(BaseModel):
    """`meta/info.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    codebase_version: Literal["v2.1"] = "v2.1"
    robot_type: str | None
    total_episodes: int
    total_frames: int
    total_tasks: int
    total_videos: int
    total_chunks: int
    chunks_size: int = CHUNK_SIZE
    fps: int = Field(gt=0, le=MOST_FPS)
    splits: dict[str, str]
    data_path: str = DATA_PATH
    video_path: str | None
    features: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _check(self) -> Info:
        for name, feature in self.features.items():
            if "/" in name or name in (".", ".."):
                raise ValueError(f"feature {name!r}: a name must not contain / and is no folder")
            Feature.model_validate(feature)
            if "image" in name and feature["dtype"] != "video":
                raise ValueError(f"feature {name!r}: a name with 'image' is reserved for images")
        return self


def vector_feature(dtype: Literal["float32", "bool"], names: tuple[str, ...]) -> dict[str, Any]:
    """A flat vector feature."""
    return {"dtype": dtype, "shape": [len(names)], "names": list(names)}


def video_feature(*, width: int, height: int, codec: str, fps: int) -> dict[str, Any]:
    """A video feature as `update_video_info` of the reference writer fills it."""
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": height,
            "video.width": width,
            "video.codec": codec,
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
        },
    }
