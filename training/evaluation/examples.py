"""A few samples to look at: the picture of now, the true future, and what the network expected, as colours.

The three directions in which the true tokens differ most (principal components) become red, green and blue, the same for every picture: patches
of one colour are alike to the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from schemas.supervision import Task
from training.data.loader import Loader
from training.evaluation.evaluate import Evaluation
from training.evaluation.pictures import last_picture
from training.run.micro_batch import moved

NOW, TRUE = "now", "true future"
FORECAST, KNOWING = "forecast", "forecast, action known"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """[S, height, width, D] patches of the first view, by what they are; `names` [S] say of which sample."""

    patches: dict[str, Array]
    names: list[str]


@torch.no_grad()
def shown_of(
    loader: Loader, evaluation: Evaluation, trained: Sequence[Task], num: int, device: torch.device
) -> Shown | None:
    """Samples evenly spread over the split; None where no picture is trained or nothing can be asked."""
    task = next((t for t in (Task.FORWARD_DYNAMICS, Task.VISUAL_FORECASTING) if t in trained), None)
    if task is None or num < 1:
        return None
    batch = next(loader.every(task, batch_size=num, num_samples=num), None)
    if batch is None:
        return None
    batch = moved(batch, device)
    text = evaluation.sampler.encode_text(batch.text_inputs)
    tokens_by_name = {NOW: last_picture(batch), TRUE: batch.future}
    if Task.VISUAL_FORECASTING in trained:
        tokens_by_name[FORECAST] = evaluation.picture(batch, text, Task.VISUAL_FORECASTING)
    if task is Task.FORWARD_DYNAMICS:
        tokens_by_name[KNOWING] = evaluation.picture(batch, text, task)
    shape = loader.latent_shape
    first_view = slice(0, shape.num_patches)

    def on_grid(tokens: torch.Tensor) -> Array:
        kept = tokens[:, first_view].double().cpu().numpy()
        return kept.reshape(len(kept), shape.grid_height, shape.grid_width, -1)

    rows = loader.manifest.rows["uid"].take(batch.origin.row).to_pylist()
    at = zip(rows, batch.origin.timestep.tolist(), strict=True)
    return Shown(
        patches={name: on_grid(tokens) for name, tokens in tokens_by_name.items()},
        names=[f"{uid[:12]} timestep {timestep}" for uid, timestep in at],
    )


def colours(shown: Shown) -> dict[str, Array]:
    """[S, height, width, 3] in [0, 1]: the principal components of the true tokens, the central 98 % of them as the range."""
    true = shown.patches[TRUE]
    flat = true.reshape(-1, true.shape[-1])
    centre = flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat - centre, full_matrices=False)
    axes = np.zeros((3, flat.shape[1]))
    axes[: min(3, len(directions))] = directions[:3]
    axes *= np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)  # a direction has no sign
    low, high = np.quantile((flat - centre) @ axes.T, [0.01, 0.99], axis=0)
    span = np.where(high > low, high - low, 1.0)
    return {
        name: np.clip(((patches - centre) @ axes.T - low) / span, 0.0, 1.0)
        for name, patches in shown.patches.items()
    }
