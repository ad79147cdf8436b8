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
from training.data.action_layout import slot_names
from training.data.loader import Loader
from training.recipe import TrainRecipe
from training.tasks import TASKS

ALL = tuple(task.value for task in TASKS)


class Words:
    """Gives every sample its row's text, as bytes."""

    def read(
        self, rows: Sequence[ManifestRow], timesteps: npt.NDArray[np.int64]
    ) -> dict[str, Tensor]:
        assert len(rows) == len(timesteps)
        made = np.zeros((len(rows), 40), dtype=np.uint8)
        for b, row in enumerate(rows):
            word = f"{row.text}|{row.start}".encode()
            made[b, : len(word)] = np.frombuffer(word, dtype=np.uint8)
        return {"bytes": torch.from_numpy(made)}


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
    pairs += [(a.text_inputs["bytes"], b.text_inputs["bytes"])]
    return addresses(a) == addresses(b) and all(torch.equal(x, y) for x, y in pairs)


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
