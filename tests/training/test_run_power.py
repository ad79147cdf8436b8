"""The power is cut while a run is begun, saves checkpoints and removes old ones: the same run goes on from what it was told is saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from schemas.manifest import FACTS_FILE
from tests.faults.journal import Journal, journal_of, unwatched
from tests.faults.power import FATES, Disk, Fate, by_chance, materialise
from tests.training.running import SETTINGS, recipe
from training.run.checkpoint import (
    FOLDER,
    NORMALISER,
    OPTIMISER,
    WEIGHTS,
    CheckpointState,
    Snapshot,
    checkpoints,
    refuse_broken,
    sweep,
    write,
)
from training.run.run_folder import RunFacts, load_result, load_run, write_result, write_run

KEEP = 2


def snapshot_of(step: int) -> Snapshot:
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
    return Snapshot(state=state, files=dict.fromkeys((WEIGHTS, OPTIMISER, NORMALISER), tensors))


def train(home: Path, note: Callable[[str], None]) -> None:
    """A run of four checkpoints, from wherever it is; `note` hears what a user may rely on from then on."""
    out = home / "runs" / "run"
    facts = RunFacts(manifest="m", manifest_name="m", manifest_sha256="", recipe_sha256="")
    assert load_run(out) in (None, (facts, recipe()))
    sweep(out)
    refuse_broken(out)
    write_run(out, facts, recipe(), home)
    done = checkpoints(out)
    for step in range(done[-1].state.step + 1 if done else 1, 5):
        write(out / FOLDER, snapshot_of(step), keep=KEEP)
        note(str(step))
    write_result(out, {"loss": 1.0})
    note("result")


def problems(home: Path, acknowledged: list[str]) -> Iterator[str]:
    """What is not as promised of what a cut left, before the run goes on and after it."""
    out = home / "runs" / "run"
    steps = [int(note) for note in acknowledged if note != "result"]
    for found in checkpoints(out):
        for file in found.state.num_bytes:
            if not torch.equal(found.tensors(file)["x"], torch.full((300,), float(found.state.step))):  # fmt: skip
                yield f"{found.folder.name}/{file} is not what was written"
    if load_run(out) is not None and (out / FACTS_FILE).read_text() != "{}":
        yield "the page of the manifest is not what was written"
    saved = [found.state.step for found in checkpoints(out)]
    if steps and (not saved or saved[-1] < steps[-1]):
        yield f"step {steps[-1]} was saved, there are {saved}"
    if "result" in acknowledged and load_result(out) != {"loss": 1.0}:
        yield "the result is not what was written"
    train(home, lambda note: None)
    # An older one that was to go when the run ended stays until the next is saved.
    if [found.state.step for found in checkpoints(out)][-KEEP:] != [3, 4]:
        yield f"the rerun ends with {[found.state.step for found in checkpoints(out)]}"
    if left := [str(path) for path in out.rglob("*.part")]:
        yield f"left over: {left}"


def first_problem(
    journal: Journal, home: Path, fates: Callable[[int], list[Fate]], ignored: str = ""
) -> tuple[int, str]:
    """How many states were looked at, and what was wrong with the last of them."""
    disk, seen = Disk(journal, lambda site: site.inner == ignored), set[str]()
    for cut in range(len(journal.events) + 1):
        for fate in fates(cut):
            left = disk.cut(fate)
            if (key := repr((sorted(left.items()), disk.acknowledged[-1:]))) in seen:
                continue
            seen.add(key)
            shutil.rmtree(home, ignore_errors=True)
            materialise(left, home)
            try:
                with unwatched():
                    found = next(problems(home, disk.acknowledged), "")
            except Exception as error:  # noqa: BLE001  a run that cannot go on is a problem too
                found = repr(error)
            if found:
                return len(seen), f"cut {cut}, {fate.name}: {found}"
        if cut < len(journal.events):
            disk.do(journal.events[cut])
    return len(seen), ""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    home = tmp_path / "home"
    home.mkdir()
    (home / FACTS_FILE).write_text("{}")
    with journal_of(home) as made:
        train(home, made.note)
    return made


@pytest.mark.slow
def test_a_run_goes_on_from_whatever_a_power_cut_leaves(journal: Journal) -> None:
    states, found = first_problem(
        journal, journal.home, lambda cut: [*FATES, by_chance(cut), by_chance(-cut)]
    )
    assert not found
    assert states > 100


@pytest.mark.slow
def test_without_any_one_fsync_it_would_not(journal: Journal) -> None:
    statements = {event.site.inner for event in journal.events if event.site is not None}
    assert (
        len(statements) == 6
    )  # of replace and make_folder; files, folder and name of a checkpoint; the name of an old one
    for statement in sorted(statements):
        _, found = first_problem(journal, journal.home, lambda cut: list(FATES), statement)
        assert found, f"nobody misses the fsync at {statement}"
