"""A batch on another device, and parts of a batch, one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from training.batch import Batch, Origin
from training.data.source import tensors_mapped
from training.model.network import Known


def moved(batch: Batch, device: torch.device) -> Batch:
    """The same on `device`; it does not wait where the batch lies in pinned memory."""
    found: Batch = tensors_mapped(batch, lambda x: x.to(device, non_blocking=True))
    return found


def parts(batch: Batch, num: int) -> Iterator[Batch]:
    """`num` parts of equal size, in order.

    Raises:
        ValueError: it does not divide.
    """
    size = len(batch.known.task)
    if size % num:
        raise ValueError(f"{size} samples do not divide into {num} parts")
    share = size // num
    for first in range(0, size, share):
        which = slice(first, first + share)
        cut = _of_samples(batch, lambda x, which=which: x[which])  # type: ignore[misc]
        origin = Origin(row=batch.origin.row[which], timestep=batch.origin.timestep[which])
        yield dataclasses.replace(cut, origin=origin)


def _of_samples(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """`change` of every tensor whose first axis is the samples."""
    known = batch.known
    changed = {
        field.name: change(value)
        for field in dataclasses.fields(Known)
        if (value := getattr(known, field.name)) is not None
    }
    return dataclasses.replace(
        batch,
        known=dataclasses.replace(known, **changed),
        action=change(batch.action),
        has_action=change(batch.has_action),
        asked=change(batch.asked),
        future=change(batch.future),
        has_future=change(batch.has_future),
        text_inputs={name: change(value) for name, value in batch.text_inputs.items()},
    )
