"""A manifest as a torch Dataset: the samples of the loader, alone and through workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from schemas.manifest import load
from schemas.supervision import Task
from tests.training.corpus import NUM_PATCHES, WIDTH, Trainable
from tests.training.loader_cases import loader, recipe
from training.data.action_layout import ACTION_WIDTH
from training.data.dataset import ManifestDataset
from training.tasks import INDEX, TASKS

DATA = recipe().data


def test_samples_are_those_of_the_loader(trainable: Trainable) -> None:
    """Every place where a task can be asked is a sample with the same numbers, and says that it may."""
    found = ManifestDataset(trainable.manifest, data=DATA)
    by_place = {(each["uid"], each["timestep"]): each for each in found}
    assert len(by_place) == len(found)
    made, seen = loader(load(trainable.manifest)), 0
    for task in TASKS:
        for batch in made.every(task, batch_size=16, num_samples=16):
            for b, (row, now) in enumerate(
                zip(batch.origin.row, batch.origin.timestep, strict=True)
            ):
                sample = by_place[made.manifest.row(int(row)).uid, int(now)]
                assert sample["may"][INDEX[task]]
                assert torch.equal(sample["action"], batch.action[b])
                assert batch.stored is not None
                assert torch.equal(sample["action_stored"], batch.stored[b])
                assert torch.equal(sample["past"], batch.known.past[b].float())
                assert torch.equal(sample["future"], batch.future[b].float())
                assert torch.equal(sample["has_history"], batch.known.has_history[b])
                assert sample["text"] == made.manifest.row(int(row)).text
                seen += 1
    assert seen == 64


def test_what_a_sample_may_teach_is_what_places_say(trainable: Trainable) -> None:
    found = ManifestDataset(trainable.manifest, data=DATA)
    may = np.array([each["may"] for each in found])
    made = loader(load(trainable.manifest))
    for task in TASKS:
        assert may[:, INDEX[task]].sum() == len(made.places(task).now)
    assert may[:, INDEX[Task.POLICY]].any()
    assert not may[:, INDEX[Task.POLICY]].all()


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_data_loader_give_the_same(trainable: Trainable, context: str) -> None:
    found = ManifestDataset(trainable.manifest, data=DATA, split="val")
    alone = list(DataLoader(found, batch_size=8))
    shared = list(DataLoader(found, batch_size=8, num_workers=1, multiprocessing_context=context))
    assert len(alone) == len(shared) == -(-len(found) // 8)
    views, patches = len(DATA.cameras), len(DATA.cameras) * NUM_PATCHES
    assert alone[0]["past"].shape == (8, len(DATA.past_s), patches, WIDTH)
    assert alone[0]["has_past"].shape == (8, len(DATA.past_s), views)
    assert alone[0]["action"].shape == (8, DATA.num_actions, ACTION_WIDTH)
    for one, two in zip(alone, shared, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            same = (
                torch.equal(value, two[key])
                if isinstance(value, torch.Tensor)
                else value == two[key]
            )
            assert same, key


def test_there_is_no_sample_beyond_the_last(trainable: Trainable) -> None:
    found = ManifestDataset(trainable.manifest, data=DATA, split="val")
    assert torch.equal(found[-1]["action"], found[len(found) - 1]["action"])
    with pytest.raises(IndexError, match="sample"):
        found[len(found)]
