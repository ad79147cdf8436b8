"""The loss of a batch whose samples have different tasks: squared velocity error, of each task what it scores, nothing else.

A term is a sum over scored elements divided by their number, so a batch without any sample of a task gives 0 for it, not NaN.
The numbers are kept: over several ranks the sums and the counts are added up before they are divided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from schemas.supervision import Task
from training.batch import Batch
from training.flow import noised, velocity
from training.lara.lara import LaraTerms
from training.model.network import Network, Tap
from training.model.precondition import error_weight
from training.model.text import Text
from training.tasks import INDEX, TASKS, is_any, scores_action, scores_future

_PICTURES = (Task.FORWARD_DYNAMICS, Task.VISUAL_FORECASTING)  # the tasks of L_obs


LossOver = Literal["elements", "samples", "parts"]
_NO_PARTS = torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Terms:
    """[4] sums of squared errors and [4] numbers of what was scored, by task; and [B] both of each sample, for the log.

    Of actions that are elements, or samples, as `loss_over` says; of pictures elements.
    """

    sums: Tensor
    counts: Tensor
    sample_sums: Tensor
    sample_counts: Tensor
    lara: LaraTerms | None = None  # of LARA, where the recipe has it
    image_text: Tensor | None = None  # [] sum over tokens of answers, where the batch has pairs


class Inputs(NamedTuple):
    """What the blocks are given: both streams and their condition; and what of it the objective needs again.

    noisy: actions and future pictures as the network is shown them. target, noise: of actions.
    """

    streams: list[Tensor]
    condition: Tensor
    noisy: tuple[Tensor, Tensor]
    target: Tensor
    noise: Tensor


def inputs_of(
    network: Network, batch: Batch, t: Tensor, action_noise: Tensor, future_noise: Tensor
) -> Inputs:
    """Noise what each task noises, up to the first block. Arguments as of `loss_of`."""
    task = batch.known.task
    says_action, says_future = scores_action(task), scores_future(task)
    shown = shown_actions(batch)
    target = torch.where(batch.has_action, batch.action, 0.0)
    noise = torch.where(shown, action_noise, 0.0)
    acting = torch.where(says_action[:, None, None], noised(target, noise, t), target)
    seeing = torch.where(
        says_future[:, None, None], noised(batch.future, future_noise, t), batch.future
    )
    streams, condition = network.tokens(batch.known, acting, shown, seeing, t, batch.has_future)
    return Inputs(streams, condition, (acting, seeing), target, noise)


def terms_of(
    network: Network,
    batch: Batch,
    inputs: Inputs,
    streams: list[Tensor],
    t: Tensor,
    future_noise: Tensor,
    loss_over: LossOver,
    part_of: Tensor,
) -> Terms:
    """Score what each task scores, from the last block on. Arguments as of `loss_of`; streams: after the last block."""
    task = batch.known.task
    says_future = scores_future(task)
    target, noise = inputs.target, inputs.noise
    said_action, said_future = network.velocities(
        streams, inputs.condition, batch.known, *inputs.noisy, t
    )
    action_error = (said_action - velocity(target, noise)).float().square()
    future_error = (said_future - velocity(batch.future, future_noise)).float().square()
    if network.settings.precondition:
        action_error = action_error * error_weight(t, network.action_std)
        future_error = future_error * error_weight(t, network.change_std)
    is_future = (says_future[:, None] & batch.has_future).repeat_interleave(
        network.settings.num_patches, dim=1
    )
    weight = action_weights(scored_actions(batch), loss_over, part_of)
    counts = _num_actions(scored_actions(batch), loss_over)
    return _terms(task, action_error, weight, counts, future_error, is_future)


class Ends(NamedTuple):
    """What is outside of the blocks: `inputs_of` and `terms_of`, or the same compiled."""

    inputs: Callable[..., Inputs] = inputs_of
    terms: Callable[..., Terms] = terms_of


def loss_of(
    network: Network,
    batch: Batch,
    text: Text,
    t: Tensor,
    action_noise: Tensor,
    future_noise: Tensor,
    loss_over: LossOver = "elements",
    part_of: Tensor = _NO_PARTS,
    tap: Tap | None = None,
    ends: Ends = Ends(),  # noqa: B008
) -> Terms:
    """Noise what each task noises, ask the network once, and score what each task scores.

    Args:
        text: as `Network` takes it: of fewer samples where they have several draws here.
        t: [B] flow times. action_noise, future_noise: like `batch.action` and `batch.future`.
        loss_over: see `action_weights`. part_of: [E] the part of each action element, for "parts". tap: is filled.
    """
    inputs = ends.inputs(network, batch, t, action_noise, future_noise)
    streams = network.through_blocks(inputs.streams, inputs.condition, text, tap)
    return ends.terms(network, batch, inputs, streams, t, future_noise, loss_over, part_of)


def action_weights(scored: Tensor, loss_over: LossOver, part_of: Tensor) -> Tensor:
    """[B, K, E] how much the squared error of each element counts in the sum of its task.

    "elements": 1, so the loss is a mean over elements, and a body with 138 of them counts as much as twenty with 7. "samples": each sample is the mean over
    its scored elements. "parts": each sample is the mean over its parts (position, rotation, opening, keypoints, joints, of each side), each
    the mean over its scored elements.

    Args:
        scored: [B, K, E] bool. part_of: [E] numbers of parts.
    """
    here = scored.float()
    if loss_over == "elements":
        return here
    if loss_over == "samples":
        return here / here.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    num_parts = torch.zeros(
        len(here), scored.shape[2], device=here.device
    )  # no more parts than elements
    num_parts = num_parts.index_add(1, part_of, here.sum(dim=1))
    num_there = (num_parts > 0).sum(dim=1).clamp(min=1)
    return here / num_parts.clamp(min=1)[:, None, part_of] / num_there[:, None, None]


def _num_actions(scored: Tensor, loss_over: LossOver) -> Tensor:
    """[B] how much of the divisor of its task each sample is: its scored elements, or 1 where it has any."""
    elements = scored.flatten(1).sum(1)
    return elements if loss_over == "elements" else (elements > 0).long()


def shown_actions(batch: Batch) -> Tensor:
    """[B, K, E] which elements the network is shown. A task that predicts actions gets noise in all elements of the embodiment, as when it is
    asked: where noise ends would tell how long its segment is. Who is given actions is given those that were recorded.
    """
    says_action = scores_action(batch.known.task)[:, None, None]
    return torch.where(says_action, batch.asked[:, None], batch.has_action)


def scored_actions(batch: Batch) -> Tensor:
    """[B, K, E] which elements are scored: valid ones; for inverse dynamics only those reached by the time of the future picture."""
    task = batch.known.task
    in_reach = batch.action_t_s <= batch.future_t_s + 1e-6
    is_inverse = is_any(task, Task.INVERSE_DYNAMICS)
    is_scored = scores_action(task)[:, None] & (in_reach | ~is_inverse[:, None])
    return batch.has_action & is_scored[..., None]


def num_scored(batch: Batch, loss_over: LossOver = "elements") -> Tensor:
    """[4] how many elements, or samples of actions, each task scores in this batch: known from the masks, before the network is asked.

    The same numbers as `Terms.counts` of one draw; several parts of a batch add up to those of the whole.
    """
    task = batch.known.task
    num_tokens = batch.future.shape[1] // batch.has_future.shape[1]
    actions = _num_actions(scored_actions(batch), loss_over)
    futures = batch.has_future.sum(1) * num_tokens * batch.future.shape[2]
    each = actions + torch.where(scores_future(task), futures, 0)
    rows = torch.stack([is_any(task, one) for one in TASKS])
    return torch.where(rows, each, 0).sum(1)


def _terms(
    task: Tensor,
    action_error: Tensor,
    weight: Tensor,
    num_actions: Tensor,
    future_error: Tensor,
    is_future: Tensor,
) -> Terms:
    sums = torch.where(weight > 0, action_error * weight, 0.0).flatten(1).sum(1)
    sums = sums + torch.where(is_future[..., None], future_error, 0.0).flatten(1).sum(1)
    counts = num_actions + is_future.sum(1) * future_error.shape[-1]
    rows = torch.stack([is_any(task, each) for each in TASKS])
    return Terms(
        sums=torch.where(rows, sums, 0.0).sum(1),
        counts=torch.where(rows, counts, 0).sum(1),
        sample_sums=sums.detach(),
        sample_counts=counts,
    )


def weighted(sums: Tensor, counts: Tensor, weights: dict[Task, float]) -> Tensor:
    """The one number that is descended: L_policy + L_inverse + L_obs, each a mean over what it scores (`models.md` 1.5).

    L_obs is ONE mean over forward dynamics and visual forecasting: how many samples each has is the routing's choice, and a picture of the
    rarer one does not count for more.

    Args:
        sums: [4] of squared errors. counts: [4] of scored elements of the whole batch of which `sums` may be a part; then the results of the
            parts add up to that of the whole. weights: of each task's errors; the two of L_obs may differ.
    """
    factor = torch.zeros_like(sums)
    for task, weight in weights.items():
        factor[INDEX[task]] = weight
    whole = counts.clone()
    pictures = sum(counts[INDEX[task]] for task in _PICTURES)
    for task in _PICTURES:  # one by one: a list of places would make a GPU wait
        whole[INDEX[task]] = pictures
    return (factor * sums / whole.clamp(min=1)).sum()
