"""What the linear guess is told: the same for every batch size, and what numpy finds in the same samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from schemas.manifest import Manifest
from schemas.supervision import Task
from tests.training.loader_cases import loader, recipe
from training.run import spreads
from training.run.parallel import Ranks
from training.run.spreads import Spreads, measured_spreads

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


def test_what_cannot_be_measured_is_one(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreads, "NUM_SAMPLES", 0)
    found = measured_spreads(loader(manifest), ONE, CPU)
    assert found == Spreads(action_std=1.0, change_std=1.0)


def test_a_few_far_moves_do_not_widen_it_for_all(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreads, "FAR", 0.1)
    assert measured_spreads(loader(manifest), ONE, CPU).action_std <= 0.1
