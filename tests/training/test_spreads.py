"""What the linear guess is told: the same for every batch size, and what numpy finds in the same samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from schemas.manifest import Manifest
from schemas.supervision import Task
from tests.training.loader_cases import Words, loader, recipe
from training.data.action_layout import ACTION_WIDTH
from training.data.latent_reader import LatentReader
from training.run import data_scale
from training.run.data_scale import Spreads, measured_spreads
from training.run.parallel import Ranks

ONE, CPU = Ranks(), torch.device("cpu")


def measured(manifest: Manifest, batch_size: int) -> Spreads:
    made = recipe(run={"batch_size": batch_size, "num_workers": 0})
    return measured_spreads(loader(manifest, made), ONE, CPU)


def test_batches_of_any_size_spread_alike(manifest: Manifest) -> None:
    assert measured(manifest, 12) == measured(manifest, 4)


def test_numpy_finds_the_same_in_every_sample(manifest: Manifest) -> None:
    made = loader(manifest)
    found = measured_spreads(made, ONE, CPU)
    changes = []
    actions = [
        b.action.numpy()[b.has_action.numpy()] for b in made.every(Task.POLICY, batch_size=1)
    ]
    for batch in made.every(Task.VISUAL_FORECASTING, batch_size=1):
        num = batch.future.shape[1] // batch.has_future.shape[1]
        for view in range(batch.has_future.shape[1]):
            if batch.has_future[0, view] and batch.known.has_past[0, -1, view]:
                of_view = slice(view * num, (view + 1) * num)
                before, after = batch.known.past[0, -1, of_view], batch.future[0, of_view]
                changes.append((after.double() - before.double()).numpy().ravel())
    squares = [
        np.square(x).mean()
        for x in (np.clip(np.concatenate(actions), -3, 3), np.concatenate(changes))
    ]
    assert [found.action_std, found.change_std] == pytest.approx(np.sqrt(squares), rel=5e-3)


def no_reading(*given: object) -> None:
    pytest.fail("read, and not needed")


def test_actions_are_measured_without_pictures_and_pictures_without_actions_and_no_text_is_read(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = loader(manifest)
    monkeypatch.setattr(Words, "read", no_reading)
    places = {task: made.places(task, 8) for task in (Task.POLICY, Task.VISUAL_FORECASTING)}
    with monkeypatch.context() as patch:
        patch.setattr(LatentReader, "open", no_reading)
        action, has = made.source.actions(places[Task.POLICY])
        assert has.any()
        assert action.shape == (8, 16, ACTION_WIDTH)
    with monkeypatch.context() as patch:
        patch.setattr(made.source.assembler.store, "open_part", no_reading)
        pictures, _ = made.source.pictures(places[Task.VISUAL_FORECASTING])
        assert pictures.any()


@pytest.mark.parametrize("tiers", [["low"], ["low", "actionless"]])
def test_where_nothing_may_teach_the_policy_other_actions_are_measured(
    manifest: Manifest, tmp_path: Path, tiers: list[str]
) -> None:
    rows = manifest.rows.filter(pc.is_in(manifest.rows["tier"], pa.array(tiers)))
    made = loader(replace(manifest, rows=rows), cache=tmp_path)
    assert not len(made.places(Task.POLICY).now)
    actions = np.concatenate(
        [b.action.numpy()[b.has_action.numpy()] for b in made.every(Task.INVERSE_DYNAMICS, batch_size=9)]
    )  # fmt: skip
    wanted = np.sqrt(np.square(np.clip(actions, -3, 3)).mean())
    found = measured_spreads(made, ONE, CPU)
    assert found.action_std == pytest.approx(wanted, rel=5e-3)
    assert found.action_std != 1.0


def test_what_cannot_be_measured_is_one(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_scale, "NUM_SAMPLES", 0)
    found = measured_spreads(loader(manifest), ONE, CPU)
    assert found == Spreads(action_std=1.0, change_std=1.0)


def test_a_few_far_moves_do_not_widen_it_for_all(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_scale, "FAR", 0.1)
    assert measured_spreads(loader(manifest), ONE, CPU).action_std <= 0.1
