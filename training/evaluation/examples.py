"""Example predictions as colours, and the two plots of an evaluation as PNG. matplotlib is imported only when a plot is drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from schemas.supervision import Task
from training.data.loader import Loader
from training.evaluation.errors import last_image
from training.evaluation.evaluate import MODEL, Evaluation
from training.evaluation.summary import EVERY, MetricLine
from training.run.micro_batch import moved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    tokens_by_name = {NOW: last_image(batch), TRUE: batch.future}
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


DPI = 110
LABELS = {
    "position_l1_m": "position, m",
    "rotation_rad": "rotation, rad",
    "gripper_l1": "gripper opening",
    "keypoint_m": "hand keypoints, m",
    "hand_joint_l1_rad": "hand joints, rad",
    "normalised_l1": "all elements, normalised",
}


def error_over_horizon(
    lines: Sequence[MetricLine], action_t_s: npt.NDArray[np.float64], task: Task = Task.POLICY
) -> bytes | None:
    """The policy's error at each step of the chunk beside the baselines', one panel a metric; None without any."""
    drawn = [
        line
        for line in lines
        if (line.task, line.embodiment, line.tier) == (task, EVERY, EVERY)
        and line.metric in LABELS
        and len(line.by_step[MODEL]) == len(action_t_s)
    ]
    if not drawn:
        return None
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = _figure(3.6 * columns, 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, line in zip(panels, drawn, strict=False):
        for who, values in line.by_step.items():
            known = np.array([np.nan if v is None else v for v in values])
            is_model = who == MODEL
            width = 2.2 if is_model else 1.2
            panel.plot(action_t_s, known, label=who, linewidth=width, zorder=3 if is_model else 2)
        panel.set_title(LABELS[line.metric], fontsize=9)
        panel.set_xlabel("seconds from now", fontsize=8)
        panel.set_ylim(bottom=0)
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3)
    for panel in panels[len(drawn) :]:
        panel.set_visible(False)
    panels[0].legend(fontsize=7)
    return _png(figure)


def latents_as_colours(shown: Shown) -> bytes:
    """One row a sample, one column for now, the true future and what was expected."""
    columns = colours(shown)
    height, width = shown.patches[TRUE].shape[1:3]
    tall = 2.1 * height / width * len(shown.names)
    figure = _figure(2.1 * len(columns) + 0.3, tall + 0.4)
    panels = figure.subplots(len(shown.names), len(columns), squeeze=False)
    for column, (name, pictures) in enumerate(columns.items()):
        panels[0, column].set_title(name, fontsize=9)
        for row, picture in enumerate(pictures):
            panels[row, column].imshow(picture, interpolation="nearest")
            panels[row, column].set_xticks([])
            panels[row, column].set_yticks([])
    for row, name in enumerate(shown.names):
        panels[row, 0].set_ylabel(name, fontsize=6)
    return _png(figure)


def _figure(width_inch: float, height_inch: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inch, height_inch), layout="constrained")


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
