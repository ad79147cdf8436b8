"""Trained policies in the simulator: the same scenes for every cell of a seed, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.routing.rollout import rollout
from benchmarks.routing.scenes import TASKS, Task
from benchmarks.routing.settings import Scenes
from benchmarks.routing.statistics import wilson
from training.rollout.loop import Acting, Horizon, RolloutOutcome, scene_seed
from training.rollout.sawyer import TIMESTEP_S, World

# Of scenes that no recording has; those that settings are chosen on are not those of the figures.
KEYS: dict[Scenes, int] = {"final": 3_000, "validation": 1_000}


@lru_cache(maxsize=1)  # a process tries one policy after the other
def policy_of(run: Path, num_chunks: int = 1) -> Acting:
    """The policy of a training run's last checkpoint, with averaged weights where the recipe has them. Its encoder's weights are a package's.

    `num_chunks` above 1: it plans, with the value head of the checkpoint.

    Raises:
        ConfigError: no whole checkpoint, or other weights than its latents were made with.
    """
    import torch

    from jobs.commands.policy_encoder import encoder_for
    from training.policy.policy import Policy, PolicySettings
    from training.run.checkpoint import checkpoint_of, recipe_of

    # One sample at a time gains nothing from threads, and loses much where others work on the same cores.
    torch.set_num_threads(1)
    checkpoint = checkpoint_of(run, None)
    encode = encoder_for(checkpoint.state.encoder_id, weights=None, hub_id=None, device="auto")
    has_averages = recipe_of(checkpoint).optimiser.ema is not None
    settings = PolicySettings(use_averages=has_averages, num_chunks=num_chunks)
    return Policy.load(run, encode, settings)


def outcomes_of(
    run: Path,
    key: tuple[Scenes, int],
    count: int,
    execute: int,
    task: str,
    *,
    num_chunks: int = 1,
) -> list[RolloutOutcome]:
    """Rollouts of one run in one task.

    Args:
        key: which scenes: those of a purpose and of a seed. execute: timesteps of a chunk that are carried out. num_chunks: see `policy_of`.
    """
    tasks = [each for each in TASKS if each.name == task]
    horizon = horizon_of(run, execute)
    policy = policy_of(run, num_chunks)
    return list(rolled_out(policy, key=key, count=count, horizon=horizon, tasks=tasks))


def horizon_of(run: Path, execute: int) -> Horizon:
    """Pictures from as long ago as the run's recipe says."""
    from training.run.checkpoint import checkpoint_of, recipe_of

    past_s = recipe_of(checkpoint_of(run, None)).data.past_s
    past_steps = tuple(round(offset / TIMESTEP_S) for offset in past_s)
    return Horizon(execute=execute, past_steps=past_steps)


def scenes(task: Task, key: tuple[Scenes, int], count: int) -> list[int]:
    """Seeds of the scenes of a task: others than the recorded ones, the same for every cell of a seed."""
    index = [t.name for t in TASKS].index(task.name)
    purpose, seed = key
    return [scene_seed(seed, KEYS[purpose], index, k) for k in range(count)]


def rolled_out(
    policy: Acting,
    *,
    key: tuple[Scenes, int],
    count: int,
    horizon: Horizon,
    tasks: Iterable[Task] = TASKS,
    world_of: Callable[[str], Any] = World,
) -> Iterator[RolloutOutcome]:
    """`count` rollouts of each trained task."""
    for task in tasks:
        if not task.is_trained:
            continue
        with world_of(task.name) as world:
            for scene in scenes(task, key, count):
                yield rollout(policy, world, task, scene, horizon)


def rollout_report(results: Iterable[RolloutOutcome]) -> dict[str, Any]:
    """Success in all and by task, and every rollout."""
    outcomes = list(results)
    by_task: dict[str, list[RolloutOutcome]] = {}
    for one in outcomes:
        by_task.setdefault(one.task, []).append(one)
    return {
        "success": wilson(sum(o.is_success for o in outcomes), len(outcomes)).as_dict(),
        "by_task": {
            task: wilson(sum(o.is_success for o in of), len(of)).as_dict()
            for task, of in by_task.items()
        },
        "rollouts": [asdict(one) for one in outcomes],
    }
