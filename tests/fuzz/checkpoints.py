"""A run folder under mutation: it is opened as `eval` opens it before it asks the network anything, or as a run that goes on does."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import torch

from schemas import manifest as manifests
from schemas.errors import InvariantError, PipelineError
from schemas.manifest import Manifest
from tests.fuzz.corpora import fixed_identities
from tests.fuzz.mutations import Outcome, mutated
from tests.hostile import commands
from tests.hostile.corpora import World, make_world
from training.evaluation.evaluate_checkpoint import EvaluationRequest, open_checkpoint
from training.run.best import BEST_FILE, Best, write_best
from training.run.checkpoint import FOLDER, OPTIMISER, checkpoint_of, recipe_of
from training.run.optimiser import adamw
from training.run.restore import restore
from training.run.run_folder import load_run, logged

EVAL_SHARE = 10  # one mutation in so many is seen by `eval` itself, which asks the network once
CPU = torch.device("cpu")
REQUEST = EvaluationRequest(split="train")


@dataclass(frozen=True)
class TrainedRun:
    """A run of one step, the manifest that it was trained from, and the files of the run."""

    world: World
    manifest: Manifest
    names: tuple[str, ...]


def written_run(folder: Path) -> TrainedRun:
    with fixed_identities():
        world = make_world(folder)
    step = checkpoint_of(world.run).state.step
    write_best(world.run / FOLDER, Best(step=step, loss=1.0))  # as a run that is evaluated has it
    files = [p for p in world.run.rglob("*") if p.is_file() and p.stat().st_size]
    return TrainedRun(
        world=world,
        manifest=manifests.load(world.corpus / "manifests" / "built"),
        names=tuple(sorted(p.relative_to(world.run).as_posix() for p in files)),
    )


def try_checkpoint(trained: TrainedRun, rng: random.Random) -> Outcome:
    """The run is as before afterwards."""
    run = trained.world.run
    name = rng.choice(trained.names)
    path, kept = run / name, run.parent / "kept"
    others = [(run / rng.choice(trained.names)).read_bytes()]
    changed = mutated(path.read_bytes(), name, others, rng)
    os.rename(path, kept)
    try:
        path.write_bytes(changed)
        if rng.randrange(EVAL_SHARE) == 0:
            end = commands.run("eval", trained.world, "")
            is_answer = end.exit_code in (0, 1, 2)
            return Outcome("run", name, "eval", [] if is_answer else [f"{end.error!r}"[:400]])
        _open(trained, path.name)
    except InvariantError as error:
        return Outcome("run", name, "opened", [f"InvariantError: {error}"])
    except PipelineError:
        pass
    finally:
        os.replace(kept, path)
    return Outcome("run", name, "opened")


def _open(trained: TrainedRun, file: str) -> None:
    run = trained.world.run
    load_run(run)
    logged(run, 1)
    checkpoint = checkpoint_of(run, "best" if file == BEST_FILE else None)
    opened = open_checkpoint(trained.manifest, checkpoint, REQUEST, device=CPU)
    if file == OPTIMISER:
        optimiser = adamw(opened.learner, recipe_of(checkpoint).optimiser)
        restore(opened.learner, optimiser, None, checkpoint)
