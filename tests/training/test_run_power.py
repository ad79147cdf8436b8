"""The power is cut while a run is begun, goes on, saves checkpoints and removes old ones: the same run goes on from what it was told is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch

from schemas.manifest import FACTS_FILE
from tests.faults.call_sites import CallSite, asked_at, call_sites
from tests.faults.first_problem import few, first_problem
from tests.faults.journal import Journal, journal_of, unwatched
from tests.faults.power import FATES, by_chance
from tests.training.running import SETTINGS, recipe
from training.data.cache import build_once
from training.run.best import Best, load_best
from training.run.checkpoint import (
    FOLDER,
    NORMALISER,
    OPTIMISER,
    WEIGHTS,
    CheckpointSnapshot,
    CheckpointState,
    checkpoints,
    refuse_broken,
    sweep,
    write,
)
from training.run.mishaps import Diverged, Mishaps, open_mishaps
from training.run.parallel import Ranks
from training.run.run_folder import (
    RunFacts,
    append_log,
    cut_log,
    load_result,
    load_run,
    logged,
    write_result,
    write_run,
)

KEEP, END = 2, 4
BESTS = {1: Best(step=1, loss=3.0), END: Best(step=END, loss=1.0)}
RUN = recipe(max_skipped_steps=2).run
ROLLOUTS = "training/rollout/episodes.py"  # test_rollout_power.py
# A value head is no part of a run: the command that made it makes it again.
ELSEWHERE = (ROLLOUTS, "training/value/stored.py")
TABLES = {"a.npy": b"a" * 600, "b.npy": b"b" * 600}


@dataclass(frozen=True, kw_only=True)
class Case:
    """`begun`: steps that were done before; `skipped`: those that were not finite, 0 for one before the folder of the run is there."""

    begun: int = 0
    skipped: tuple[int, ...] = (2, 4)


CASES = {"new": Case(), "early": Case(skipped=(0,)), "begun": Case(begun=2)}


def snapshot_of(step: int) -> CheckpointSnapshot:
    state = CheckpointState(
        step=step,
        recipe={},
        recipe_sha256="",
        manifest_name="m",
        manifest_sha256="",
        model=SETTINGS,
        embodiments=("umi",),
    )
    tensors = {"x": torch.full((300,), float(step))}
    return CheckpointSnapshot(
        state=state, files=dict.fromkeys((WEIGHTS, OPTIMISER, NORMALISER), tensors)
    )


def fill(folder: Path) -> None:
    for name, data in TABLES.items():
        (folder / name).write_bytes(data)


def skip(case: Case, mishaps: Mishaps, step: int, note: Callable[[str], None]) -> None:
    if step in case.skipped and not mishaps.was_skipped(step):
        mishaps.skipped(step, Diverged("nan"))
        note(f"skipped {step}")


def train(home: Path, case: Case, note: Callable[[str], None], until: int = END) -> None:
    """A run of four checkpoints, from wherever it is; `note` hears what a user may rely on from then on."""
    build_once(home / "cache" / "tables", fill)
    out = home / "runs" / "run"
    facts = RunFacts(manifest="m", manifest_name="m", manifest_sha256="", recipe_sha256="")
    assert load_run(out) in (None, (facts, recipe()))
    sweep(out)
    refuse_broken(out)
    mishaps = open_mishaps(out, RUN, Ranks())
    skip(case, mishaps, 0, note)
    write_run(out, facts, recipe(), home)
    done = checkpoints(out)[-1].state.step if checkpoints(out) else 0
    cut_log(out, done)
    for step in range(done + 1, until + 1):
        skip(case, mishaps, step, note)
        append_log(out, {"step": step})
        write(out / FOLDER, snapshot_of(step), keep=KEEP, best=BESTS.get(step))
        note(str(step))
    write_result(out, {"loss": 1.0})
    note("result")


def problems_before(home: Path, acknowledged: list[str], case: Case) -> Iterator[str]:
    out = home / "runs" / "run"
    steps = [int(note) for note in acknowledged if note.isdigit()]
    for found in checkpoints(out):
        for file in found.state.num_bytes:
            if not torch.equal(found.tensors(file)["x"], torch.full((300,), float(found.state.step))):  # fmt: skip
                yield f"{found.folder.name}/{file} is not what was written"
    if load_run(out) is not None and (out / FACTS_FILE).read_text() != "{}":
        yield "the page of the manifest is not what was written"
    saved = [found.state.step for found in checkpoints(out)]
    if steps and (not saved or saved[-1] < steps[-1]):
        yield f"step {steps[-1]} was saved, there are {saved}"
    yield from problems_of_cache(home / "cache" / "tables")
    skipped = [int(note.split()[1]) for note in acknowledged if note.startswith("skipped")]
    known = open_mishaps(out, RUN, Ranks())
    if lost := [step for step in skipped if not known.was_skipped(step)]:
        yield f"left out and not in the list: {lost}"
    yield from problems_of_best(load_best(out / FOLDER), steps, saved)
    if lost := [step for step in range(1, case.begun + 1) if not logged(out, step)]:
        yield f"lines that were on the disk before are lost: {lost}"
    if "result" in acknowledged and load_result(out) != {"loss": 1.0}:
        yield "the result is not what was written"


def problems_of_cache(folder: Path) -> Iterator[str]:
    if folder.is_dir() and {p.name: p.read_bytes() for p in folder.iterdir()} != TABLES:
        yield f"{folder} is not whole"


def problems_of_best(best: Best | None, acknowledged: list[int], saved: list[int]) -> Iterator[str]:
    if best is not None and best.step not in saved:
        yield f"step {best.step} is the best, there are {saved}"
    known = max((step for step in acknowledged if step in BESTS), default=0)
    if known and (best is None or best.step < known):
        yield f"the best is {best}, step {known} was"


def problems(case: Case, home: Path, acknowledged: list[str]) -> Iterator[str]:
    """What is not as promised of what a cut left, before the run goes on and after it."""
    yield from problems_before(home, acknowledged, case)
    out = home / "runs" / "run"
    train(home, case, lambda note: None)
    # An older one that was to go when the run ended stays until the next is saved.
    if [found.state.step for found in checkpoints(out)][-KEEP:] != [END - 1, END]:
        yield f"the rerun ends with {[found.state.step for found in checkpoints(out)]}"
    if left := [str(path) for path in out.rglob("*.part")]:
        yield f"left over: {left}"


def recorded(
    home: Path, case: Case, is_left_out: Callable[[CallSite], bool] = lambda site: False
) -> Journal:
    """A run, watched; the log of one that was begun goes on after its last checkpoint."""
    home.mkdir()
    (home / FACTS_FILE).write_text("{}")
    if case.begun:
        with unwatched():
            train(home, case, lambda note: None, case.begun)
        append_log(home / "runs" / "run", {"step": case.begun + 1})
    with journal_of(home) as journal, asked_at(is_left_out):
        train(home, case, journal.note)
    return journal


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_on_from_whatever_a_power_cut_leaves(name: str, tmp_path: Path) -> None:
    states, found = first_problem(
        recorded(tmp_path / "home", CASES[name]),
        partial(problems, CASES[name]),
        lambda disk, cut: [*FATES, *disk.fates_of_one(), by_chance(cut), by_chance(-cut)],
    )
    assert not found
    assert states > 100


def harm_without(site: CallSite, home: Path) -> str:
    for name, case in CASES.items():
        journal = recorded(home / name, case, site.__eq__)
        _, harm = first_problem(journal, partial(problems, case), few)
        if harm:
            return harm
    return ""


@pytest.mark.slow
@pytest.mark.parametrize(
    "site",
    [s for s in call_sites() if s.file.startswith("training/") and s.file not in ELSEWHERE],
    ids=str,
)
def test_without_any_one_call_that_synchronises_it_would_not(
    site: CallSite, tmp_path: Path
) -> None:
    assert harm_without(site, tmp_path), f"no run misses the call at {site}"
