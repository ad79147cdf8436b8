"""Sequences of frames and actions for a block-causal network, out of the windows that every sample has.

A window has pictures at `past_s` and `future_s` and rows of actions before and after now. Where the pictures follow each other at one
distance, and the history has one group of actions for each picture of the past, that is a sequence: frame f has the n rows that end
at it. So stores, readers, routing, replacement of unreadable samples and the order of draws are those of the four-task model.

Frames outside the segment are absent, and so are the actions that lead to them. Frame numbers begin at the first that there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.batch import Batch
from training.causal.layout import NOWHERE, FrameIndex
from training.data.windows import Window
from training.tasks import is_any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """B sequences of F frames with n rows of actions each.

    latents: [B, F, V * N, D], 0 where there are none. has_video: [B, F, V]. action, has_action: [B, F, n, E]. asked: [B, E] elements that
    the body has. embodiment, task: [B]. What a task trains is `training/causal/objective.py`'s.
    """

    index: FrameIndex
    latents: Tensor
    has_video: Tensor
    action: Tensor
    has_action: Tensor
    asked: Tensor
    embodiment: Tensor
    task: Tensor


def sequences_of(batch: Batch) -> Sequences:
    """The same samples as sequences, for batches of a window that `check_sequence` lets pass."""
    known = batch.known
    has_video = torch.cat([known.has_past, batch.has_future[:, None]], dim=1)
    is_present = has_video.any(dim=2)
    num_frames = is_present.shape[1]
    rows = torch.cat([known.history, batch.action], dim=1)
    has_rows = torch.cat([known.has_history, batch.has_action], dim=1)
    size = (len(rows), num_frames, rows.shape[1] // num_frames, rows.shape[2])
    # whoever is not shown the actions has none: masked, which is not the same as standing still
    is_silent = is_any(known.task, Task.VISUAL_FORECASTING)[:, None, None, None]
    has_action = has_rows.view(size) & is_present[..., None, None] & ~is_silent
    number = torch.arange(num_frames, device=rows.device)
    first = is_present.float().argmax(dim=1, keepdim=True)
    return Sequences(
        index=FrameIndex(
            sample=torch.where(is_present, 0, NOWHERE), frame=(number - first).clamp(min=0)
        ),
        latents=torch.cat([known.past, batch.future[:, None]], dim=1),
        has_video=has_video,
        action=torch.where(has_action, rows.view(size), 0.0),
        has_action=has_action,
        asked=batch.asked,
        embodiment=known.embodiment,
        task=known.task,
    )


def check_sequence(window: Window) -> None:
    """
    Raises:
        ConfigError: the pictures of a window are not one distance apart, or its rows of actions are not those that lead to them.
    """
    steps, rate_hz = window.picture_steps, window.rate_hz
    apart = {later - step for step, later in pairwise(steps)}
    each = min(apart)
    if len(apart) > 1 or each != window.grid_stride:
        stride_s = window.grid_stride / rate_hz
        times = ", ".join(f"{step / rate_hz:g}" for step in steps)
        problem = (
            f"frames at {times} s do not follow each other at the latents' interval, {stride_s:g} s"
        )
        repair = f"for 4 frames set data.past_s=[{-2 * stride_s:g},{-stride_s:g},0.0] and data.future_s={stride_s:g}"
        raise ConfigError(problem, remedy=repair, where="recipe key data.past_s")
    num_history = each * len(window.past_steps)
    if (window.num_actions, window.num_history) != (each, num_history):
        problem = f"{window.num_history} rows of history and {window.num_actions} of actions; a block-causal sequence has {each} that lead to each frame"
        repair = f"set data.num_actions={each} and data.num_history={num_history}"
        raise ConfigError(problem, remedy=repair, where="recipe key data.num_history")
