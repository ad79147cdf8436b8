"""Recording: each take becomes an HDF5 file, an MP4 and a label, in the layout of `adapters/metaworld_hdf5`.

The label is written last, and each file by rename, so three files that are there are whole: a recording that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import av
import h5py
import numpy as np

from benchmarks.routing.plan import Take
from benchmarks.routing.play import AFTER, rule_of
from benchmarks.routing.scenes import task_named
from training.rollout.sawyer import TIMESTEP_S, Array, Felt, Picture, World

LAYOUT = "metaworld_hdf5 1"
RATE_HZ = 10
LABEL = ".label.json"


@dataclass(kw_only=True)
class Recording:
    """What was seen and done, timestep by timestep."""

    felt: list[Felt] = field(default_factory=list)  # before each action
    after: list[Felt] = field(
        default_factory=list
    )  # behind each: its targets are what was commanded
    actions: list[Array] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    success_at: int | None = None  # timesteps until the first success


def record_all(
    root: Path, takes: Sequence[Take], *, progress: Callable[[int, int], None]
) -> dict[str, int]:
    """Record what is not there yet; returns counts of episodes recorded, kept, and timesteps recorded."""
    missing = [take for take in takes if not is_whole(root, take)]
    counts = {"recorded": 0, "kept": len(takes) - len(missing), "timesteps": 0}
    for name, group in groupby(missing, key=lambda take: take.task):
        with World(name) as world:
            for take in group:
                recording = play(take, world)
                write(root, take, recording)
                counts["recorded"] += 1
                counts["timesteps"] += len(recording.actions)
                progress(counts["kept"] + counts["recorded"], len(takes))
    return counts


def is_whole(root: Path, take: Take) -> bool:
    return all((root / f"{take.name}{s}").is_file() for s in (".hdf5", ".mp4", LABEL))


def play(take: Take, world: World, *, has_pictures: bool = True) -> Recording:
    """Play a take from its scene's start to its end."""
    world.reset(take.seed)
    rule = rule_of(take, world)
    out = Recording()
    for k in range(rule.limit):
        out.felt.append(world.felt())
        if has_pictures:
            out.pictures.append(world.picture())
        action = rule.act(k, world)
        world.hold(action)
        out.actions.append(action)
        out.after.append(world.felt())
        if world.is_success and out.success_at is None:
            out.success_at = k + 1
        if out.success_at is not None and k + 1 >= out.success_at + AFTER:
            break
    return out


def write(root: Path, take: Take, recording: Recording) -> None:
    """The three files of one episode."""
    path = root / take.name
    path.parent.mkdir(parents=True, exist_ok=True)
    _by_rename(path.with_suffix(".hdf5"), lambda at: _write_rows(at, take, recording))
    _by_rename(path.with_suffix(".mp4"), lambda at: write_video(at, recording.pictures))
    label = {
        "play": take.play.value,
        "sigma": take.sigma,
        "seed": take.seed,
        "has_actions": take.has_actions,
        "is_success": recording.success_at is not None,
        "success_at": recording.success_at,
        "length": len(recording.actions),
    }
    data = json.dumps(label, sort_keys=True).encode()
    _by_rename(path.with_suffix(LABEL), lambda at: _write_bytes(at, data))


def _write_rows(at: Path, take: Take, recording: Recording) -> None:
    with h5py.File(at, "w", track_order=False) as file:
        file.attrs["layout"] = LAYOUT
        file.attrs["rate_hz"] = RATE_HZ
        file.attrs["instruction"] = task_named(take.task).instruction
        file["time_s"] = np.arange(len(recording.felt)) * TIMESTEP_S
        if not take.has_actions:
            return
        file["hand/position_m"] = np.array([f.position_m for f in recording.felt])
        file["hand/quat_wxyz"] = np.array([f.quat_wxyz for f in recording.felt])
        file["hand/gap_m"] = np.array([f.gap_m for f in recording.felt])
        file["command/position_m"] = np.array([f.target_m for f in recording.after])
        file["command/quat_wxyz"] = np.array([f.target_quat_wxyz for f in recording.after])
        file["command/action"] = np.array(recording.actions)


def write_video(at: Path, pictures: Sequence[Picture]) -> None:
    """H.264 without loss but for its chroma; the corpus copies it. At CRF 14 the codec moves latents by as much as another scene does."""
    with av.open(str(at), "w", format="mp4") as container:
        options = {"preset": "veryfast", "crf": "0", "g": "10"}
        stream = container.add_stream("libx264", rate=RATE_HZ, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for k, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = k, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_bytes(at: Path, data: bytes) -> None:
    at.write_bytes(data)


def _by_rename(path: Path, write_at: Callable[[Path], None]) -> None:
    part = path.with_name(f".{path.name}.part")
    write_at(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
