"""A run in two pieces is the run in one, to the bit; a checkpoint is whole or not there; a new body gets a layer of its own."""

from __future__ import annotations

import json
import os
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from schemas.errors import ConfigError
from tests.training import running
from tests.training.running import batches, learner, recipe, snapshot_of, trainer, weights
from training.model.settings import ModelSettings
from training.run import checkpoint
from training.run.best import Best
from training.run.checkpoint import (
    OPTIMISER,
    STATE,
    WEIGHTS,
    CheckpointSnapshot,
    CheckpointWriter,
    checkpoint_of,
    checkpoints,
    refuse_broken,
    sweep,
    write,
)
from training.run.restore import restore, restore_weights, weights_of
from training.run.trainer import Trainer


def taken(made: Trainer, step: int) -> CheckpointSnapshot:
    found = snapshot_of(made, step)
    assert found is not None
    return found


def stepped(made: Trainer, first: int, end: int) -> Trainer:
    given = batches(first)
    for step in range(first, end):
        made.step(next(given), step)
    return made


def test_a_run_in_two_pieces_is_the_run_in_one_to_the_byte(tmp_path: Path) -> None:
    """With averages, and dropout, whose masks must go on as well."""
    with_recipe = recipe(optimiser={"ema": 0.9}, accumulate=2)

    def fresh() -> Trainer:
        return trainer(with_recipe, made=learner(dropout=0.2))

    whole = stepped(fresh(), 0, 6)
    write(tmp_path / "one", taken(whole, 6), keep=3)
    half = stepped(fresh(), 0, 3)
    write(tmp_path / "two/checkpoints", taken(half, 3), keep=3)
    again = fresh()
    with torch.no_grad():  # whatever it had before
        for p in again.learner.parameters():
            if p.requires_grad:
                p.add_(1.0)
    restore(again.learner, again.optimiser, again.averages, checkpoint_of(tmp_path / "two"))
    stepped(again, 3, 6)
    write(tmp_path / "two/checkpoints", taken(again, 6), keep=3)
    one, two = tmp_path / "one/step_00000006", tmp_path / "two/checkpoints/step_00000006"
    names = sorted(path.name for path in one.iterdir())
    assert names == ["averages.safetensors", "normaliser.safetensors", "optimiser.safetensors", "state.json", "weights.safetensors"]  # fmt: skip
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.parametrize("lost", ["exp_avg.network.merge.weight", "step.network.merge.weight"])
def test_without_the_moments_it_would_be_another_run(tmp_path: Path, lost: str) -> None:
    made = stepped(trainer(recipe()), 0, 3)
    made_again = trainer(recipe(), made=learner())
    kept = taken(made, 3)
    if lost.startswith("step"):
        del kept.files[OPTIMISER][lost]
    else:
        kept.files[OPTIMISER][lost].zero_()
    write(tmp_path / "checkpoints", kept, keep=1)
    restore(made_again.learner, made_again.optimiser, None, checkpoint_of(tmp_path))
    one, two = stepped(made, 3, 4), stepped(made_again, 3, 4)
    name = "network.merge.weight"
    assert not torch.equal(weights(one.learner)[name], weights(two.learner)[name])


def test_frozen_parameters_are_in_no_checkpoint() -> None:
    files = taken(stepped(trainer(recipe()), 0, 1), 1).files
    assert "conditioner.learned.weight" in files[WEIGHTS]
    assert not [name for file in files.values() for name in file if "frozen" in name]


def test_a_snapshot_does_not_change_when_training_goes_on(tmp_path: Path) -> None:
    made = stepped(trainer(recipe(optimiser={"ema": 0.5})), 0, 2)
    kept = taken(made, 2)
    write(tmp_path / "a/checkpoints", kept, keep=1)
    stepped(made, 2, 4)
    write(tmp_path / "b/checkpoints", kept, keep=1)
    for path in (tmp_path / "a/checkpoints/step_00000002").iterdir():
        other = tmp_path / "b/checkpoints/step_00000002" / path.name
        assert path.read_bytes() == other.read_bytes()


def test_the_newest_stay_and_are_listed_in_order(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep=2)
    made = trainer(recipe())
    for step in (5, 20, 100_000_000):
        writer.save(partial(taken, made, step))
    writer.close()
    assert [each.state.step for each in checkpoints(tmp_path)] == [20, 100_000_000]
    assert checkpoint_of(tmp_path).state.step == 100_000_000
    assert checkpoint_of(tmp_path, 20).folder.name == "step_00000020"
    with pytest.raises(
        ConfigError, match="no checkpoint of step 5; available steps: 20, 100000000"
    ):
        checkpoint_of(tmp_path, 5)


@pytest.mark.parametrize("damage", ["cut", "gone", "no state", "half"])
def test_what_is_not_whole_is_not_listed(tmp_path: Path, damage: str) -> None:
    made = trainer(recipe())
    for step in (1, 2):
        write(tmp_path / "checkpoints", taken(made, step), keep=5)
    newest = tmp_path / "checkpoints/step_00000002"
    if damage == "cut":
        path = newest / OPTIMISER
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        (newest / WEIGHTS).unlink()
    elif damage == "no state":
        (newest / STATE).write_text("{")
    else:
        newest.rename(newest.with_name(".step_00000002.part"))
    assert [each.state.step for each in checkpoints(tmp_path)] == [1]
    if damage == "half":
        refuse_broken(tmp_path)  # that is what a killed run leaves
    else:
        with pytest.raises(ConfigError, match="damaged: step_00000002; valid steps: 1;"):
            refuse_broken(tmp_path)
    sweep(tmp_path)
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_fifo_is_no_file_of_a_checkpoint(tmp_path: Path) -> None:
    """Reading it would never end."""
    folder = write(tmp_path / "checkpoints", taken(stepped(trainer(recipe()), 0, 1), 1), keep=1)
    state = json.loads((folder / STATE).read_text())
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)
    state["num_bytes"][WEIGHTS] = 0
    (folder / STATE).write_text(json.dumps(state))
    assert checkpoints(tmp_path) == []


def test_what_was_just_written_stays_beside_broken_and_higher_ones(tmp_path: Path) -> None:
    folder, made = tmp_path / "checkpoints", trainer(recipe())
    for step in (100, 200, 300):
        write(folder, taken(made, step), keep=5)
    (folder / "step_00000200" / WEIGHTS).unlink()
    write(folder, taken(made, 150), keep=1)
    assert [each.state.step for each in checkpoints(tmp_path)] == [150, 300]


def test_a_step_that_is_there_is_written_anew(tmp_path: Path) -> None:
    """As of a run that went back to an older one."""
    folder, made = tmp_path / "checkpoints", trainer(recipe())
    old = weights_in(write(folder, taken(made, 2), keep=5))
    stepped(made, 0, 1)
    assert weights_in(write(folder, taken(made, 2), keep=5)) != old
    assert [path.name for path in folder.iterdir()] == ["step_00000002"]


def weights_in(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


def test_the_next_is_made_when_the_one_before_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them in memory at once would be 32 bytes a parameter."""
    kept, may_end, written = taken(trainer(recipe()), 1), threading.Event(), threading.Event()

    def slowly(folder: Path, made: CheckpointSnapshot, *, keep: int, best: Best | None) -> Path:
        assert may_end.wait(30)
        written.set()
        return folder

    monkeypatch.setattr(checkpoint, "write", slowly)
    writer = CheckpointWriter(tmp_path, keep=1)
    writer.save(lambda: kept)
    assert not written.is_set()  # the step goes on meanwhile
    threading.Timer(0.02, may_end.set).start()
    writer.save(lambda: kept if written.is_set() else pytest.fail("made too early"))
    writer.save(lambda: None)  # of a rank that has nothing to write
    writer.close()


def test_a_full_disk_is_the_machines_trouble_and_not_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors tells it as an error of its own, which a command would report as a bug of ours."""

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    made = taken(trainer(recipe()), 1)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"weights\.safetensors: .*No space left"):
        write(tmp_path / "checkpoints", made, keep=1)
    assert checkpoints(tmp_path) == []


def test_power_lost_while_writing_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every lasting operation of `write` in turn is the last one."""
    made = trainer(recipe())
    for last in range(20):
        run = tmp_path / str(last)
        write(run / "checkpoints", taken(made, 1), keep=1)
        calls = iter(range(100))

        def cut(path: Path, calls: Any = calls, last: int = last) -> None:
            if next(calls) == last:
                raise OSError("no space left")

        monkeypatch.setattr(checkpoint, "make_durable", cut)
        writer = CheckpointWriter(run, keep=1)
        writer.save(partial(taken, made, 2))
        try:
            writer.close()
        except OSError:
            assert [each.state.step for each in checkpoints(run)] in ([1], [1, 2], [2])
        else:
            break
        finally:
            monkeypatch.undo()
    assert (
        last == 7
    )  # files: weights, optimiser, normaliser, state; folder; its parent; the parent without the old one
    assert [each.state.step for each in checkpoints(run)] == [2]


def test_a_newer_version_is_refused_and_the_normaliser_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", taken(trainer(recipe()), 1), keep=1)
    found = checkpoint_of(tmp_path)
    back = found.normaliser_state()
    assert back["slots"] == ["a", "b"]
    assert back["clip"] is None
    assert torch.equal(back["centre"], running.CENTRE)
    path = found.folder / STATE
    path.write_text(path.read_text().replace('"checkpoint_version": 3', '"checkpoint_version": 4'))
    with pytest.raises(ConfigError, match="newer eicorpus"):
        checkpoint_of(tmp_path)


def test_one_spread_of_all_channels_of_an_older_version_is_read(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", taken(trainer(recipe()), 1), keep=1)
    path = checkpoint_of(tmp_path).folder / STATE
    raw = json.loads(path.read_text())
    raw |= {"checkpoint_version": 2, "model": raw["model"] | {"action_std": 0.25}}
    path.write_text(json.dumps(raw))
    model = checkpoint_of(tmp_path).state.model
    assert isinstance(model, ModelSettings)
    assert model.action_std == 0.25
    raw["model"]["action_std"] = [0.25]  # of one channel, where there are more
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="damaged"):
        refuse_broken(tmp_path)


def test_another_network_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "checkpoints", taken(trainer(recipe()), 1), keep=1)
    found = checkpoint_of(tmp_path).tensors()
    with pytest.raises(ConfigError, match=r"another network: .*num_layers|only one of them"):
        restore_weights(learner(num_layers=1), found, where="x")
    with pytest.raises(
        ConfigError, match=r"has shape \[3, 10, 8\]; this network needs \[3, 12, 8\]"
    ):
        restore_weights(learner(action_width=6), found, where="x", may_grow=True)
    with pytest.raises(
        ConfigError, match=r"has shape \[3, 10, 8\]; this network needs \[4, 10, 8\]"
    ):
        restore_weights(learner(num_embodiments=4), found, where="x")


def test_a_new_body_gets_a_layer_and_the_others_keep_theirs(tmp_path: Path) -> None:
    old = stepped(trainer(recipe()), 0, 2)
    write(tmp_path / "checkpoints", taken(old, 2), keep=1)
    larger = learner(num_embodiments=5)
    fresh = weights(larger)
    restore_weights(larger, checkpoint_of(tmp_path).tensors(), where="x", may_grow=True)
    now, before = weights(larger), weights(old.learner)
    name = "network.action_in.own.weight"
    assert torch.equal(now[name][:3], before[name])
    assert torch.equal(now[name][3:], fresh[name][3:])
    assert torch.equal(now["network.merge.weight"], before["network.merge.weight"])


def test_a_failed_write_is_told_at_the_next_save(tmp_path: Path) -> None:
    made = trainer(recipe())
    writer = CheckpointWriter(tmp_path, keep=1)
    (tmp_path / "checkpoints").write_text("not a folder")
    writer.save(partial(taken, made, 1))
    with pytest.raises(OSError, match="checkpoints"):
        writer.save(partial(taken, made, 2))
    writer.close()
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_run_can_begin_with_the_averages_of_another(tmp_path: Path) -> None:
    with_averages = stepped(trainer(recipe(optimiser={"ema": 0.9})), 0, 2)
    write(tmp_path / "a/checkpoints", taken(with_averages, 2), keep=1)
    found = checkpoint_of(tmp_path / "a")
    averaged, raw = (weights_of(found, averaged=how) for how in (True, False))
    assert averaged.keys() == raw.keys()
    assert with_averages.averages is not None
    for name, value in with_averages.averages.values.items():
        assert torch.equal(averaged[name], value)
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)
    write(tmp_path / "b/checkpoints", taken(stepped(trainer(recipe()), 0, 1), 1), keep=1)
    with pytest.raises(ConfigError, match=r"no averages; remove --init-averages"):
        weights_of(checkpoint_of(tmp_path / "b"), averaged=True)
