"""A recipe, a loader, and batches compared, for tests of the loader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from schemas.manifest import Manifest, ManifestRow
from training.batch import Batch
from training.conditioning.inputs import TextInputs, distinct, end_to_end
from training.data.action_layout import slot_names
from training.data.loader import Loader
from training.recipe import TrainRecipe
from training.tasks import TASKS

ALL = tuple(task.value for task in TASKS)


class Words:
    """Gives every sample its row's text and where it begins, as bytes."""

    def read(self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]) -> TextInputs:
        assert len(rows) == len(timesteps)
        words = [f"{row.text}|{row.start}".encode() for row in rows]
        first, text_of = distinct(words)
        letters, layout = end_to_end([torch.tensor(list(words[b])) for b in first], text_of)
        return TextInputs(layout=layout, by_token={"bytes": letters})


def texts_of(batch: Batch) -> list[str]:
    """What `Words` gave each sample."""
    inputs = batch.text_inputs
    each = torch.split(inputs.by_token["bytes"], inputs.layout.num_tokens.tolist())
    return [bytes(each[number].tolist()).decode() for number in inputs.layout.text_of]


def recipe(**changes: Any) -> TrainRecipe:
    given: dict[str, Any] = {
        "name": "test",
        "seed": 7,
        "data": {"encoder": "tiny_vit", "cameras": ["front", "wrist"], **changes.pop("data", {})},
        "run": {"batch_size": 12, "num_workers": 0, **changes.pop("run", {})},
    }
    return TrainRecipe.model_validate(given | changes)


def loader(manifest: Manifest, made: TrainRecipe | None = None, **given: Any) -> Loader:
    return Loader(manifest, made or recipe(), reader=Words(), **given)


def addresses(batch: Batch) -> list[tuple[int, int, int]]:
    origin = batch.origin
    return list(
        zip(origin.row.tolist(), origin.timestep.tolist(), batch.known.task.tolist(), strict=True)
    )


def same(a: Batch, b: Batch) -> bool:
    pairs = [(a.action, b.action), (a.has_action, b.has_action), (a.future, b.future)]
    pairs += [(a.known.past, b.known.past), (a.known.history, b.known.history)]
    is_told = addresses(a) == addresses(b) and texts_of(a) == texts_of(b)
    return is_told and all(torch.equal(x, y) for x, y in pairs)


# --- what a sample is ------------------------------------------------------------------------------------------------


def as_elements(values: Tensor, has: Tensor) -> list[dict[str, float]]:
    return [
        {slot_names()[s]: float(values[k, s]) for s in torch.nonzero(has[k])[:, 0].tolist()}
        for k in range(len(values))
    ]


def assert_close(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    assert [x.keys() for x in found] == [x.keys() for x in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine == pytest.approx(theirs, abs=2e-4)  # a micrometre over a range of centimetres
