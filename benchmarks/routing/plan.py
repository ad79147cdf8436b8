"""Which episodes are recorded: a list that depends on the budget and the seed alone, so that a stopped recording knows what is missing.

Numbers within a task are dealt at random: nothing in an episode's id tells how it was played.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from benchmarks.routing.scenes import TASKS, Task
from training.rollout.loop import scene_seed

SIGMAS = (
    0.5,
    1.0,
    2.0,
)  # of noise, in parts of the expert's full move (at most 0.016 m a timestep)


class Play(StrEnum):
    EXPERT = "expert"
    NOISY = "noisy"  # the expert with Gaussian noise on every move
    OTHER_GOAL = "other_goal"  # the expert of a scene that lies 8 to 15 cm beside this one
    STOPPED_EARLY = "stopped_early"  # the expert, cut off at 40 to 70 % of its way
    RANDOM = "random"  # smooth moves to random places


FAILED = (Play.OTHER_GOAL, Play.STOPPED_EARLY, Play.RANDOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Episodes of each trained task; `held_out` experts train nothing; `replays` of each task that is only replayed."""

    expert: int = 40
    held_out: int = 20
    noisy: int = 80
    failed: int = 80
    video: int = 160
    replays: int = 12

    @classmethod
    def quick(cls) -> Budget:
        """Shows that everything runs; do not quote it."""
        return cls(expert=3, held_out=1, noisy=2, failed=3, video=5, replays=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """One episode to be recorded. `seed` is that of its scene, and keys everything random in it."""

    task: str
    number: int
    seed: int
    play: Play
    sigma: float = 0.0
    has_actions: bool = True

    @property
    def name(self) -> str:
        return f"{self.task}/{self.number:06d}"


def takes(budget: Budget, seed: int) -> Iterator[Take]:
    """All episodes, task by task."""
    for index, task in enumerate(TASKS):
        planned = list(_needed(task, budget))
        numbers = np.random.default_rng([seed, index]).permutation(len(planned))
        for place, (play, sigma, has_actions) in enumerate(planned):
            number = int(numbers[place])
            yield Take(
                task=task.name,
                number=number,
                seed=scene_seed(seed, index, number),
                play=play,
                sigma=sigma,
                has_actions=has_actions,
            )


def _needed(task: Task, budget: Budget) -> Iterator[tuple[Play, float, bool]]:
    """(play, sigma, has actions) of each episode of a task. Videos are of experts and of noisy play, by halves."""
    if not task.is_trained:
        yield from [(Play.EXPERT, 0.0, True)] * budget.replays
        return
    yield from [(Play.EXPERT, 0.0, True)] * (budget.expert + budget.held_out)
    for k in range(budget.noisy):
        yield Play.NOISY, SIGMAS[k % len(SIGMAS)], True
    for k in range(budget.failed):
        yield FAILED[k % len(FAILED)], 0.0, True
    for k in range(budget.video):
        if k % 2:
            yield Play.NOISY, SIGMAS[k // 2 % len(SIGMAS)], False
        else:
            yield Play.EXPERT, 0.0, False
