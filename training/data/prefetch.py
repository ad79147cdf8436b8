"""Makes batches by their number: here, or ahead of time in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schemas.manifest import Latent, ManifestRow
from training.batch import Batch
from training.data.sample_index import Records
from training.data.sampler import Drawn, Draws
from training.data.samples import Assembler

PREFETCH = 2  # batches beyond those that are being made


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchSource:
    """One rank's part of every global batch. Safe to call from several threads."""

    draws: Draws
    assembler: Assembler
    rank: int
    world_size: int

    def load(self, drawn: Drawn) -> Batch:
        return self.assembler.batch(*self._of(drawn), drawn.now, drawn.task)

    def actions(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """[B, K, 172] normalised, and whether they are there. No picture and no text is read."""
        segments, _ = self._of(drawn)
        _, values, has = self.assembler.actions(segments, drawn.now)
        chunk = slice(self.assembler.window.num_history, None)
        return torch.from_numpy(values[:, chunk]), torch.from_numpy(has[:, chunk])

    def pictures(self, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """[B, P+1, V * N, D] latents, the future last, and [B, P+1, V] whether they are there. No action and no text is read."""
        return self.assembler.pictures(*self._of(drawn), drawn.now)

    def reads(self, step: int) -> list[tuple[Latent, ManifestRow, list[int]]]:
        """Files and timesteps that this rank's part of a step reads pictures of."""
        drawn = self.draws.of_step(step, self.rank, self.world_size)
        return self.assembler.reads(*self._of(drawn), drawn.now)

    def uids(self, drawn: Drawn) -> list[str]:
        """[B] of the episodes."""
        return [row.uid for row in self._of(drawn)[1]]

    def _of(self, drawn: Drawn) -> tuple[Records, list[ManifestRow]]:
        anchors = self.draws.anchors
        segments = np.asarray(anchors.segments[drawn.segment])
        return segments, anchors.rows(segments["row"])


def prefetch(
    make: Callable[[int], Batch],
    numbers: Iterable[int],
    num_workers: int,
    *,
    pin_memory: bool = False,
    ahead: int = PREFETCH,
) -> Generator[Batch]:
    """Batches in the order of their numbers, whichever is done first, `ahead` more than there are workers. With 0 workers here and now.

    Raises:
        SourceError: when the batch with the broken sample is due; those before it were given out.
    """

    def make_pinned(number: int) -> Batch:
        batch = make(number)
        return tensors_mapped(batch, Tensor.pin_memory) if pin_memory else batch

    if not num_workers:
        yield from map(make_pinned, numbers)
        return
    pool, left = ThreadPoolExecutor(num_workers, thread_name_prefix="loader"), iter(numbers)
    try:
        waiting = deque(pool.submit(make_pinned, n) for n in islice(left, num_workers + ahead))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(make_pinned, n) for n in islice(left, 1))
            yield batch
    finally:  # also when nobody asks any more
        pool.shutdown(wait=True, cancel_futures=True)


def tensors_mapped(value: Any, change: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """The same value with every tensor in it changed, or what stands for one: of a dataclass, a mapping, or a tensor."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: tensors_mapped(each, change, kind) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        values = {f.name: getattr(value, f.name) for f in fields(value)}
        return replace(value, **{k: tensors_mapped(v, change, kind) for k, v in values.items()})
    return value
