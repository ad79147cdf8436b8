"""Trained policies in the simulator: the same scenes for every cell of a seed, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.routing.rollout import rollout
from benchmarks.routing.scenes import TASKS, Task
from benchmarks.routing.settings import Scenes
from benchmarks.routing.statistics import wilson
from training.rollout.loop import Acting, Horizon, RolloutOutcome, scene_seed
from training.rollout.sawyer import TIMESTEP_S, World

if TYPE_CHECKING:
    from training.policy.policy import Policy

# Of scenes that no recording has; those that settings are chosen on are not those of the figures.
KEYS: dict[Scenes, int] = {"final": 3_000, "validation": 1_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How a policy is asked: `num_chunks` above 1 plans with the checkpoint's value head; `sampling_steps` of Euler, None is the recipe's."""

    num_chunks: int = 1
    sampling_steps: int | None = None


@lru_cache(maxsize=1)  # a process tries one policy after the other
def policy_of(
    run: Path,
    asked: Asked,
    *,
    weights: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> Policy:
    """The policy of a training run's last checkpoint, with averaged weights where the recipe has them.

    Args:
        weights: folder of the encoder's weights; None where they are a package's.

    Raises:
        ConfigError: no whole checkpoint, other weights than its latents were made with, or nothing to plan with.
    """
    from jobs.commands.policy_encoder import encoder_for
    from training.policy.policy import Policy, PolicySettings
    from training.run.checkpoint import checkpoint_of, recipe_of

    checkpoint = checkpoint_of(run, None)
    encode = encoder_for(checkpoint.state.encoder_id, weights=weights, hub_id=None, device=device)
    has_averages = recipe_of(checkpoint).optimiser.ema is not None
    settings = PolicySettings(
        use_averages=has_averages, num_chunks=asked.num_chunks, num_steps=asked.sampling_steps
    )
    return Policy.load(run, encode, settings, device=device)


def outcomes_of(
    run: Path,
    key: tuple[Scenes, int],
    count: int,
    execute: int,
    task: str,
    asked: Asked,
) -> list[RolloutOutcome]:
    """Rollouts of one run in one task.

    Args:
        key: which scenes: those of a purpose and of a seed. execute: timesteps of a chunk that are carried out.
    """
    tasks = [each for each in TASKS if each.name == task]
    horizon = horizon_of(run, execute)
    import torch

    # One sample at a time gains nothing from threads, and loses much where others work on the same cores.
    torch.set_num_threads(1)
    policy = policy_of(run, asked)
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
