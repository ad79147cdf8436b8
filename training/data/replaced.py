"""Batches in which a bounded number of samples that cannot be read are replaced by others of the same task.

Which others is a function of (seed, step, place, attempt). A place that the run has replaced before is replaced again, whether or not its sample can be
read by now: so a run that goes on repeats its steps, and what it was trained on is what `RUN/bad.jsonl` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from schemas.errors import SourceError
from training.batch import Batch
from training.data.broken import BadSample
from training.data.prefetch import BatchSource
from training.data.rng_keys import Ints
from training.data.sampler import Drawn
from training.tasks import TASKS

Attempts = Mapping[tuple[int, int], int]  # by step and place in its global batch
_Address = tuple[int, int, int]  # step, place, attempt
_TRIES = 3  # of a batch whose samples can be read one by one


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replacer:
    """`max_bad`: samples of a batch of this rank; how many a run may have in all is counted over all ranks, where batches are consumed."""

    source: BatchSource
    max_bad: int = 0
    was_replaced: Attempts = field(default_factory=dict)

    def batch(self, step: int) -> Batch:
        """What is trained on in this step.

        Raises:
            SourceError: more samples cannot be read.
        """
        source = self.source
        drawn = source.draws.of_step(step, source.rank, source.world_size)
        first = source.rank * len(drawn.now)
        return self.load(drawn, step, np.arange(first, first + len(drawn.now)))

    def load(self, drawn: Drawn, step: int, places: Ints) -> Batch:
        """
        Args:
            places: [B] of the samples in global batch `step`.

        Raises:
            SourceError: more samples cannot be read.
        """
        source, attempts = self.source, dict[int, int]()
        for b in range(len(drawn.now)):
            for _ in range(self.was_replaced.get((step, int(places[b])), 0)):
                drawn = self._redrawn(drawn, b, step, places, attempts)
        bad: dict[_Address, BadSample] = {}  # a sample that fills up a rank's batch is there twice
        num_tries = 0
        while True:
            try:
                return replace(source.load(drawn), replaced=tuple(bad.values()))
            except SourceError as error:
                num_tries += 1
                if not self.max_bad:
                    raise with_repair(error, self.max_bad) from error
                unreadable = self._unreadable(drawn)
                at = {b: (step, int(places[b]), attempts.get(b, 0)) for b in unreadable}
                is_over = len({*bad, *at.values()}) > self.max_bad
                if is_over or (not unreadable and num_tries >= _TRIES):
                    raise with_repair(error, self.max_bad) from error
            for b, why in unreadable.items():
                bad[at[b]] = self._bad_sample(drawn, b, at[b], why)
                drawn = self._redrawn(drawn, b, step, places, attempts)

    def _redrawn(
        self, drawn: Drawn, b: int, step: int, places: Ints, attempts: dict[int, int]
    ) -> Drawn:
        attempts[b] = attempts.get(b, 0) + 1
        place = int(places[b])
        return self.source.draws.redrawn(drawn, b, step=step, place=place, attempt=attempts[b])

    def _unreadable(self, drawn: Drawn) -> dict[int, SourceError]:
        """Which samples cannot be read, and why: each is read by itself."""
        errors = {}
        for b in range(len(drawn.now)):
            try:
                self.source.load(drawn.part(slice(b, b + 1)))
            except SourceError as error:
                errors[b] = error
        return errors

    def _bad_sample(self, drawn: Drawn, b: int, address: _Address, why: SourceError) -> BadSample:
        step, place, attempt = address
        anchors = self.source.draws.anchors
        number = anchors.segments["row"][drawn.segment[b : b + 1]]
        (row,) = anchors.rows(number)
        return BadSample(
            step=step,
            place=place,
            attempt=attempt,
            task=TASKS[int(drawn.task[b])].value,
            uid=row.uid,
            row=int(number[0]),
            timestep=int(drawn.now[b]),
            error=str(why),
        )


def with_repair(error: SourceError, max_bad: int) -> SourceError:
    """The error, and how a run goes on without the sample."""
    repair = f"repair the file, or add --set run.max_bad_samples=N to replace up to N unreadable samples (now {max_bad}) and list them in RUN/bad.jsonl"
    return SourceError(error.code, f"{error.message}; {repair}", where=error.where)
