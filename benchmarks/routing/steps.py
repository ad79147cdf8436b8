"""The data of a run, step by step; each is done once and its answer kept, so that the same command goes on after any stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.routing import commands
from benchmarks.routing.cells import LABEL, Cell, Data, Store, episodes_of, is_low, run_cell, stages
from benchmarks.routing.contrasts import compared_cells
from benchmarks.routing.plan import Take, takes
from benchmarks.routing.record import record_all
from benchmarks.routing.replay import replay_all, summary
from benchmarks.routing.settings import Places, Settings
from benchmarks.routing.state import State, timed
from benchmarks.routing.stored import judged, label_of, uids_of
from benchmarks.routing.tiers import report

# What the study trains on, and what shows that tiers and actions of the same recordings are right.
DATA = ("record", "ingest", "latents", "measure", "tier", "label")
CHECKS = ("judge", "replay")
Answer = dict[str, Any]


def prepare(
    settings: Settings,
    places: Places,
    *,
    workers: int,
    with_checks: bool,
    say: Callable[[str], None],
) -> State:
    """A corpus that cells can be trained on. Tiers by the policy and checks come before the labels, which tiers would follow.

    Raises:
        ConfigError: a command of the pipeline did not end well, or the folder holds a run with other data.
    """
    state = State(places.out, settings.of_data())
    work: Mapping[str, Callable[[], Answer]] = {
        "record": lambda: record(settings, places, workers, say),
        "ingest": lambda: commands.ingest(places, workers),
        "latents": lambda: commands.latents(places, settings),
        "measure": lambda: commands.measure(places, workers),
        "tier": lambda: commands.tier(places),
        "judge": lambda: report(judged(places.corpus, places.raw), seed=settings.seed),
        "replay": lambda: summary(replay_all(places.corpus, places.raw, workers=workers)),
        "label": lambda: label(settings, places),
    }
    checks = CHECKS if with_checks else ()
    if "label" in state.done and not set(checks) <= set(state.done):
        checks = ()
        say("checks are left out: labels are in the corpus already")
    for step in (*DATA[:-1], *checks, DATA[-1]):
        is_new = step not in state.done
        answer = state.once(step, partial(timed, work[step]))
        if is_new:
            say(f"{step}: {answer['elapsed_s']:.0f} s")
    return state


def run(
    cells: Sequence[Cell],
    settings: Settings,
    places: Places,
    store: Store,
    *,
    workers: int,
    with_checks: bool,
    say: Callable[[str], None],
) -> Answer:
    """All cells, those that are stored left out, in their order; what is there already is compared.

    Raises:
        ConfigError: see `prepare`.
    """
    missing = [cell for cell in cells if store.find(cell) is None]
    answer: Answer = {}
    if missing or with_checks:
        state = prepare(settings, places, workers=workers, with_checks=with_checks, say=say)
        stages_of = (stages(cell, settings.policy_batch) for cell in missing)
        for data in dict.fromkeys(stage.data for each in stages_of for stage in each):
            snapshot = None if data.tiers == LABEL else state.done["tier"]["snapshot"]
            make = partial(manifest, data, settings, places, snapshot=snapshot, workers=workers)
            state.once(f"manifest {data.manifest}", make)
        answer = dict(state.done)
    # Cells of one training go to one process, one after the other. A process for each: a simulator and a network are slow to forget.
    groups = [list(group) for _, group in groupby(missing, key=lambda cell: cell.training)]
    ask = partial(_run_group, settings=settings, places=places, store=store)
    with ProcessPoolExecutor(workers, get_context("spawn"), max_tasks_per_child=1) as pool:
        for lines in pool.map(ask, groups):
            for line in lines:
                say(line)
    return answer | {"study": compared_cells(list(store.all()), seed=settings.seed)}


def _run_group(
    group: Sequence[Cell], settings: Settings, places: Places, store: Store
) -> list[str]:
    """Each is stored as soon as it is done."""
    lines = []
    for cell in group:
        outcome = run_cell(cell, settings, places)
        store.put(cell, outcome)
        num = sum(map(_successes, outcome["success_at"].values()))
        lines.append(f"{cell.name}: {num} succeeded, {outcome['core_minutes']} core-minutes")
    return lines


def _successes(success_at: Sequence[int | None]) -> int:
    return sum(at is not None for at in success_at)


def manifest(
    data: Data, settings: Settings, places: Places, *, snapshot: int | None, workers: int
) -> Answer:
    """What a training reads.

    Args:
        snapshot: of the corpus, from before labels, whose tiers are the policy's; None: the labels decide.
    """
    episodes = episodes_of(settings, data.num_experts, data.scale)
    return commands.manifest(
        places, data.manifest, episodes=episodes, workers=workers, snapshot=snapshot
    )


def label(settings: Settings, places: Places) -> Answer:
    """Everything with actions that is not the expert's own is low, by what is known of how it was played."""
    low = {take.name for take in takes(settings.budget, settings.seed) if is_low(take)}
    tiers = {uid: "low" for name, uid in uids_of(places.corpus).items() if name in low}
    return commands.review(places, tiers) | {"num_low": len(tiers)}


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
