"""What one rank makes of global batches: samples replaced, pairs beside them, latents fetched ahead. Picklable: another process makes the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from training.batch import Batch
from training.data.image_text import ImageTextSource
from training.data.prefetch import PREFETCH, prefetch
from training.data.read_ahead import ReadAhead
from training.data.replaced import Replacer
from training.recipe import LatentCacheSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepSource:
    """`cache`: of latents, where they are read by ranges. `num_workers`: threads that make batches ahead."""

    replacer: Replacer
    image_text: ImageTextSource | None
    cache: LatentCacheSettings | None
    num_workers: int

    def batch(self, step: int) -> Batch:
        """This rank's share of global batch `step`.

        Raises:
            SourceError: more samples cannot be read than `run.max_bad_samples`; the message has the address of one.
        """
        batch = self.replacer.batch(step)
        return batch if self.image_text is None else self.image_text.beside(batch, step)

    def batches(
        self, first_step: int, *, pin_memory: bool = False, ahead: int = PREFETCH
    ) -> Iterator[Batch]:
        """From `first_step` on, without end.

        Args:
            ahead: as of `prefetch`.

        Raises:
            SourceError: when the batch that has the broken sample is asked for.
        """
        fetched = self.read_ahead()

        def batch_of(step: int) -> Batch:
            if fetched is not None:
                fetched.reached(step)
            return self.batch(step)

        steps = count(first_step)
        try:
            yield from prefetch(
                batch_of, steps, self.num_workers, pin_memory=pin_memory, ahead=ahead
            )
        finally:
            if fetched is not None:
                fetched.close()

    def read_ahead(self) -> ReadAhead | None:
        """Of latents; None where nothing is fetched."""
        if self.cache is None or not self.cache.ahead_steps:
            return None
        return ReadAhead(
            self.replacer.source,
            num_steps=self.cache.ahead_steps,
            max_requests=self.cache.max_requests,
        )
