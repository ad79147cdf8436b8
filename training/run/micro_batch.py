"""A batch on another device, and parts of a batch, one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from training.batch import Batch, Origin, of_samples
from training.data.prefetch import tensors_mapped


def moved(batch: Batch, device: torch.device) -> Batch:
    """The same on `device`, with pictures in float32, whatever they were stored as. It does not wait where the batch lies in pinned memory."""
    copied: Batch = tensors_mapped(batch, lambda x: x.to(device, non_blocking=True))
    known = dataclasses.replace(copied.known, past=copied.known.past.float())
    later = None if copied.later is None else copied.later.float()
    return dataclasses.replace(copied, known=known, future=copied.future.float(), later=later)


def parts(batch: Batch, num: int) -> Iterator[Batch]:
    """`num` parts of equal size, in order.

    Raises:
        ValueError: it does not divide.
    """
    size = len(batch.known.task)
    if size % num:
        raise ValueError(f"{size} samples are not divisible into {num} parts")
    share = size // num
    for first in range(0, size, share):
        which = slice(first, first + share)
        cut = of_samples(batch, lambda x, which=which: x[which])  # type: ignore[misc]
        origin = Origin(row=batch.origin.row[which], timestep=batch.origin.timestep[which])
        yield dataclasses.replace(cut, origin=origin)
