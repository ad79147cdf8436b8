"""A batch on another device, parts of a batch, one after the other, and how many samples a part may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch

from schemas.errors import ConfigError
from training.batch import Batch, Origin, of_samples
from training.data.image_text import pairs_of
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
        yield samples_of(batch, which)


def samples_of(batch: Batch, which: slice) -> Batch:
    """Some samples of it, and the same share of the pairs beside them."""
    cut = of_samples(batch, lambda x: x[which])
    origin = Origin(row=batch.origin.row[which], timestep=batch.origin.timestep[which])
    pairs = batch.image_text
    if pairs is not None:
        num, size = len(pairs["token_ids"]), len(batch.known.task)
        pairs = pairs_of(pairs, slice(num * which.start // size, num * which.stop // size))
    text = batch.text_inputs.of_samples(which)
    return dataclasses.replace(cut, origin=origin, text_inputs=text, image_text=pairs)


def parts_by_trial(
    share: int,
    peak_of: Callable[[int], int],
    num_bytes: int,
    *,
    without: int = 0,
    held: tuple[int, int] = (0, 0),
) -> int:
    """The fewest parts of equal size in which a rank's `share` of a batch fits, by measuring.

    One sample is tried, then twice as many and so on, as long as a line through the last two peaks says that it fits: a trial that runs out of memory on one
    rank would leave the others waiting for it.

    Args:
        peak_of: bytes of so many samples at once. The same on every rank, so that all of them try and choose the same.
        without: bytes of no sample, the first of these peaks. Too few are safe: two samples are tried later.
        held: bytes of gradients of earlier parts that a step in several parts has beside such a peak, which is of one: at least, and at most.

    Raises:
        ConfigError: not even one sample fits.
    """
    tried = [(0, without), (1, peak_of(1))]

    def expected(size: int) -> float:
        (few, least), (more, most) = tried[-2:]
        return most + (most - least) / (more - few) * (size - more)

    def fits(size: int, held: int) -> bool:
        return dict(tried).get(size, expected(size)) + held * (size < share) <= num_bytes

    while (
        tried[1][1] <= num_bytes
        and (size := min(2 * tried[-1][0], share)) > tried[-1][0]
        and expected(size) <= num_bytes
    ):
        tried.append((size, peak_of(size)))
    least, most = held
    sizes = [n for n in range(1, share + 1) if share % n == 0 and fits(n, most)]
    if not sizes and not fits(1, least):
        needed = tried[1][1] + least * (share > 1)
        problem = f"a rank needs {needed / 1e9:.1f} GB with one sample at a time (measured); it may use {num_bytes / 1e9:.1f} GB"
        repair = "use more ranks with --set run.parallel=fsdp2, --set run.checkpoint_activations=true, or a smaller network"
        raise ConfigError(problem, remedy=repair, where="recipe key run")
    return share // max(sizes, default=1)
