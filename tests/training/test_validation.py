"""Held-out losses while training: the same on any number of ranks, weights untouched, the best checkpoint kept and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.ui.options import step_from
from schemas.errors import ConfigError, PipelineError, SourceError
from schemas.manifest import Manifest, load
from schemas.supervision import Task
from tests.training.corpus import ENCODER, Trainable
from tests.training.loader_cases import loader, recipe
from tests.training.running import batches, snapshot_of, trainer, weights
from tests.training.running import recipe as run_recipe
from tests.training.test_loader_faults import spoil
from tests.training.test_train_cli import train
from tests.training.test_trainer import loop
from training.run.best import Best, load_best
from training.run.checkpoint import FOLDER, CheckpointWriter, checkpoint_of, checkpoints, write
from training.run.mishaps import BAD_FILE
from training.run.parallel import Ranks
from training.run.run_folder import LOG_FILE
from training.run.validation import Validated, Validation

pytestmark = pytest.mark.slow


def steps_of(run: Path) -> list[int]:
    return [each.state.step for each in checkpoints(run)]


def test_the_best_stays_whatever_comes_after(tmp_path: Path) -> None:
    made = trainer(run_recipe())
    folder = tmp_path / FOLDER
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 1.5, 5: 0.5, 6: 4.0}
    best = None
    for step, loss in losses.items():
        if best is None or loss < best.loss:
            best = Best(step=step, loss=loss)
        snapshot = snapshot_of(made, step)
        assert snapshot is not None
        write(folder, snapshot, keep=1, best=best if best.step == step else None)
        assert steps_of(tmp_path) == sorted({step, best.step})
        assert load_best(folder) == best
    assert checkpoint_of(tmp_path, "best").state.step == 5
    assert checkpoint_of(tmp_path).state.step == 6


def test_a_run_that_was_not_evaluated_has_no_best(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no best checkpoint.*run.eval_every=N"):
        checkpoint_of(tmp_path, "best")


def test_a_damaged_best_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.json").write_bytes(b'{"step": "\xff"}')
    with pytest.raises(ConfigError, match=r"damaged .*remove it"):
        load_best(tmp_path)


def test_the_loop_evaluates_when_it_should_and_keeps_only_what_is_better() -> None:
    told: list[dict[str, Any]] = []
    saved: list[int] = []
    found = iter([5.0, 6.0, 4.0])
    kept: list[Best] = []
    made = trainer(run_recipe(num_steps=6, eval_every=2, log_every=100, checkpoint_every=100))
    hooks = {
        "validate": lambda: Validated(line={"val_loss": (loss := next(found))}, loss=loss),
        "save_best": lambda _, best: kept.append(best),
    }
    loop(made, told, saved, **hooks).run(batches(0), 0, 6)
    assert [(line["step"], line["val_loss"]) for line in told] == [(2, 5.0), (4, 6.0), (6, 4.0)]
    assert kept == [Best(step=2, loss=5.0), Best(step=6, loss=4.0)]
    assert saved == []  # the last step is saved as the best
    again = trainer(run_recipe(num_steps=2, eval_every=2, checkpoint_every=100))
    worse = {"validate": lambda: Validated(line={}, loss=4.5), "best": Best(step=6, loss=4.0)}
    loop(again, [], saved, **(hooks | worse)).run(batches(0), 0, 2)
    assert (len(kept), saved) == (2, [2])


def test_ranks_share_the_samples_of_one(manifest: Manifest) -> None:
    made = recipe(run={"eval_samples": 6})
    whole = Validation(loader(manifest, made, split="val"), made, Ranks())
    for world_size in (2, 3, 4, 12):
        parts = [
            Validation(
                loader(manifest, made, split="val", rank=rank, world_size=world_size),
                made,
                Ranks(rank=rank, world_size=world_size),
            )
            for rank in range(world_size)
        ]
        for task, share in whole.shares.items():
            mine = [part.shares[task] for part in parts]
            assert {len(each.numbers) for each in mine} == {-(-6 // world_size)}
            scored = [now for each in mine for now in each.drawn.now[: each.num_own].tolist()]
            assert scored == share.drawn.now.tolist()
    assert Task.POLICY in whole.shares


def held_out_file(mine: Trainable, which: int) -> Path:
    """Of the latents of a row of the held-out split; the first of them is read for its shape."""
    held_out = load(mine.manifest).of_split("val")
    row = held_out.row(range(len(held_out))[which])
    views = [x for x in row.latents if x.encoder_id == ENCODER]
    return mine.corpus / min(views, key=lambda x: x.camera).path


@pytest.mark.parametrize(
    ("which", "error", "said"),
    [
        (0, ConfigError, r"damaged .*eicorpus latents"),
        (-1, SourceError, r"broken sample.*run\.max_bad_samples=N"),
    ],
)
def test_an_unreadable_held_out_sample_is_replaced_and_counted(
    trainable: Trainable, tmp_path: Path, which: int, error: type[PipelineError], said: str
) -> None:
    """By the same sample in every evaluation and in a run that goes on; without an allowance the run ends with its address."""
    mine = trainable.copied(tmp_path / "corpus")
    path = held_out_file(mine, which)
    spoil(path, "cut")
    looked = ("--set", "run.eval_every=3", "--set", "run.eval_samples=60")
    with pytest.raises(error, match=said):
        train(mine.manifest, tmp_path / "none", *looked)
    allowed = (*looked, "--set", "run.max_bad_samples=90")
    run = tmp_path / "run"
    assert train(mine.manifest, run, *allowed, "--until", "3")["step"] == 3
    before = (run / BAD_FILE).read_text()
    lines = [json.loads(line) for line in before.splitlines()]
    assert lines
    assert all(line["step"] == -1 and path.name in line["error"] for line in lines)
    assert train(mine.manifest, run, *allowed)["step"] == 6
    assert (run / BAD_FILE).read_text() == before  # counted once
    few = (*looked, "--set", "run.max_bad_samples=1")
    with pytest.raises(SourceError, match=r"run\.max_bad_samples allows 1|now 1\)"):
        train(mine.manifest, tmp_path / "few", *few)


def test_a_run_evaluates_keeps_its_best_and_is_not_changed_by_it(
    trainable: Trainable, tmp_path: Path
) -> None:
    """Weights are those of a run that never looked; the lines have held-out losses of both kinds of weights."""
    plain = train(trainable.manifest, tmp_path / "plain")
    looked = (
        "--set",
        "run.eval_every=2",
        "--set",
        "run.eval_samples=5",
        "--set",
        "run.keep_checkpoints=1",
    )
    found = train(trainable.manifest, tmp_path / "run", *looked)
    for file in ("weights.safetensors", "averages.safetensors"):
        one, two = (checkpoint_of(tmp_path / name).folder / file for name in ("plain", "run"))
        assert one.read_bytes() == two.read_bytes()
    assert plain["step"] == found["step"] == 6
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG_FILE).read_text().splitlines()]
    seen = {line["step"]: line["val_averages_loss"] for line in lines if "val_loss" in line}
    assert seen.keys() == {2, 4, 6}
    assert lines[1]["val_loss"] != lines[1]["val_averages_loss"]
    assert set(lines[1]["val_loss_by_task"]) == {task.value for task in Task}
    best = checkpoint_of(tmp_path / "run", "best").state.step
    assert seen[best] == min(seen.values())
    assert steps_of(tmp_path / "run") == sorted({best, 6})


def test_a_manifest_that_holds_nothing_out_is_refused(
    trainable: Trainable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.build.HELD_OUT", "none")
    with pytest.raises(ConfigError, match=r"no segment of split none.*run.eval_every=null"):
        train(trainable.manifest, tmp_path / "run", "--set", "run.eval_every=2")


def test_what_names_a_checkpoint() -> None:
    assert [step_from(each) for each in (None, "best", "12")] == [None, "best", 12]
    with pytest.raises(ConfigError, match="expected a step or `best`"):
        step_from("newest")


def test_a_writer_marks_the_best(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep=1)
    made = trainer(run_recipe())
    writer.save(lambda: snapshot_of(made, 3), Best(step=3, loss=1.0))
    writer.close()
    assert load_best(tmp_path / FOLDER) == Best(step=3, loss=1.0)
    assert weights(made.learner).keys()
    assert torch.is_grad_enabled()
