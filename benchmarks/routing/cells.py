"""A cell of the study: one method of training, on so many experts and so much other data, with one seed; and its outcome, a JSON file of a few kB.

Methods. `clone`: behaviour cloning of everything that has actions, however it was played. `routed`: the policy learns from experts alone, and as many samples
beside it teach inverse dynamics, forward dynamics and forecasting by what they can supervise. `pretrained`: first those three tasks alone, then
cloning of the experts. Every method takes as many policy samples and as many optimiser steps for its policy.

`num_chunks` above 1 is planning (`training/policy/plan.py`) with the trained network of the cell that has 1: a value head is trained on all of
the cell's data, and chooses among so many chunks. Only `routed` learns the forward dynamics that planning needs.

`tiers` says what decides which timesteps are the expert's: labels, which tell how an episode was played, or the built-in policy with its measurements, as a
user without labels has it. Cloning asks neither.

`others` names the tasks that are trained beside the policy: all three, or forecasting alone. Half of the videos show the expert, so its motion can be forecast.

`scale` is how much data of lower quality there is: `scale * Settings.unit` imperfect episodes and as many videos without actions of each task. At 0 there are experts
alone, so the effect of data is the difference of scales within a method, and the effect of routing is how methods differ in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from benchmarks import result
from benchmarks.routing import commands
from benchmarks.routing.plan import Play, Take, takes
from benchmarks.routing.scenes import TRAINED
from benchmarks.routing.settings import Places, Settings
from benchmarks.routing.starts import starts_of
from benchmarks.routing.trained import Asked, outcomes_of
from schemas.errors import ConfigError

METHODS = ("clone", "routed", "pretrained")
PLANNED = "routed"  # learns forward dynamics and the policy together
CLONED = "clone"  # learns from every tier
LABEL, POLICY = TIERS = ("label", "policy")
ALL, FORECASTING = "all", "forecasting"
# Tasks that are trained beside the policy, and their shares; both sum to 3.
OTHERS = {
    ALL: {"inverse_dynamics": 1, "forward_dynamics": 1, "visual_forecasting": 1},
    FORECASTING: {"visual_forecasting": 3},
}
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What a manifest has; see `Cell`."""

    num_experts: int
    scale: int
    tiers: str

    @property
    def manifest(self) -> str:
        by = "" if self.tiers == LABEL else f"-by-{self.tiers}"
        return f"experts-{self.num_experts}-x{self.scale}{by}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """`num_experts` of each task."""

    seed: int
    num_experts: int
    scale: int
    method: str
    num_chunks: int = 1
    tiers: str = LABEL
    others: str = ALL

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            problem = f"no method {self.method!r}; there are {', '.join(METHODS)}"
            raise ConfigError(problem, where="--methods")
        if self.num_chunks < 1 or (self.num_chunks > 1 and self.method != PLANNED):
            problem = f"{self.num_chunks} chunks with {self.method}: {PLANNED} alone can plan"
            raise ConfigError(problem, where="--chunks")
        if self.tiers not in TIERS or (self.tiers != LABEL and self.method == CLONED):
            problem = f"tiers by {self.tiers!r} with {self.method}: label or policy, and {CLONED} asks none"
            raise ConfigError(problem, where="--tiers")
        has_all = self.method != CLONED and self.num_chunks == 1
        if self.others not in OTHERS or (self.others != ALL and not has_all):
            problem = f"{self.others!r} with {self.method} and {self.num_chunks} chunks: {CLONED} has no other tasks, and a plan needs {ALL}"
            raise ConfigError(problem, where="--others")

    @property
    def training(self) -> str:
        """The name of its training, which it shares with cells of other `num_chunks`."""
        by = "" if self.tiers == LABEL else f"-by-{self.tiers}"
        of = "" if self.others == ALL else f"-{self.others}"
        return f"{self.method}-{self.num_experts}-x{self.scale}{by}{of}-s{self.seed}"

    @property
    def name(self) -> str:
        return self.training if self.num_chunks == 1 else f"{self.training}-plan{self.num_chunks}"

    def data(self, scale: int) -> Data:
        """As many experts and the same tiers, at a scale."""
        return Data(num_experts=self.num_experts, scale=scale, tiers=self.tiers)


def combined(**values_of: Sequence[Any]) -> tuple[list[Cell], list[ConfigError]]:
    """Cells of all combinations, by the names of a cell's fields, in order; and why there are no others, each reason once."""
    cells, left_out = list[Cell](), dict[str, ConfigError]()
    for values in product(*values_of.values()):
        try:
            cells.append(Cell(**dict(zip(values_of, values, strict=True))))
        except ConfigError as error:
            left_out.setdefault(str(error), error)
    return sorted(cells), list(left_out.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One training. `shares` of every batch by task; `low_policy_share` as in a recipe."""

    name: str
    data: Data
    shares: dict[str, int]
    batch_size: int
    low_policy_share: float = 0.0


def stages(cell: Cell, policy_batch: int) -> tuple[Stage, ...]:
    """The trainings of a cell, one after the other; each begins with the averaged weights of the one before it."""
    cloning = Stage(
        name=cell.training,
        data=cell.data(cell.scale),
        shares={"policy": 1},
        batch_size=policy_batch,
        low_policy_share=1.0,
    )
    if cell.method == CLONED:
        return (cloning,)
    others = OTHERS[cell.others]
    if cell.method == "routed":
        shares = {"policy": sum(others.values())} | others  # half of a batch
        routed = Stage(
            name=cell.training,
            data=cell.data(cell.scale),
            shares=shares,
            batch_size=2 * policy_batch,
        )
        return (routed,)
    first = Stage(
        name=f"{cell.training}-first",
        data=cell.data(cell.scale),
        shares=others,
        batch_size=policy_batch,
    )
    few = cell.data(0)
    second = Stage(name=cell.training, data=few, shares={"policy": 1}, batch_size=policy_batch)
    return first, second


def experts(settings: Settings, tasks: Sequence[str] = TRAINED) -> dict[str, list[Take]]:
    """Of each task, experts whose actions were recorded; the last `Budget.held_out` train nothing."""
    return _of_kind(settings, tasks, lambda t: t.play is Play.EXPERT and t.has_actions)


def episodes_of(settings: Settings, num_experts: int, scale: int) -> list[str]:
    """Ids of what a manifest has, nested: more experts and a larger scale only add. Kinds of play are dealt evenly over the scales.

    Raises:
        ConfigError: the budget has fewer.
    """
    chosen: list[str] = []
    kinds = (
        (experts(settings), num_experts, settings.budget.held_out),
        (_of_kind(settings, TRAINED, is_low), scale * settings.unit, 0),
        (_of_kind(settings, TRAINED, lambda t: not t.has_actions), scale * settings.unit, 0),
    )
    for by_task, count, reserve in kinds:
        for task, of_task in by_task.items():
            if count > len(of_task) - reserve:
                raise ConfigError(
                    f"{count} episodes of {task} are asked for; {len(of_task) - reserve} are planned",
                    where="--experts, --scales",
                )
            chosen += [take.name for take in of_task[:count]]
    return chosen


def is_low(take: Take) -> bool:
    """By its label: with actions, and not the expert's own."""
    return take.has_actions and take.play is not Play.EXPERT


def _of_kind(settings: Settings, tasks: Sequence[str], is_one: Any) -> dict[str, list[Take]]:
    """In an order that tells nothing of how an episode was played: that of its number."""
    planned = sorted(takes(settings.budget, settings.seed), key=lambda take: take.number)
    return {task: [t for t in planned if t.task == task and is_one(t)] for task in tasks}


def recipe_of(stage: Stage, cell: Cell, settings: Settings) -> Answer:
    """What a stage changes in the recipe that all extend."""
    none = dict.fromkeys(("policy", *OTHERS[ALL]), 0)
    return {
        "extends": settings.recipe_file,
        "name": stage.name,
        "seed": cell.seed,
        "data": {"encoder": settings.encoder},
        "routing": {"shares": none | stage.shares, "low_policy_share": stage.low_policy_share},
        "text": {"kind": "words"},
        "run": {"num_steps": settings.num_steps, "batch_size": stage.batch_size},
    }


class Store:
    """Cells that are done, each a file. They may come from earlier runs on other machines: a file says under which settings it was made.

    Raises:
        ConfigError: a file there was made under other settings.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self._settings = folder, json.loads(json.dumps(settings.as_dict()))

    def find(self, cell: Cell) -> Answer | None:
        path = self.folder / f"{cell.name}.json"
        if not path.is_file():
            return None
        stored: Answer = json.loads(path.read_text())
        if stored["settings"] != self._settings:
            names = [k for k, v in self._settings.items() if stored["settings"].get(k) != v]
            raise ConfigError(f"made with other {', '.join(names) or 'settings'}", where=str(path))
        return stored

    def put(self, cell: Cell, answer: Answer) -> None:
        """Whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".{cell.name}.part"
        content = {"cell": asdict(cell), "settings": self._settings} | answer
        with part.open("w") as file:
            json.dump(content, file, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.folder / f"{cell.name}.json")

    def all(self) -> Iterator[tuple[Cell, Answer]]:
        for path in sorted(self.folder.glob("*.json")):
            cell = Cell(**json.loads(path.read_text())["cell"])
            stored = self.find(cell)
            if stored is not None:
                yield cell, stored


def run_cell(cell: Cell, settings: Settings, places: Places) -> Answer:
    """Trained, measured on held-out experts, and rolled out. A stage that was stopped goes on where it was.

    Raises:
        ConfigError: a command did not end well.
    """
    before = _cpu_s()
    last: Stage | None = None
    for stage in stages(cell, settings.policy_batch):
        recipe = places.recipe(stage.name)
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(yaml.safe_dump(recipe_of(stage, cell, settings), sort_keys=False))
        begin = (
            () if last is None else ("--init-from", str(places.run(last.name)), "--init-averages")
        )
        trained = commands.train(
            places, stage.name, places.manifest(stage.data.manifest), recipe, *begin
        )
        last = stage
    run = places.run(cell.training)
    value: Answer | None = None
    if cell.num_chunks > 1:
        value = commands.train_value(places, cell.training, cell.seed)
    key = (settings.scenes, cell.seed)
    asked = Asked(num_chunks=cell.num_chunks, sampling_steps=settings.sampling_steps)
    outcomes = {
        task: outcomes_of(run, key, settings.num_rollouts, settings.execute, task, asked)
        for task in TRAINED
    }
    first = settings.budget.expert
    held_out = {task: of[first:] for task, of in experts(settings).items()}
    starts = starts_of(run, places.raw, held_out, asked)
    return {
        "success_at": {task: [one.success_at for one in of] for task, of in outcomes.items()},
        "start_error_m": starts.error_m,
        "chunk_cpu_s": round(starts.chunk_cpu_s, 4),
        "loss_by_task": trained["loss_by_task"],
        **({} if value is None else {"value": {k: value[k] for k in ("counts", "scores")}}),
        "manifest_sha256": _digest_of(places.manifest(cell.data(cell.scale).manifest)),
        "commit": result.commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {k: v for k, v in result.machine().items() if k in ("cpu", "cores")},
        "core_minutes": round((_cpu_s() - before) / 60, 2),
    }


def _digest_of(manifest: Path) -> str:
    return hashlib.sha256((manifest / "manifest.json").read_bytes()).hexdigest()


def _cpu_s() -> float:
    """Of this process and of the commands that it ran."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whose))
