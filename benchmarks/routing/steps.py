"""The steps of a run, in order; each is done once and its answer kept, so that the same command goes on after any stop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.routing import commands
from benchmarks.routing.compare import compared
from benchmarks.routing.plan import Play, Take, takes
from benchmarks.routing.record import record_all
from benchmarks.routing.replay import replay_all, summary
from benchmarks.routing.scenes import TASKS
from benchmarks.routing.settings import Arm, Places, Settings, arm_named
from benchmarks.routing.state import State
from benchmarks.routing.stored import judged, label_of
from benchmarks.routing.tiers import report
from benchmarks.routing.trained import outcomes_of, rollout_report

STEPS = ("record", "ingest", "measure", "tier", "judge", "replay", "latents", "manifests", "train")
Answer = dict[str, Any]
TRAINED = [task.name for task in TASKS if task.is_trained]


def run(
    settings: Settings, places: Places, *, workers: int, until: str, say: Callable[[str], None]
) -> Answer:
    """Everything up to and with the step `until`; the answers of all steps that are done.

    Raises:
        ConfigError: a command of the pipeline did not end well, or the folder holds a run with other settings.
    """
    state = State(places.out, settings.as_dict())
    work: Mapping[str, Callable[[], Answer]] = {
        "record": lambda: record(settings, places, workers, say),
        "ingest": lambda: commands.ingest(places, workers),
        "measure": lambda: commands.measure(places, workers),
        "tier": lambda: commands.tier(places),
        "judge": lambda: report(judged(places.corpus, places.raw), seed=settings.seed),
        "replay": lambda: summary(replay_all(places.corpus, places.raw, workers=workers)),
        "latents": lambda: commands.latents(places, settings),
        "manifests": lambda: held_out(settings, places, workers),
    }
    for step in STEPS[: STEPS.index(until) + 1]:
        if step == "train":
            _train_and_roll_out(state, settings, places, workers, say)
            continue
        started = time.monotonic()
        is_new = step not in state.done
        answer = state.once(step, partial(timed, work[step]))
        if is_new:
            say(f"{step}: {time.monotonic() - started:.0f} s")
        del answer
    return dict(state.done)


def timed(work: Callable[[], Answer]) -> Answer:
    started = time.monotonic()
    answer = work()
    return answer | {"elapsed_s": time.monotonic() - started}


def record(settings: Settings, places: Places, workers: int, say: Callable[[str], None]) -> Answer:
    """All takes; each process plays whole tasks, for a world is slow to make."""
    planned = list(takes(settings.budget, settings.seed))
    groups = [list(group) for _, group in groupby(planned, key=lambda take: take.task)]
    if workers > 1:
        with ProcessPoolExecutor(min(workers, len(groups)), get_context("spawn")) as pool:
            for counts in pool.map(partial(_record_quietly, places.raw), groups):
                say(f"recorded {counts}")
    else:
        for group in groups:
            say(f"recorded {_record_quietly(places.raw, group)}")
    return {"episodes": len(planned), "kinds": kinds(places.raw, planned)}


def _record_quietly(raw: Path, group: list[Take]) -> dict[str, int]:
    return record_all(raw, group, progress=lambda done, whole: None)


def kinds(raw: Path, recorded: list[Take]) -> list[Answer]:
    """Episodes and timesteps of each kind of play, and whether they succeeded."""
    episodes: Counter[tuple[str, bool]] = Counter()
    timesteps: Counter[tuple[str, bool]] = Counter()
    for take in recorded:
        label = label_of(raw, take.name)
        name = take.play.value if take.has_actions else "video"
        key = (
            f"{name} {take.sigma:g}" if take.sigma and take.has_actions else name,
            label["is_success"],
        )
        episodes[key] += 1
        timesteps[key] += label["length"]
    return [
        {"play": k[0], "is_success": k[1], "episodes": n, "timesteps": timesteps[k]}
        for k, n in sorted(episodes.items())
    ]


def manifest_of(arm: Arm, places: Places, workers: int) -> Answer:
    """What an arm is trained on."""
    where = f"{arm.where} AND {commands.trained_tasks(TRAINED)}"
    return commands.manifest(places, arm.manifest, where=where, policy=arm.policy, workers=workers)


def held_out(settings: Settings, places: Places, workers: int) -> Answer:
    """Every expert's episode, of which the val split is what errors are measured on: a label chooses that, never what is trained on."""
    experts = [
        take.name
        for take in takes(settings.budget, settings.seed)
        if take.play is Play.EXPERT and take.has_actions and take.task in TRAINED
    ]
    where = f"episode_id IN ({', '.join(repr(name) for name in experts)})"
    return commands.manifest(places, "held_out", where=where, policy="everything", workers=workers)


def _train_and_roll_out(
    state: State, settings: Settings, places: Places, workers: int, say: Callable[[str], None]
) -> None:
    """All trainings, seed by seed, then all rollouts: of what is there when a run is stopped, whole seeds are compared first."""
    for arm in map(arm_named, settings.arms):
        state.once(f"manifest {arm.manifest}", partial(manifest_of, arm, places, workers))
    _train_all(state, settings, places, workers)
    rollouts: dict[str, dict[int, Answer]] = {name: {} for name in settings.arms}
    errors: dict[str, dict[int, Answer]] = {name: {} for name in settings.arms}
    for seed in range(settings.num_seeds):
        for name in settings.arms:
            arm = arm_named(name)
            key = f"eval {name} {seed}"
            errors[name][seed] = state.once(key, partial(commands.evaluate, places, arm, seed))
            key = f"rollout {name} {seed}"
            rollouts[name][seed] = state.once(
                key, partial(_rolled, settings, places, arm, seed, workers)
            )
            say(f"{key}: {rollouts[name][seed]['success']}")
    state.done["compare"] = compared(rollouts, errors, seed=settings.seed)


def _train_all(state: State, settings: Settings, places: Places, workers: int) -> None:
    """As many at a time as there are workers, each on a core of its own. Those whose length another one gives come last."""
    arms = [arm_named(name) for name in settings.arms]
    _train_these(state, settings, places, workers, [a.name for a in arms if not a.as_brief_as])
    _train_these(state, settings, places, workers, [a.name for a in arms if a.as_brief_as])


def _train_these(
    state: State, settings: Settings, places: Places, workers: int, arms: Sequence[str]
) -> None:
    pairs = [(name, seed) for seed in range(settings.num_seeds) for name in arms]
    missing = [pair for pair in pairs if "train {} {}".format(*pair) not in state.done]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(lambda p: _trained(settings, places, arm_named(p[0]), p[1]), missing)
        for (name, seed), answer in zip(missing, results, strict=True):
            state.once(f"train {name} {seed}", partial(dict, answer))


def _trained(settings: Settings, places: Places, arm: Arm, seed: int) -> Answer:
    return timed(lambda: commands.train(places, settings, arm, seed))


def _rolled(settings: Settings, places: Places, arm: Arm, seed: int, workers: int) -> Answer:
    """Whole tasks for each process: a world is slow to make, and only one may be open in a process."""
    weights = Path(settings.weights) if settings.weights else None
    run, count = places.run(arm.name, seed), settings.num_rollouts
    ask = partial(outcomes_of, run, weights, settings.seed, count)
    if workers > 1:
        with ProcessPoolExecutor(min(workers, len(TRAINED)), get_context("spawn")) as pool:
            return timed(lambda: rollout_report(o for of in pool.map(ask, TRAINED) for o in of))
    return timed(lambda: rollout_report(o for task in TRAINED for o in ask(task)))
