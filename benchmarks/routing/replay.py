"""The oracle: recorded commands, played back open loop, raw and by way of the corpus. It needs no network.

`raw` gives the simulator the very actions of the HDF5 file. `corpus` reads the episode's action column, derives `delta_body_rotvec_1` as
a trainer does, puts the motions one after the other again from where the hand stands (`training/policy/embodiments.py`), hands them out in chunks through the
same `rollout` that a trained policy goes through, and lets that turn them into Meta-World's actions. Both start in the scene of the
label's seed. If anything on the way had another sign, frame, unit or timestep, the second would fail where the first does not.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.routing.rollout import rollout
from benchmarks.routing.scenes import TASKS, task_named
from benchmarks.routing.statistics import wilson
from benchmarks.routing.stored import Stored, label_of, stored
from schemas.geometry import Array, rotmat_from_rot6d_cols, transform
from training.policy.embodiments import integrated
from training.policy.observation import ActionChunk, Observation
from training.rollout.loop import Horizon
from training.rollout.sawyer import TIMESTEP_S, Picture, World, as_target, body_position_m, spec

NUM_ACTIONS = 16


@dataclass(kw_only=True)
class Playback:
    """A policy that knows the episode by heart: it answers with the next motions, from the target that is in force."""

    episode: Stored
    num_actions: int = NUM_ACTIONS
    at: int = 0
    executed: int = 8

    def act(self, observation: Observation) -> ActionChunk:
        motions = self.episode.motions[self.at : self.at + self.num_actions]
        opening = self.episode.opening[self.at : self.at + self.num_actions]
        self.at += self.executed
        if observation.history is None:
            raise ValueError("a playback needs the target in force")
        T_now = _pose_in_force(np.asarray(observation.history[-1], dtype=np.float64))
        poses = integrated(motions, T_now)
        targets = np.array([as_target(T, o) for T, o in zip(poses, opening, strict=True)])
        t_s = TIMESTEP_S * np.arange(1, len(targets) + 1, dtype=np.float64)
        return ActionChunk(spec=spec(), targets=targets, t_s=t_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One episode, played again."""

    episode_id: str
    play: str
    was_success: bool  # when it was recorded
    raw_success: bool
    corpus_success: bool
    target_error_m: float  # worst distance of the chained targets from the commands in the raw file


class Blind(World):
    """A world that draws nothing: a playback looks at no picture."""

    def picture(self) -> Picture:
        return np.zeros((2, 2, 3), np.uint8)


def replay_all(corpus: Path, raw: Path, *, workers: int) -> list[Replayed]:
    """Every episode with actions; each process replays whole tasks, for a world is slow to make."""
    tasks = sorted(task.name for task in TASKS)
    ask = partial(_replays_of, corpus, raw)
    if workers == 1:
        return [one for task in tasks for one in ask(task)]
    with ProcessPoolExecutor(min(workers, len(tasks)), get_context("spawn")) as pool:
        return [one for of in pool.map(ask, tasks) for one in of]


def _replays_of(corpus: Path, raw: Path, task: str) -> list[Replayed]:
    with Blind(task) as world:
        return [replayed(episode, raw, world) for episode in stored(corpus, task)]


def replayed(episode: Stored, raw: Path, world: World) -> Replayed:
    label = label_of(raw, episode.episode_id)
    with h5py.File(raw / f"{episode.episode_id}.hdf5", "r") as file:
        actions = np.asarray(file["command/action"])
        commanded_m = np.asarray(file["command/position_m"])
        quat_wxyz = np.asarray(file["command/quat_wxyz"])
    world.reset(label["seed"])
    for action in actions:
        world.hold(action)
    raw_success = world.is_success
    horizon = Horizon(limit=len(episode.motions))
    policy = Playback(episode=episode, executed=horizon.execute)
    task = task_named(episode.episode_id.partition("/")[0])
    outcome = rollout(policy, world, task, label["seed"], horizon)
    chained = integrated(episode.motions, episode.T_start)
    found_m = np.array([body_position_m(T, q) for T, q in zip(chained, quat_wxyz, strict=True)])
    return Replayed(
        episode_id=episode.episode_id,
        play=label["play"],
        was_success=label["is_success"],
        raw_success=raw_success,
        corpus_success=outcome.is_success,
        target_error_m=float(np.linalg.norm(found_m - commanded_m, axis=1).max()),
    )


@dataclass(kw_only=True)
class _Tally:
    was: int = 0
    raw: int = 0
    corpus: int = 0
    differ: int = 0
    count: int = 0
    worst_m: float = 0.0
    by_task: dict[str, list[int]] = field(default_factory=dict)


def summary(replays: list[Replayed]) -> dict[str, Any]:
    """Success of the recording, of its raw replay, and of the replay by way of the corpus, in all and by task."""
    tally = _Tally()
    for one in replays:
        tally.count += 1
        tally.was += one.was_success
        tally.raw += one.raw_success
        tally.corpus += one.corpus_success
        tally.differ += one.raw_success != one.corpus_success
        tally.worst_m = max(tally.worst_m, one.target_error_m)
        row = tally.by_task.setdefault(one.episode_id.partition("/")[0], [0, 0, 0, 0])
        for i, value in enumerate((1, one.was_success, one.raw_success, one.corpus_success)):
            row[i] += value
    keys = ("episodes", "recorded", "raw", "corpus")
    return {
        "episodes": tally.count,
        "recorded_success": wilson(tally.was, tally.count).as_dict(),
        "raw_success": wilson(tally.raw, tally.count).as_dict(),
        "corpus_success": wilson(tally.corpus, tally.count).as_dict(),
        "different_outcome": tally.differ,
        "worst_target_error_m": tally.worst_m,
        "by_task": {t: dict(zip(keys, row, strict=True)) for t, row in tally.by_task.items()},
    }


def _pose_in_force(target: Array) -> Array:
    return transform(rotmat_from_rot6d_cols(target[3:9]), target[:3])
