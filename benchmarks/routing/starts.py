"""How far beside the expert a policy begins: its first chunk in episodes that nothing was trained on, where no motion tells where it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import h5py
import numpy as np

from benchmarks.routing.plan import Take
from benchmarks.routing.scenes import task_named
from benchmarks.routing.trained import Asked, policy_of
from schemas.metaworld import opening_of
from training.policy.observation import ActionChunk, Observation
from training.rollout.sawyer import (
    CAMERA,
    EMBODIMENT,
    Array,
    as_target,
    body_position_m,
    hand_pose,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """`error_m`: by task, the mean distance between the targets of the first chunk and those that the expert commanded, over episodes and timesteps.

    `chunk_cpu_s`: the median of the CPU time that a chunk takes, from pictures to targets: on one thread, so that it is the latency where nothing else runs.
    """

    error_m: dict[str, float]
    chunk_cpu_s: float


def starts_of(run: Path, raw: Path, held_out: Mapping[str, Sequence[Take]], asked: Asked) -> Starts:
    """The first chunk of every held-out episode.

    The first image is of the recorded video, which the corpus copied: latents are those of training.
    """
    policy = policy_of(run, asked)
    error_m: dict[str, float] = {}
    cpu_s: list[float] = []
    for task, of in held_out.items():
        errors_m = []
        for take in of:
            observation = _first(raw, take)
            begin = time.process_time()
            chunk = policy.act(observation)
            cpu_s.append(time.process_time() - begin)
            errors_m.append(_error_m(chunk, raw, take))
        if errors_m:
            error_m[task] = float(np.mean(errors_m))
    return Starts(error_m=error_m, chunk_cpu_s=float(np.median(cpu_s)))


def _first(raw: Path, take: Take) -> Observation:
    """What a policy is shown as the episode begins: as in a rollout, what is in force is where the hand is."""
    with h5py.File(raw / f"{take.name}.hdf5", "r") as file:
        position_m, quat_wxyz, gap_m = (
            np.asarray(file[f"hand/{name}"][0]) for name in ("position_m", "quat_wxyz", "gap_m")
        )
    with av.open(str(raw / f"{take.name}.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    T_hand = hand_pose(position_m, quat_wxyz)
    return Observation(
        text=task_named(take.task).instruction,
        embodiment=EMBODIMENT,
        pictures={CAMERA: picture[None]},
        history=as_target(T_hand, 1.0)[None],
        state=as_target(T_hand, float(opening_of(float(gap_m)))),
        is_stored=True,
    )


def _error_m(chunk: ActionChunk, raw: Path, take: Take) -> float:
    with h5py.File(raw / f"{take.name}.hdf5", "r") as file:
        told_m: Array = np.asarray(file["command/position_m"])[: len(chunk.targets)]
        quat_wxyz = np.asarray(file["command/quat_wxyz"])[: len(chunk.targets)]
    poses = chunk.T_ref_hand("left")[: len(told_m)]
    said_m = np.array([body_position_m(T, q) for T, q in zip(poses, quat_wxyz, strict=True)])
    return float(np.linalg.norm(said_m - told_m, axis=1).mean())
