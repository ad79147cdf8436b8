"""Can the policy be trained at all? Plain behaviour cloning of 150 experts must reach in 7 of 10 new scenes, or no cell of the study tells anything.

`python -m benchmarks.routing.sanity --out RUN [--tasks reach-v3] [--json]`. Experts are chosen by label; nothing is measured or tiered.
Stop it at any time; the same command goes on. Needs the extras train, sim and eyes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from benchmarks.routing import commands
from benchmarks.routing.cells import Cell, recipe_of, stages
from benchmarks.routing.plan import Budget, Take, takes
from benchmarks.routing.record import record_all
from benchmarks.routing.scenes import TRAINED
from benchmarks.routing.settings import Places, Settings
from benchmarks.routing.state import State, timed
from benchmarks.routing.trained import Asked, outcomes_of, rollout_report
from schemas.errors import ConfigError, PipelineError

REACH, AIM = "reach-v3", 0.7
Answer = dict[str, Any]


def sanity_settings(*, num_experts: int, **other: Any) -> Settings:
    """Nothing but experts is recorded."""
    budget = Budget(expert=num_experts, held_out=0, noisy=0, failed=0, video=0, replays=0)
    return Settings(budget=budget, scenes="validation", **other)


def takes_of(settings: Settings, tasks: Sequence[str]) -> list[Take]:
    """What is recorded of these tasks: the same scenes, whatever other tasks are played."""
    return [take for take in takes(settings.budget, settings.seed) if take.task in tasks]


def run(
    settings: Settings, places: Places, tasks: Sequence[str], say: Callable[[str], None]
) -> Answer:
    """Recorded, ingested, encoded, trained, rolled out: the answers of all steps.

    Raises:
        ConfigError: a command did not end well, the folder holds a run with other settings, or reach is not among the tasks.
    """
    if REACH not in tasks or not set(tasks) <= set(TRAINED):
        raise ConfigError(
            f"{list(tasks)}; expected {REACH} and others of {list(TRAINED)}", where="--tasks"
        )
    state = State(places.out, settings.as_dict() | {"tasks": sorted(tasks)})

    def once(step: str, work: Callable[[], Answer]) -> Answer:
        answer = state.once(step, partial(timed, work))
        say(f"{step}: {answer['elapsed_s']:.0f} s")
        return answer

    planned = takes_of(settings, tasks)
    names = [take.name for take in planned]
    cell = Cell(seed=settings.seed, num_experts=settings.budget.expert, scale=0, method="clone")
    once("record", lambda: _recorded(planned, places))
    once("ingest", lambda: commands.ingest(places, 1))
    once("latents", lambda: commands.latents(places, settings))
    once(
        "manifest",
        lambda: commands.manifest(places, cell.data(0).manifest, episodes=names, workers=1),
    )
    once("train", lambda: _trained(cell, settings, places))
    for task in tasks:
        once(f"rollout {task}", partial(_rolled, cell, settings, places, task))
    rolled = {task: state.done[f"rollout {task}"]["success"] for task in tasks}
    return {
        "encoder": settings.encoder,
        "experts": settings.budget.expert,
        "num_steps": settings.num_steps,
        "elapsed_s": {step: answer["elapsed_s"] for step, answer in state.done.items()},
        "success": rolled,
        "is_reached": rolled[REACH]["value"] >= AIM,
    }


def _recorded(planned: Sequence[Take], places: Places) -> Answer:
    counts = {}
    for task, group in groupby(planned, key=lambda take: take.task):
        counts[task] = record_all(places.raw, list(group), progress=lambda done, whole: None)
    return {"episodes": counts}


def _trained(cell: Cell, settings: Settings, places: Places) -> Answer:
    (stage,) = stages(cell, settings.policy_batch)
    recipe = places.recipe(stage.name)
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump(recipe_of(stage, cell, settings), sort_keys=False))
    return commands.train(places, stage.name, places.manifest(stage.data.manifest), recipe)


def _rolled(cell: Cell, settings: Settings, places: Places, task: str) -> Answer:
    key, run_folder = (settings.scenes, settings.seed), places.run(cell.training)
    return rollout_report(
        outcomes_of(run_folder, key, settings.num_rollouts, settings.execute, task, Asked())
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.routing.sanity", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--tasks", nargs="+", default=list(TRAINED), help="recorded, trained on, rolled out"
    )
    parser.add_argument("--experts", type=int, default=150, help="episodes of each task")
    parser.add_argument("--steps", type=int, default=Settings().num_steps, help="optimiser steps")
    parser.add_argument("--rollouts", type=int, default=50, help="new scenes of each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", default=Settings().encoder)
    parser.add_argument("--recipe", default="study", help="that the training's recipe extends")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("MUJOCO_GL", "osmesa")  # draws without a display and without a GPU
    settings = sanity_settings(
        num_experts=args.experts,
        seed=args.seed,
        num_rollouts=args.rollouts,
        num_steps=args.steps,
        encoder=args.encoder,
        recipe=args.recipe,
    )
    try:
        answer = run(
            settings,
            Places(out=args.out.absolute()),
            args.tasks,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except PipelineError as error:
        print(f"error {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(answer, indent=None if args.json else 1))
    sys.exit(0 if answer["is_reached"] else 1)


if __name__ == "__main__":
    main()
