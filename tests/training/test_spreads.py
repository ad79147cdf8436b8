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
from training.data.loader import Loader
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
    actual = measured_spreads(made, ONE, CPU)
    changes = []
    actions = actions_of(made, Task.POLICY)
    for batch in made.every(Task.VISUAL_FORECASTING, batch_size=1):
        num = batch.future.shape[1] // batch.has_future.shape[1]
        for view in range(batch.has_future.shape[1]):
            if batch.has_future[0, view] and batch.known.has_past[0, -1, view]:
                of_view = slice(view * num, (view + 1) * num)
                before, after = batch.known.past[0, -1, of_view], batch.future[0, of_view]
                changes.append((after.double() - before.double()).numpy())
    wanted = np.sqrt(np.square(np.concatenate(changes)).mean(axis=0))
    assert actual.change_std == pytest.approx(wanted, rel=5e-3)
    assert max(wanted) > 1.1 * min(wanted)
    whole = np.sqrt(np.nanmean(np.square(actions)))
    measured_elements = np.isfinite(actions).any(axis=0)
    assert measured_elements.any()
    assert not measured_elements.all()
    wanted = np.full(ACTION_WIDTH, whole)
    wanted[measured_elements] = np.sqrt(
        np.nanmean(np.square(actions[:, measured_elements]), axis=0)
    )
    assert actual.action_std == pytest.approx(np.maximum(wanted, 0.25 * whole), rel=5e-3)


def actions_of(made: Loader, task: Task) -> np.ndarray:
    """[N, 172] of all samples of a task, clipped; NaN where there is none."""
    rows = [
        np.where(b.has_action.numpy(), np.clip(b.action.numpy().astype(np.float64), -3, 3), np.nan)
        for b in made.every(task, batch_size=1)
    ]
    return np.concatenate(rows).reshape(-1, ACTION_WIDTH)


def test_a_channel_that_no_sample_has_or_that_hardly_changes() -> None:
    """By hand: all together sqrt((400 + 1) / 8) = 7.08; 0.001 and a constant are raised to a tenth of it, what is unknown gets it."""
    squares, num = torch.tensor([400.0, 1e-6, 0.0, 0.0, 1.0]), torch.tensor([4.0, 1, 1, 0, 2])
    actual = data_scale._std(squares, num, least=0.1)
    assert actual == (10.0, 0.708, 0.708, 7.08, 0.708)
    assert data_scale._std(squares, num, least=0.01)[4] == 0.707
    assert data_scale._std(torch.zeros(2), num[:2], least=0.1) == (1.0, 1.0)
    assert data_scale._std(torch.zeros(2), torch.zeros(2), least=0.1) == (1.0, 1.0)


def test_several_ranks_find_what_one_finds(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adds up its stretch of the samples; what they send each other is [2, channels]."""
    parts: list[list[torch.Tensor]] = []
    for rank in range(2):
        sent: list[torch.Tensor] = []

        def kept(x: torch.Tensor, ranks: Ranks, sent: list[torch.Tensor] = sent) -> torch.Tensor:
            sent.append(x.clone())
            return x

        monkeypatch.setattr(data_scale, "sum_over", kept)
        measured_spreads(loader(manifest, rank=rank, world_size=2), ONE, CPU)
        parts.append(sent)
    sums = [a + b for a, b in zip(*parts, strict=True)]
    monkeypatch.undo()
    answers = iter(sums)
    monkeypatch.setattr(data_scale, "sum_over", lambda x, ranks: next(answers))
    together = measured_spreads(loader(manifest, rank=1, world_size=2), ONE, CPU)
    monkeypatch.undo()
    assert together == measured_spreads(loader(manifest), ONE, CPU)


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
    actions = actions_of(made, Task.INVERSE_DYNAMICS)
    wanted = np.sqrt(np.nanmean(np.square(actions)))
    actual = np.array(measured_spreads(made, ONE, CPU).action_std)
    unknown = np.isnan(actions).all(axis=0)
    assert actual[unknown] == pytest.approx(wanted, rel=5e-3)
    assert np.sqrt(np.nanmean(actual[~unknown] ** 2)) != 1.0


def test_what_cannot_be_measured_is_one(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_scale, "NUM_SAMPLES", 0)
    actual = measured_spreads(loader(manifest), ONE, CPU)
    assert set(actual.action_std) == set(actual.change_std) == {1.0}
    assert len(actual.action_std) == ACTION_WIDTH


def test_a_few_far_moves_do_not_widen_it_for_all(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_scale, "FAR", 0.1)
    assert max(measured_spreads(loader(manifest), ONE, CPU).action_std) <= 0.1
