"""LingBot-VA: LeRobot v2.1 files without videos, latents of Wan's VAE for each camera of each segment, and a config for each dataset.

Facts: Robbyant/lingbot-va `wan_va/dataset/lerobot_latent_dataset.py` at 7c6ffa9, by reading. The VAE is causal in time: a latent depends on where its clip begins, so latents are made here and not kept in the corpus. A long segment becomes several clips
of `action_config`, which share their border picture and no action. There is no mask of invalid actions: the target before it is held, and the page counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingest.corpus.layout import CorpusLayout
from ingest.export.datasets.camera_roles import scene_camera, wrist_cameras
from ingest.export.datasets.format import ExportUnit, Finishing
from ingest.export.datasets.lerobot_episode_files import Features, LeRobotV21, WrittenDataset
from ingest.export.datasets.plan import DatasetPlan, ExportedSegment, ExportPlan, UnfitRows
from ingest.export.datasets.rows import Columns
from ingest.models.wan_encoders import (
    HUB_ID,
    SPATIAL,
    TEMPORAL,
    WanWeights,
    file_bytes,
    wan_encoders,
)
from ingest.video.timestep_pictures import pictures_at
from schemas.episode import SIDES
from schemas.errors import ConfigError
from schemas.geometry import quat_xyzw_from_rotmat, rotmat_from_rot6d_cols
from schemas.lerobot import CHUNK_SIZE, vector_feature
from schemas.supervision import Task
from schemas.trained_action import Named

NUM_CHANNELS = 30
# First channel of a hand's pose (position, quaternion), and the channel of its gripper.
SLOTS = {"left": (0, 28), "right": (7, 29)}
T_SHAPE, IN_A_ROW = (
    "robotwin_tshape",
    "none",
)  # their env_type: wrists above the scene, or all cameras beside each other
T_SHAPE_CHANNELS = (*range(7), 28, *range(7, 14), 29)
CLIP_S = 30.0  # a longer segment becomes several clips: their batch is one clip
NO_TURN = np.array([1.0, 0, 0, 0, 1, 0])
NO_POSE = np.array(
    [0.0, 0, 0, 0, 0, 0, 1]
)  # position and quaternion of an absent arm: zeros would be no rotation


@dataclass(frozen=True, slots=True)
class LingBotVa(LeRobotV21):
    """The format `lingbot-va`.

    frame_stride: timesteps between two pictures. Four pictures are a latent frame, so `action_per_frame` is four times that.
    height_px, width_px: of a picture before the VAE; of wrists in the T-shape half of each.
    """

    name: ClassVar[str] = "lingbot-va"
    weights: WanWeights | None = None
    frame_stride: int = 1
    height_px: int = 256
    width_px: int = 320

    def settings(self) -> Mapping[str, Any]:
        return {
            "weights": None if self.weights is None else self.weights.identity(),
            "frame_stride": self.frame_stride,
            "size_px": [self.height_px, self.width_px],
        }

    def left_out(self, rows: pa.Table) -> Iterable[UnfitRows]:
        """The loader has no mask, so it trains the policy on every action."""
        unfit = np.array([Task.POLICY not in each for each in rows["tasks"].to_pylist()], bool)
        yield UnfitRows(code="no_policy", text="may not supervise a policy", rows=unfit)
        least = TEMPORAL * self.frame_stride + 1
        short = pc.less(pc.subtract(rows["end"], rows["start"]), least).to_numpy() & ~unfit
        yield UnfitRows(code="too_short", text=f"have fewer than {least} timesteps", rows=short)

    def check(self, plan: ExportPlan) -> None:
        """
        Raises:
            ConfigError: no weights, sizes or a stride that do not divide, or a dataset without a camera or the pose of a hand.
        """
        if self.weights is None:
            remedy = f"pass --weights DIR with {HUB_ID}, or --untrained SEED to try it"
            raise ConfigError("lingbot-va needs a video VAE and a text encoder", remedy=remedy)
        for dataset in plan.datasets:
            where = f"manifest {plan.manifest.facts.name}, {dataset.dataset_path}"
            leave = "leave the dataset out of the manifest with --where"
            if self.frame_stride < 1 or dataset.fps % self.frame_stride:
                raise ConfigError(
                    f"pictures at {dataset.fps} / {self.frame_stride} Hz",
                    remedy=f"choose a --frame-stride that divides {dataset.fps}",
                    where=where,
                )
            if not dataset.video_keys or not _posed(dataset):
                absent = "a camera" if _posed(dataset) else "an action with the pose of a hand"
                raise ConfigError(f"lingbot-va needs {absent}", remedy=leave, where=where)
            unit_px = 2 * SPATIAL * (2 if layout_of(dataset).env_type == T_SHAPE else 1)
            if self.height_px % unit_px or self.width_px % unit_px or self.height_px < unit_px:
                raise ConfigError(
                    f"pictures of {self.height_px} x {self.width_px} pixels",
                    remedy=f"choose multiples of {unit_px} with --size",
                    where=where,
                )

    def cameras(self, dataset: DatasetPlan) -> Mapping[str, str]:
        return {}  # latents instead of videos

    def numeric_features(self, dataset: DatasetPlan) -> Features:
        return {"action": vector_feature("float32", layout_of(dataset).names)}

    def columns(self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns) -> Columns:
        action, valid = _named(dataset, stored, "action"), _named(dataset, stored, "action.valid")
        parts = []
        for side in layout_of(dataset).sides:
            parts.append(_pose(action, valid, side, segment.num_frames))
            if layout_of(dataset).has_gripper(side):
                parts.append(_gripper(action, valid, side, segment.num_frames))
        return {"action": np.concatenate(parts, axis=1).astype(np.float32)}

    def trained_as(self, dataset: DatasetPlan, columns: Columns) -> Columns:
        """What the loader normalises: the rows of each clip, in the T-shape relative to its first."""
        rows = columns["action"]
        is_relative = layout_of(dataset).env_type == T_SHAPE
        used = [rows[start : end - 1] for start, end in self._clips(dataset, len(rows))]
        return {"action": np.concatenate([relative(r) if is_relative else r for r in used])}

    def facts_of(
        self, dataset: DatasetPlan, segment: ExportedSegment, stored: Columns, columns: Columns
    ) -> Mapping[str, Any]:
        clips = self._clips(dataset, segment.num_frames)
        valid = _named(dataset, stored, "action.valid")
        return {
            "clips": clips,
            "invalid": int((~valid.is_set(*valid.names)).sum()),
            "uncovered": segment.num_frames - clips[-1][1],
        }

    def episode_lines(self, episode: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "action_config": [
                {"start_frame": start, "end_frame": end, "action_text": episode["text"]}
                for start, end in episode["clips"]
            ]
        }

    def write(self, unit: ExportUnit, folder: Path) -> Mapping[str, Any]:
        facts = LeRobotV21.write(self, unit, folder)
        assert self.weights is not None  # checked before
        encoders = wan_encoders(self.weights)
        layout = layout_of(unit.dataset)
        for segment in unit.segments:
            videos = {video.key: video.place for video in segment.videos}
            for number, key in enumerate(layout.cameras):
                for start, end in self._clips(unit.dataset, segment.num_frames):
                    steps = range(start, end, self.frame_stride)
                    shown = [segment.row.start + step for step in steps]
                    path = CorpusLayout(unit.corpus).path(videos[key])
                    pictures = np.stack(list(pictures_at(path, shown, unit.dataset.fps)))
                    is_half = layout.env_type == T_SHAPE and number > 0
                    size = (self.height_px, self.width_px)
                    height, width = (n // 2 for n in size) if is_half else size
                    clip = encoders.video(pictures, height, width)
                    content = {
                        "latent": clip.latent,
                        "latent_num_frames": clip.num_frames,
                        "latent_height": clip.height,
                        "latent_width": clip.width,
                        "frame_ids": list(steps),
                        "video_num_frames": len(steps),
                        "video_height": height,
                        "video_width": width,
                        "text": segment.row.text,
                        "start_frame": start,
                        "end_frame": end,
                        "fps": unit.dataset.fps / self.frame_stride,
                        "ori_fps": unit.dataset.fps,
                    }
                    if number == 0:  # 4 MB that are read of the first camera alone
                        content["text_emb"] = encoders.text(segment.row.text)
                    name = f"episode_{segment.index:06d}_{start}_{end}.pth"
                    out = folder / f"latents/chunk-{segment.index // CHUNK_SIZE:03d}/{key}" / name
                    out.parent.mkdir(parents=True, exist_ok=True)
                    out.write_bytes(file_bytes(content))
        return facts

    def meta_files(self, written: WrittenDataset) -> Mapping[str, bytes]:
        return {}

    def top_files(self, finishing: Finishing, written: list[WrittenDataset]) -> Mapping[str, bytes]:
        assert self.weights is not None
        empty = file_bytes(wan_encoders(self.weights).text(""))
        files = {}
        for each in written:
            name = each.dataset.name
            files[f"{name}/empty_emb.pt"] = empty
            module = "".join(c if c.isalnum() else "_" for c in name)  # to be imported
            files[f"lingbot_va_{module}.py"] = self._config(each).encode()
        return files

    def page(self, written: list[WrittenDataset]) -> Mapping[str, Any]:
        def of_all(name: str) -> dict[str, int]:
            return {each.dataset.name: sum(e[name] for e in each.episodes) for each in written}

        layouts = {each.dataset.name: layout_of(each.dataset) for each in written}
        return {
            "untrained": self.weights is not None and self.weights.untrained_seed is not None,
            "action_per_frame": TEMPORAL * self.frame_stride,
            "clips": {e.dataset.name: sum(len(x["clips"]) for x in e.episodes) for e in written},
            "cameras": {name: list(layout.cameras) for name, layout in layouts.items()},
            "elements_left_out": {
                each.dataset.name: sorted(
                    {".".join(n.split(".")[:2]) for n in each.dataset.names("action")}
                    - {
                        f"{side}.{part}"
                        for side in SIDES
                        for part in ("position_m", "rot6d_cols", "gripper_opening")
                    }
                )
                for each in written
            },
            "timesteps_without_a_valid_action": of_all("invalid"),
            "timesteps_in_no_clip": of_all("uncovered"),
        }

    def _clips(self, dataset: DatasetPlan, count: int) -> list[tuple[int, int]]:
        """[start, end) of the clips of `count` timesteps: 4 k + 1 pictures each, k + 1 latent frames; the last picture begins the next clip."""
        step = TEMPORAL * self.frame_stride
        longest = max(1, int(CLIP_S * dataset.fps) // step)
        clips, start = [], 0
        while (groups := min(longest, (count - 1 - start) // step)) > 0:
            clips.append((start, start + groups * step + 1))
            start += groups * step
        return clips

    def _config(self, written: WrittenDataset) -> str:
        dataset, layout = written.dataset, layout_of(written.dataset)
        low, high = self._norm(written)
        lines = [
            f"cfg.env_type = {layout.env_type!r}",
            f"cfg.height, cfg.width = {self.height_px}, {self.width_px}",
            f"cfg.action_dim, cfg.action_per_frame = {NUM_CHANNELS}, {TEMPORAL * self.frame_stride}",
            f"cfg.obs_cam_keys = {list(layout.cameras)!r}",
            f"cfg.used_action_channel_ids = {list(layout.channels)!r}",
            f"cfg.inverse_used_action_channel_ids = {layout.inverse_channels!r}",
            'cfg.action_norm_method = "quantiles"',
            f'cfg.norm_stat = {{"q01": {low!r}, "q99": {high!r}}}',
            f'cfg.dataset_path = os.path.join(HERE, "{dataset.name}")',
            'cfg.empty_emb_path = os.path.join(cfg.dataset_path, "empty_emb.pt")',
        ]
        joined = "\n".join(lines)
        return f'''"""{dataset.name} for LingBot-VA: what the data decide, over a training config of yours, such as va_robotwin_train_cfg."""

import os

HERE = os.path.dirname(os.path.abspath(__file__))


def apply(cfg):
{_indented(joined)}
    return cfg
'''

    def _norm(self, written: WrittenDataset) -> tuple[list[float], list[float]]:
        """q01 and q99 of the 30 channels. 0 is between them: the loader puts rows of zeros in front."""
        stats, layout = written.stats_of("action"), layout_of(written.dataset)
        low, high = [0.0] * NUM_CHANNELS, [0.0] * NUM_CHANNELS
        for place, channel in enumerate(layout.channels):
            low[channel] = min(0.0, float(stats["q01"][place]))
            high[channel] = max(0.0, float(stats["q99"][place]))
            if low[channel] == high[channel]:
                high[channel] = 1.0  # a constant 0, such as the position of an absent arm
        return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLayout:
    """How a dataset is laid out for the loader. `channels`: of each column of `action`, in its order."""

    env_type: str
    cameras: tuple[str, ...]
    sides: tuple[str, ...]
    channels: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        out: list[str] = []
        for side in self.sides:
            out += [f"{side}.position_m.{axis}" for axis in "xyz"]
            out += [f"{side}.quat_xyzw.{axis}" for axis in "xyzw"]
            out += [f"{side}.gripper_opening"] if self.has_gripper(side) else []
        return tuple(out)

    def has_gripper(self, side: str) -> bool:
        return SLOTS[side][1] in self.channels

    @property
    def inverse_channels(self) -> list[int]:
        """Of each of the 30 channels its column; one past the last for a channel that is not used."""
        return [
            self.channels.index(c) if c in self.channels else len(self.channels)
            for c in range(NUM_CHANNELS)
        ]


def layout_of(dataset: DatasetPlan) -> ClipLayout:
    """The T-shape where there are a scene and two wrists, and a gripper: its code reads exactly 16 columns. Else all cameras beside each other."""
    scene, wrists = scene_camera(dataset.video_keys), wrist_cameras(dataset.video_keys)
    names = dataset.names("action")
    grippers = {side for side in SIDES if f"{side}.gripper_opening" in names}
    if len(wrists) == 2 and scene not in wrists and grippers == set(_posed(dataset)):
        return ClipLayout(
            env_type=T_SHAPE,
            cameras=(scene, *wrists),
            sides=("left", "right"),
            channels=T_SHAPE_CHANNELS,
        )
    channels: list[int] = []
    for side in _posed(dataset):
        first, gripper = SLOTS[side]
        channels += [*range(first, first + 7), *([gripper] if side in grippers else [])]
    others = (key for key in dataset.video_keys if key != scene)
    return ClipLayout(
        env_type=IN_A_ROW,
        cameras=(scene, *others),
        sides=_posed(dataset),
        channels=tuple(channels),
    )


def relative(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """[K, 16] as the loader makes them of the T-shape: positions less the first, in the axes of the base; rotations from the first on."""
    from scipy.spatial.transform import Rotation

    out = rows.astype(np.float64)
    for first in (0, 8):
        rotation = Rotation.from_quat(out[:, first + 3 : first + 7])
        out[:, first : first + 3] -= out[:1, first : first + 3].copy()
        out[:, first + 3 : first + 7] = (rotation[0].inv() * rotation).as_quat()
    return out.astype(np.float32)


def _posed(dataset: DatasetPlan) -> tuple[str, ...]:
    """Sides whose pose the action has."""
    names = dataset.names("action")
    return tuple(
        side
        for side in SIDES
        if f"{side}.position_m.x" in names and f"{side}.rot6d_cols.xx" in names
    )


def _named(dataset: DatasetPlan, stored: Columns, feature: str) -> Named:
    return Named(values=stored[feature], names=dataset.names(feature))


def _pose(action: Named, valid: Named, side: str, count: int) -> npt.NDArray[np.float64]:
    """[K, 7] position and quaternion; a row that is not valid is the one before it, or the first valid one."""
    position_m, turn = action.part(f"{side}.position_m"), action.part(f"{side}.rot6d_cols")
    known = valid.is_set(f"{side}.position_m", f"{side}.rot6d_cols")
    if position_m is None or turn is None or not known.any():
        return np.tile(NO_POSE, (count, 1))
    rotmat = rotmat_from_rot6d_cols(np.where(known[:, None], turn, NO_TURN))
    quat = quat_xyzw_from_rotmat(rotmat)
    quat = quat[_held(known)]
    flips = np.concatenate([[False], (quat[1:] * quat[:-1]).sum(axis=1) < 0])
    quat = np.where((np.cumsum(flips) % 2 == 1)[:, None], -quat, quat)  # q and -q are one rotation
    return np.concatenate([position_m[_held(known)], quat], axis=1)


def _gripper(action: Named, valid: Named, side: str, count: int) -> npt.NDArray[np.float64]:
    """[K, 1] opening, 1 open; held like a pose."""
    opening, known = action.part(f"{side}.gripper_opening"), valid.is_set(f"{side}.gripper_opening")
    if opening is None or not known.any():
        return np.zeros((count, 1))
    return opening[_held(known)]


def _held(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """[K] the last row until each that is known; before the first known one, that one."""
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    return np.asarray(np.where(last < 0, known.argmax(), last), dtype=np.int64)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
