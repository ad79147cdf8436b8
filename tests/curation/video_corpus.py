"""Episodes as the measures see them, made of a generated scene: exact poses, and real H.264 of what a test wants to be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from ingest.curation.measurements.view import EpisodeView
from jobs.demo.raw.hand_scene import HandScene
from jobs.demo.raw.scene import Scene

RATE_HZ = 10.0
PLAIN = (70, 90, 80)  # the background of the scenes
# As ingest/video/encode.py writes: crf 23, veryfast, a keyframe every 10 pictures.
X264 = {"crf": "23", "preset": "veryfast", "g": "10", "sc_threshold": "0"}
Picture = np.ndarray[Any, np.dtype[np.uint8]]


def encode(path: Path, pictures: list[Picture]) -> Path:
    """[H, W, 3] RGB pictures at 10 Hz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=X264)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


def texture(
    seed: int = 0, *, width: int = 320, height: int = 240, sigma_px: float = 2.0
) -> Picture:
    """Blobs of all colours, luma about 40 to 215."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    blobs = cv2.GaussianBlur(noise, (0, 0), sigma_px)
    return np.asarray(cv2.normalize(blobs, None, 40, 215, cv2.NORM_MINMAX), dtype=np.uint8)


def before(picture: Picture, background: Picture) -> Picture:
    """The scene's picture with its plain background replaced."""
    is_plain = (picture == np.array(PLAIN)).all(axis=-1)[..., None]
    return np.where(is_plain, background, picture)


def times_s(length: int) -> np.ndarray:
    return np.arange(length) / RATE_HZ


def rot6d(T: np.ndarray) -> np.ndarray:
    """First two columns, column after column."""
    return np.concatenate([T[:, :3, 0], T[:, :3, 1]], axis=1)


class Builder:
    """Columns and masks of an episode, one slice after the other."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.state: dict[str, np.ndarray] = {}
        self.beside: dict[str, np.ndarray] = {}
        self.invalid: dict[str, list[int]] = {}

    def arm(self, side: str, T: np.ndarray, opening: np.ndarray | None = None) -> Builder:
        self.state[f"{side}.position_m"] = T[:, :3, 3]
        self.state[f"{side}.rot6d_cols"] = rot6d(T)
        if opening is not None:
            self.state[f"{side}.gripper_opening"] = opening[:, None]
        return self

    def camera(self, name: str, T: np.ndarray) -> Builder:
        self.beside[f"camera_pose.{name}"] = np.concatenate([T[:, :3, 3], rot6d(T)], axis=1)
        return self

    def view(self, videos: Mapping[str, Path] | None = None, **row: Any) -> EpisodeView:
        """The episode; `row` overrides what the catalog says of it."""
        masks = {name: np.ones(self.length) for name in {**self.state, **self.beside}}
        for name, timesteps in self.invalid.items():
            masks[name][timesteps] = 0.0
        columns, names = {}, {}
        if self.state:
            columns["observation.state"] = np.concatenate(list(self.state.values()), axis=1)
            names["observation.state"] = tuple(
                name if values.shape[1] == 1 else f"{name}.{i}"
                for name, values in self.state.items()
                for i in range(values.shape[1])
            )
        for name, values in self.beside.items():
            columns[f"observation.{name}"] = values
            names[f"observation.{name}"] = tuple(f"{name}.{i}" for i in range(values.shape[1]))
        if masks:
            columns["observation.valid"] = np.stack(list(masks.values()), axis=1)
            names["observation.valid"] = tuple(masks)
        videos = dict(videos or {})
        said = {
            "length": self.length,
            "embodiment": "test_robot",
            "camera_motion_removed": True,
            "cameras": [camera_row(name) for name in videos],
            "tasks": [""],
            "task_counts": [self.length],
            "facts": [],
            "supervision_limits": [],
            "success": None,
        }
        return EpisodeView(
            row=said | row,
            segments=row.get("segments", ()),
            columns=columns,
            names=names,
            videos=videos,
            rate_hz=RATE_HZ,
        )


def camera_row(name: str, scene: Scene | HandScene | None = None) -> dict[str, Any]:
    known = scene is not None
    return {
        "name": name,
        "width": scene.width if scene else 320,
        "height": scene.height if scene else 240,
        "K_cam": scene.K_cam.reshape(-1).tolist() if scene else None,
        "lens_model": "pinhole" if known else None,
        "lens_params": [] if known else None,
    }


def robot(scene: Scene, length: int) -> Builder:
    """Every arm of the scene with its gripper."""
    builder = Builder(length)
    t_s = times_s(length)
    opening = np.array([scene.gripper_opening(t) for t in t_s])
    for side in scene.sides:
        builder.arm(side, np.array([scene.T_base_hand(t, side) for t in t_s]), opening)
    return builder


def person(scene: HandScene, length: int) -> Builder:
    """Both hands of the scene and its head camera, all in the world."""
    builder = Builder(length)
    t_s = times_s(length)
    for side in scene.sides:
        builder.arm(side, np.array([scene.T_base_hand(t, side) for t in t_s]))
    return builder.camera("head", np.array([scene.T_world_cam(t) for t in t_s]))


def values_of(of: Callable[[EpisodeView], Any], view: EpisodeView) -> dict[str, float | None]:
    """What a measure says of the whole episode."""
    return {found.name: found.value for found in of(view) if found.start is None}


def spans_of(
    of: Callable[[EpisodeView], Any], view: EpisodeView, name: str
) -> list[tuple[int, int]]:
    return [(f.start, f.end) for f in of(view) if f.name == name and f.start is not None]
