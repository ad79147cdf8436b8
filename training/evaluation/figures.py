"""Two drawings of an evaluation, as PNG. matplotlib is imported where something is drawn: it makes folders when it is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.supervision import Task
from training.evaluation.evaluate import MODEL
from training.evaluation.examples import TRUE, Shown, colours
from training.evaluation.summary import EVERY, MetricLine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
