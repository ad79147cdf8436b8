"""The twelve rules of LingBot-VA's loader, Robbyant/lingbot-va `wan_va/dataset/lerobot_latent_dataset.py` at 7c6ffa9. A finding names its rule.

1 an absolute path, and no `info.json` besides those of `meta/`. 2 LeRobot v2.1; declared videos exist. 3 episodes in order. 4 `action_config` of
every episode, inside of it. 5 latents of every camera. 6 their keys, shapes and 4k + 1 pictures at one stride. 7 `empty_emb.pt`. 8 as many columns
as channels. 9 rows: `action_per_frame` is four strides. 10 the T-shape: 16 columns with quaternions, wrists half as wide. 11 q01 and q99 are
those of the trained values, and 0 is between them. 12 clips of a batch of one: sides even, at most 30 s.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.export.rules.export_files import BrokenFile, ExportFiles, findings
from ingest.export.rules.lerobot_episode_files import (
    INFO,
    DatasetV21,
    EpisodeRows,
    dataset_findings,
    open_dataset,
)
from ingest.models.clip_file import StoredClip, stored_clip, stored_shape
from ingest.models.wan_encoders import CHANNELS, TEXT_TOKENS, TEXT_WIDTH
from ingest.storage.file_tree import entries_below
from schemas.errors import PipelineError
from schemas.lerobot import CHUNK_SIZE

NUM_CHANNELS, TEMPORAL = 30, 4
T_SHAPE = "robotwin_tshape"
CLIP_S = 30.0
TEXT_SHAPE = (TEXT_TOKENS, TEXT_WIDTH)
SETTINGS = {
    *("env_type", "action_dim", "action_per_frame", "obs_cam_keys", "used_action_channel_ids"),
    *("inverse_used_action_channel_ids", "norm_stat", "dataset_path"),
}
HERE = "HERE"  # the folder of a config, in it
MARGIN = 0.02  # of q99 - q01: quantiles are of a histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """What `apply` of a config sets. `values` may lack what it does not write out."""

    place: str
    values: Mapping[str, Any]

    @property
    def cameras(self) -> list[str]:
        return list(self.values["obs_cam_keys"])

    @property
    def channels(self) -> list[int]:
        return list(self.values["used_action_channel_ids"])

    @property
    def is_t_shape(self) -> bool:
        return bool(self.values["env_type"] == T_SHAPE)


def lingbot_va(out: ExportFiles, folders: list[str]) -> Iterator[str]:
    """What breaks a rule, in each dataset and its config."""
    for folder in folders:
        yield from findings(folder, partial(_dataset, out, folder))


def _dataset(out: ExportFiles, folder: str) -> Iterator[str]:
    files = out.below(folder)
    name = f"lingbot_va_{''.join(c if c.isalnum() else '_' for c in folder)}.py"
    config = _Config(place=name, values=_settings(out.program(name)))
    if absent := sorted(SETTINGS - set(config.values)):
        yield f"{name}: {', '.join(absent)} missing or not written out"
        return
    yield from findings(name, partial(_config, config, folder))
    yield from _tree(files, folder)
    dataset = open_dataset(files)
    if dataset.video_keys:
        yield f"{folder}/{INFO}: videos are declared, and none are there (rule 2)"
        return
    norm = _Norm(config)
    yield from dataset_findings(dataset, partial(_episode, dataset, config, norm))
    yield from findings(name, norm.problems)


def _settings(program: ast.Module) -> dict[str, Any]:
    """`cfg.NAME = VALUE` of `apply`; os.path.join(HERE, NAME) is (HERE, NAME)."""
    out: dict[str, Any] = {}
    for node in ast.walk(program):
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        parts = (
            list(zip(target.elts, value.elts, strict=False))
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            else [(target, value)]
        )
        for each, part_value in parts:
            if isinstance(each, ast.Attribute):
                out[each.attr] = _value(part_value)
    return {name: value for name, value in out.items() if value is not None}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "os.path.join":
        first, *rest = node.args
        names = [each.value for each in rest if isinstance(each, ast.Constant)]
        return (ast.unparse(first), *names)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None


def _config(config: _Config, folder: str) -> Iterator[str]:
    values, place = config.values, config.place
    path = values["dataset_path"]
    is_absolute = isinstance(path, str) and PurePosixPath(path).is_absolute()
    if path != (HERE, folder) and not is_absolute:
        yield f"{place}: dataset_path {path!r} is not the folder of the dataset, absolute (rule 1)"
    channels = config.channels
    if len(set(channels)) != len(channels) or not set(channels) <= set(range(NUM_CHANNELS)):
        yield f"{place}: used_action_channel_ids are not different channels of 0 to 29 (rule 8)"
    inverse = [
        channels.index(c) if c in channels else len(channels) for c in range(values["action_dim"])
    ]
    if values["inverse_used_action_channel_ids"] != inverse:
        yield f"{place}: inverse_used_action_channel_ids are not those of the channels (rule 8)"
    if values["action_dim"] != NUM_CHANNELS:
        yield f"{place}: action_dim {values['action_dim']}; expected {NUM_CHANNELS} (rule 8)"


def _tree(files: ExportFiles, folder: str) -> Iterator[str]:
    for entry in entries_below(files.root):
        place = PurePosixPath(entry.path).relative_to(PurePosixPath(str(files.root)))
        if entry.name == "info.json" and str(place) != INFO:
            yield f"{folder}/{place}: another info.json, which the loader takes for a dataset (rule 1)"
    if _shape_of(files, "empty_emb.pt") != TEXT_SHAPE:
        yield f"{folder}/empty_emb.pt: no tensor {list(TEXT_SHAPE)} (rule 7)"


def _shape_of(files: ExportFiles, place: str) -> tuple[int, ...] | None:
    try:
        return stored_shape(files.path(place))
    except PipelineError as error:
        raise BrokenFile(f"{files.prefix}{place}: {error.message} (rule 7)") from error


def _episode(
    dataset: DatasetV21, config: _Config, norm: _Norm, episode: EpisodeRows
) -> Iterator[str]:
    place = f"{dataset.files.prefix}meta/episodes.jsonl: line {episode.number + 1}"
    actions = episode.columns["action"].astype(np.float64)
    if actions.shape[1] != len(config.channels):
        yield f"{episode.place}: {actions.shape[1]} columns for {len(config.channels)} channels (rule 8)"
        return
    clips = episode.line.get("action_config")
    if not clips:
        yield f"{place} has no action_config (rule 4)"
        return
    for clip in clips:
        start, end = clip["start_frame"], clip["end_frame"]
        if not (type(start) is type(end) is int and 0 <= start < end <= len(actions)):
            yield f"{place}: clip [{start}, {end}) is not inside its episode (rule 4)"
            continue
        if not isinstance(clip["action_text"], str):
            yield f"{place}: clip [{start}, {end}) has no action_text (rule 4)"
        rows = actions[start:end]
        yield from _clip(dataset, config, norm, episode.number, (start, end), rows)


def _clip(
    dataset: DatasetV21,
    config: _Config,
    norm: _Norm,
    number: int,
    span: tuple[int, int],
    rows: npt.NDArray[np.float64],
) -> Iterator[str]:
    loaded = []
    name = f"episode_{number:06d}_{span[0]}_{span[1]}.pth"
    for camera in config.cameras:
        place = f"latents/chunk-{number // CHUNK_SIZE:03d}/{camera}/{name}"
        shown = f"{dataset.files.prefix}{place}"
        if not dataset.files.has(place):
            yield f"{shown}: missing; the loader leaves the clip out in silence (rule 5)"
            return
        try:
            content = stored_clip(dataset.files.path(place))
        except PipelineError as error:
            yield f"{shown}: {error.message} (rule 6)"
            return
        problems = list(_latent(content))
        yield from (f"{shown}: {problem}" for problem in problems)
        if problems:
            return
        loaded.append((shown, content))
    shown, first = loaded[0]
    if first.text_shape != TEXT_SHAPE:
        yield f"{shown}: no text_emb {list(TEXT_SHAPE)}, which is read of the first camera (rule 6)"
    if len({content.num_frames for _, content in loaded}) != 1:
        yield f"{shown}: cameras have different numbers of latent frames (rule 6)"
    yield from _joined(config, shown, [content for _, content in loaded])
    yield from _used(config, norm, shown, first.frame_ids, span[0], rows, dataset.info.fps)


def _latent(content: StoredClip) -> Iterator[str]:
    frames, height, width = content.num_frames, content.height, content.width
    if content.shape != (frames * height * width, CHANNELS) or content.dtype != "bfloat16":
        yield f"latent {content.dtype} {list(content.shape)} has another shape than it says (rule 6)"
    if not content.is_finite:
        yield "latent has a number that is not finite (rule 6)"
    if height % 2 or width % 2:
        yield f"an odd side of {height} x {width} latents (rule 12)"
    ids = content.frame_ids
    if len(ids) < 5 or len(ids) != TEMPORAL * (frames - 1) + 1:
        yield f"{len(ids)} pictures of {frames} latent frames; expected 4 (F - 1) + 1 (rule 6)"
    elif len(set(np.diff(ids).tolist())) != 1 or ids[1] <= ids[0]:
        yield "pictures at no constant stride (rule 6)"


def _joined(config: _Config, place: str, contents: Sequence[StoredClip]) -> Iterator[str]:
    """As the cameras are put beside each other."""
    sizes = [(content.height, content.width) for content in contents]
    if not config.is_t_shape:
        if len({height for height, _ in sizes}) != 1:
            yield f"{place}: cameras of different heights (rule 10)"
        return
    scene, *wrists = sizes
    is_fit = len(wrists) == 2 and wrists[0][0] == wrists[1][0]
    if not is_fit or sum(width for _, width in wrists) != scene[1]:
        yield f"{place}: two wrists are not together as wide as the scene (rule 10)"


def _used(
    config: _Config,
    norm: _Norm,
    place: str,
    ids: Sequence[int],
    start: int,
    rows: npt.NDArray[np.float64],
    fps: int,
) -> Iterator[str]:
    stride = ids[1] - ids[0]
    if TEMPORAL * stride != config.values["action_per_frame"]:
        yield f"{place}: action_per_frame {config.values['action_per_frame']} is not four strides of {stride} (rule 9)"
    if (ids[-1] - ids[0]) / fps > CLIP_S + 1e-6:
        yield f"{place}: a clip of more than {CLIP_S:g} s (rule 12)"
    if ids[0] < start:
        yield f"{place}: begins before its clip (rule 9)"
        return
    needed = (len(ids) - 1) // TEMPORAL * TEMPORAL * stride
    used = rows[ids[0] - start :][:needed]
    if len(used) < needed:
        yield f"{place}: {len(used)} rows after its first picture; needs {needed} (rule 9)"
        return
    if config.is_t_shape:
        if used.shape[1] != 16:
            yield f"{place}: {used.shape[1]} columns; the T-shape reads 16 (rule 10)"
            return
        lengths = np.linalg.norm(used[:, [[3, 4, 5, 6], [11, 12, 13, 14]]], axis=2)
        if (np.abs(lengths - 1) > 1e-3).any():
            yield f"{place}: a quaternion that is no rotation; an absent arm has (0, 0, 0, 1) (rule 10)"
            return
        used = _relative(used)
    norm.add(used)


def _relative(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rule 10: positions less the first, rotations first^-1 · rotation, quaternions x, y, z, w."""
    out = rows.copy()
    for at in (0, 8):
        out[:, at : at + 3] -= rows[0, at : at + 3]
        x, y, z, w = rows[0, at + 3 : at + 7] * (-1, -1, -1, 1)
        by_first = np.array([[w, -z, y, x], [z, w, -x, y], [-y, x, w, z], [-x, -y, -z, w]])
        out[:, at + 3 : at + 7] = rows[:, at + 3 : at + 7] @ by_first.T
    return out


class _Norm:
    """Rule 11, over all clips: how many trained values are below q01 and above q99 of their channel."""

    def __init__(self, config: _Config) -> None:
        self.config = config
        norm = config.values["norm_stat"]
        low, high = (np.array(norm[name], dtype=float) for name in ("q01", "q99"))
        self.is_shaped = low.shape == high.shape == (NUM_CHANNELS,)
        if not self.is_shaped:
            return
        self.low, self.high = low[config.channels], high[config.channels]
        self.is_around_zero = bool((low <= 0).all() and (high >= 0).all() and (low < high).any())
        self.margin = MARGIN * (self.high - self.low)
        self.count = 0
        self.below, self.reaching_low = (np.zeros(len(self.low), np.int64) for _ in range(2))
        self.above, self.reaching_high = (np.zeros(len(self.low), np.int64) for _ in range(2))

    def add(self, values: npt.NDArray[np.float64]) -> None:
        if not self.is_shaped:
            return
        self.count += len(values)
        self.below += (values < self.low - self.margin).sum(axis=0)
        self.above += (values > self.high + self.margin).sum(axis=0)
        self.reaching_low += (values <= self.low + self.margin).sum(axis=0)
        self.reaching_high += (values >= self.high - self.margin).sum(axis=0)

    def problems(self) -> Iterator[str]:
        place = self.config.place
        if not self.is_shaped or not self.is_around_zero:
            yield f"{place}: zero is outside of q01 to q99 of a channel, or not {NUM_CHANNELS} of them (rule 11)"
            return
        most = 0.01 * self.count + 1  # beyond a quantile of one hundredth
        least = max(0.01 * self.count - 1, 1)
        is_moving = self.high - self.low != 1.0  # 0 to 1: a channel that stands still
        wrong = (self.below > most) | (self.above > most)
        wrong |= is_moving & (self.low < 0) & (self.reaching_low < least)
        wrong |= is_moving & (self.high > 0) & (self.reaching_high < least)
        if self.count and wrong.any():
            channel = self.config.channels[int(wrong.argmax())]
            yield f"{place}: q01 and q99 of channel {channel} are not those of the trained values (rule 11)"
