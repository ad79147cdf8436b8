"""Runs of `tiny` on a small generated corpus that meet a fault each, beside the run without it.

    python -m tests.faults.training_faults [--json]

| fault | how |
|---|---|
| a read that fails | EIO twice in a row from three reads of latents; the third try succeeds |
| an unreadable latent | the latent files of one episode are cut short |
| a step that is not finite | NaN in one gradient of one step |
| a lost cache | the folder of derived actions is removed while the run goes, and the run is resumed |
| a killed rank | SIGKILL of one of two ranks (fsdp2, gloo) at a step; the same command again |
| a killed loader | SIGKILL of the process that makes the batches (`run.loader=process`) at a step |
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import typer
from torch import Tensor
from typer.testing import CliRunner

from benchmarks import result
from jobs.cli import app
from jobs.cli import main as command
from schemas.errors import PipelineError
from schemas.manifest import load
from tests.training.corpus import ENCODER, Trainable, make
from tests.training.running import ROOT, free_port
from tests.training.test_loader_faults import spoil
from tests.training.test_train_cli import words
from training.data.recording import PositionalFile
from training.run.checkpoint import AVERAGES, OPTIMISER, WEIGHTS, checkpoint_of
from training.run.mishaps import BAD_FILE, SKIPPED_FILE, UNMEASURED_FILE, SkippedStep
from training.run.optimiser import trained
from training.run.trainer import Trainer

NUM_STEPS, FAULTY = 8, 5  # a checkpoint every two
TINY = (
    f"run.num_steps={NUM_STEPS}", "run.batch_size=8", "run.log_every=1", "run.checkpoint_every=2", "data.encoder=tiny_vit",
    "optimiser.warmup_steps=2", "run.max_bad_samples=32", "run.max_skipped_steps=1",
)  # fmt: skip
Step = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of a fault. ends: exit codes of the command, one after the other; record: what the run wrote down; is_same: weights, averages and moments are, to the
    bit, those of `like`.
    """

    fault: str
    ends: list[int]
    record: str
    like: str
    is_same: bool


class Faults:
    """Runs in `folder`, on the corpus of `trainable`, which is left as it is."""

    def __init__(self, folder: Path, trainable: Trainable) -> None:
        self.folder, self.trainable = folder, trainable
        self._tensors: dict[str, dict[str, Tensor]] = {}

    def command(self, name: str, *more: str) -> int:
        """Exit code of `eicorpus train` in this process."""
        out, manifest = self.folder / name, self.trainable.manifest
        try:
            done = CliRunner().invoke(
                app, words(manifest, out, *more, small=TINY), standalone_mode=False
            )
            if done.exception is not None:
                raise done.exception
        except PipelineError as error:
            return error.exit_code
        except OSError:
            return 1
        return 0

    def by_two_ranks(self, name: str, kill_at: int | None = None) -> list[int]:
        """Exit codes of both, as torchrun starts them."""
        manifest, out = self.trainable.manifest, self.folder / name
        asked = json.dumps(words(manifest, out, small=(*TINY, "run.parallel=fsdp2")))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        program = [sys.executable, "-m", "tests.faults.training_faults", "--rank"]
        ranks = [
            subprocess.Popen(
                [*program, asked],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                | ({"KILL_AT": str(kill_at)} if rank == 1 and kill_at is not None else {}),
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=None if kill_at is None else subprocess.DEVNULL,
            )
            for rank in range(2)
        ]
        return [rank.wait(timeout=900) for rank in ranks]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """All that the last checkpoint of a run has."""
        checkpoint = checkpoint_of(self.folder / name)
        assert checkpoint.state.step == NUM_STEPS, (name, checkpoint.state.step)
        return {
            f"{file} {key}": x.clone()
            for file in (WEIGHTS, AVERAGES, OPTIMISER)
            for key, x in checkpoint.tensors(file).items()
        }

    def is_same(self, one: str, two: str) -> bool:
        of_one, of_two = self.tensors(one), self.tensors(two)
        return of_one.keys() == of_two.keys() and all(
            torch.equal(x, of_two[name]) for name, x in of_one.items()
        )

    def lines(self, name: str, file: str) -> list[dict[str, Any]]:
        path = self.folder / name / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def failing_reads(self) -> Outcome:
        with reads_that_fail((20, 21, 60, 61, 100, 101)) as failed:
            ends = [self.command("eio")]
        return Outcome(
            fault="a read that fails twice (EIO), three times in the run",
            ends=ends,
            record=f"none; {len(failed)} reads failed, {len(self.lines('eio', BAD_FILE))} samples replaced",
            like="the run without it",
            is_same=self.is_same("eio", "clean"),
        )

    def unreadable_latent(self) -> Outcome:
        """No run is the same without these samples. One on whole files that is given the record is: it says all."""
        whole = self.trainable
        self.trainable = whole.copied(self.folder / "corpus")
        every = load(whole.manifest).rows.to_pylist()
        uid = max((row["weight"], row["uid"]) for row in every if row["split"] == "train")[1]
        rows = [row for row in every if row["uid"] == uid]
        latents = {x["path"] for row in rows for x in row["latents"] if x["encoder_id"] == ENCODER}
        for path in latents:
            spoil(self.trainable.corpus / path, "cut")
        try:
            ends = [self.command("cut")]
        finally:
            self.trainable = whole
        bad = self.lines("cut", BAD_FILE)
        (self.folder / "recorded").mkdir()
        for name in (BAD_FILE, UNMEASURED_FILE):
            shutil.copy(self.folder / "cut" / name, self.folder / "recorded")
        ends.append(self.command("recorded"))
        assert {line["uid"] for line in bad} == {uid}, bad
        return Outcome(
            fault="latents of an episode that are cut short",
            ends=ends,
            record=f"{BAD_FILE}: {len(bad)} samples of that episode; {UNMEASURED_FILE}: {len(self.lines('cut', UNMEASURED_FILE))}",
            like="a run on whole files that is given this record",
            is_same=self.is_same("cut", "recorded") and not self.is_same("cut", "clean"),
        )

    def step_that_is_not_finite(self) -> Outcome:
        with gradients_with_nan(FAULTY):
            ends = [self.command("nan")]
        (skipped,) = self.lines("nan", SKIPPED_FILE)
        (self.folder / "left_out").mkdir()
        line = SkippedStep(step=FAULTY, error="left out").model_dump_json()
        (self.folder / "left_out" / SKIPPED_FILE).write_text(f"{line}\n")
        ends.append(self.command("left_out"))
        return Outcome(
            fault="NaN in a gradient of one step",
            ends=ends,
            record=f"{SKIPPED_FILE}: step {skipped['step']}",
            like="a run that leaves out this step",
            is_same=self.is_same("nan", "left_out"),
        )

    def lost_cache(self) -> Outcome:
        cache = self.folder / "actions"
        with_cache = ("--cache", str(cache))

        def lose(step: int) -> None:
            if step == 3:
                assert any(cache.iterdir())
                shutil.rmtree(cache)

        with before_steps(lose):
            ends = [self.command("lost", *with_cache, "--until", str(FAULTY))]
        assert not cache.exists()
        while len(ends) < 3 and (len(ends) == 1 or ends[-1]):
            ends.append(self.command("lost", *with_cache))
        return Outcome(
            fault="the cache of actions, removed while the run goes; then resumed",
            ends=ends,
            record="none; the cache is made again" if any(cache.iterdir()) else "none",
            like="the run without it",
            is_same=self.is_same("lost", "clean"),
        )

    def killed_rank(self) -> Outcome:
        ends = self.by_two_ranks("killed", FAULTY)
        at = checkpoint_of(self.folder / "killed").state.step
        assert 0 < at < NUM_STEPS
        ends += self.by_two_ranks("killed")
        clean = self.by_two_ranks("clean_by_two")
        assert clean == [0, 0], clean
        assert checkpoint_of(self.folder / "killed").is_sharded
        return Outcome(
            fault=f"SIGKILL of one of two ranks at step {FAULTY}; then resumed",
            ends=ends,
            record=f"none; resumed from step {at}",
            like="the run of two ranks without it",
            is_same=self.is_same("killed", "clean_by_two"),
        )

    def killed_loader(self) -> Outcome:
        """Early: the batches of two more steps are in shared memory already."""
        pids = set[int | None]()

        def kill(step: int) -> None:
            loaders = [each for each in active_children() if each.name == "loader"]
            pids.update(each.pid for each in loaders)
            if step == 1:
                loaders[0].kill()

        with before_steps(kill):
            ends = [self.command("loader", "--set", "run.loader=process")]
        return Outcome(
            fault="SIGKILL of the loader process at step 1",
            ends=ends,
            record=f"none; restarts of the loader: {len(pids) - 1}",
            like="the run of threads without it",
            is_same=self.is_same("loader", "clean"),
        )

    def all(self) -> Iterator[Outcome]:
        assert self.command("clean") == 0
        yield self.failing_reads()
        yield self.unreadable_latent()
        yield self.step_that_is_not_finite()
        yield self.lost_cache()
        yield self.killed_rank()
        yield self.killed_loader()


@contextmanager
def reads_that_fail(numbers: tuple[int, ...]) -> Iterator[list[int]]:
    """EIO from the reads of these numbers; gives those that were asked."""
    fill, failed, count = PositionalFile.fill_all, list[int](), iter(range(10**9))

    def failing(self: PositionalFile, parts: Any, start: int) -> None:
        number = next(count)
        if number in numbers:
            failed.append(number)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fill(self, parts, start)

    with patch.object(PositionalFile, "fill_all", failing):
        yield failed


@contextmanager
def before_steps(act: Step) -> Iterator[None]:
    launch = Trainer.launch

    def launched(self: Trainer, batch: Any, step: int) -> Any:
        act(step)
        return launch(self, batch, step)

    with patch.object(Trainer, "launch", launched):
        yield


@contextmanager
def gradients_with_nan(faulty: int) -> Iterator[None]:
    """In one number of one parameter."""
    accumulate = Trainer._accumulate

    def spoilt(self: Trainer, batch: Any, step: int, *more: Any) -> Any:
        terms = accumulate(self, batch, step, *more)
        if step == faulty:
            gradient = next(p.grad for p in trained(self.learner).values() if p.grad is not None)
            gradient.view(-1)[0] = float("nan")
        return terms

    with patch.object(Trainer, "_accumulate", spoilt):
        yield


def be_rank(asked: list[str]) -> None:
    """`eicorpus` with these words, which kills itself before step KILL_AT."""
    kill_at = os.environ.get("KILL_AT")

    def killed(step: int) -> None:
        if str(step) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.argv = ["eicorpus", *asked]
    torch.set_num_threads(1)
    with before_steps(killed):
        command()


def table(outcomes: list[Outcome]) -> dict[str, Any]:
    rows = [
        [
            each.fault,
            ", ".join(map(str, each.ends)),
            each.record,
            f"{'the same as' if each.is_same else 'other than'} {each.like}",
        ]
        for each in outcomes
    ]
    return {"columns": ["fault", "exit codes", "record", "weights, averages, moments"], "rows": rows}  # fmt: skip


def main(as_json: bool = typer.Option(False, "--json"), rank: str = typer.Option("")) -> None:
    """Run all, and print what came of it."""
    if rank:
        be_rank(json.loads(rank))
        return
    measured_on = result.machine()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = []
        for outcome in Faults(Path(folder), make(Path(folder) / "made")).all():
            typer.echo(outcome, err=True)
            outcomes.append(outcome)
    if as_json:
        typer.echo(result.as_json("training_faults", measured_on, tables={"runs": table(outcomes)}))
    else:
        typer.echo(json.dumps([asdict(each) for each in outcomes], indent=1))


if __name__ == "__main__":
    typer.run(main)
