"""The four tasks: what is noised, what is clean, what is a placeholder, and which loss counts (`models.md` 1.5, "follow" of 1.13).

| task                | action chunk | future pictures | scored                                          |
|---------------------|--------------|-----------------|-------------------------------------------------|
| policy              | noisy        | placeholder     | action velocity, where valid                    |
| inverse_dynamics    | noisy        | clean           | the same, up to the time of the future picture  |
| forward_dynamics    | clean        | noisy           | picture velocity                                |
| visual_forecasting  | placeholder  | noisy           | picture velocity                                |

Names are those of `schemas/supervision.py`. A task is an index into TASKS in every tensor.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from schemas.supervision import Task

if TYPE_CHECKING:  # a recipe is read, and refused, without torch
    from torch import Tensor

TASKS = (Task.POLICY, Task.INVERSE_DYNAMICS, Task.FORWARD_DYNAMICS, Task.VISUAL_FORECASTING)
INDEX = {task: index for index, task in enumerate(TASKS)}
_NOISY_ACTION = (Task.POLICY, Task.INVERSE_DYNAMICS)
_NOISY_FUTURE = (Task.FORWARD_DYNAMICS, Task.VISUAL_FORECASTING)


def is_any(task: Tensor, *which: Task) -> Tensor:
    """[B] task indices to [B] bool. Compared with numbers of the program: a tensor of them would make a GPU wait."""
    return reduce(or_, [task == INDEX[each] for each in which])


def scores_action(task: Tensor) -> Tensor:
    """[B] whether the action velocity is scored; the action is noisy then."""
    return is_any(task, *_NOISY_ACTION)


def scores_future(task: Tensor) -> Tensor:
    """[B] whether the picture velocity is scored; the future pictures are noisy then."""
    return is_any(task, *_NOISY_FUTURE)
