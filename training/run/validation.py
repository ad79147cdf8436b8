"""The loss on held-out samples while a run is trained: the same samples, noise and flow times each time, on however many ranks.

It is the loss that is descended, by the very module that is trained, so it costs a forward pass and works under DDP and FSDP2. What errors are in metres,
and against which baselines, `eicorpus eval` says of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from schemas.errors import ConfigError
from schemas.supervision import Task
from training.batch import Batch
from training.data.loader import Loader
from training.data.rng_keys import Ints
from training.data.sampler import Drawn
from training.lara.lara import TERMS
from training.loss import Terms, weighted
from training.precision import computing
from training.recipe import TrainRecipe
from training.run.micro_batch import moved
from training.run.mishaps import Mishaps
from training.run.optimiser import EMA, trained
from training.run.parallel import Ranks, let_go, own_shard, raise_on_any_rank, sum_over
from training.tasks import INDEX, TASKS
from training.trainable import ScoredRows, Trainable

STEP = -1  # of the keys of noise and flow times: no step of training


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """What was found: numbers for the log, and the one that chooses the best checkpoint."""

    line: dict[str, object]
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Share:
    """The samples of one rank. `numbers`: [B] of each among those of all ranks. Those after the first `num_own` repeat the last
    sample and are not scored: under FSDP2 every rank takes part in each forward pass."""

    drawn: Drawn
    numbers: Ints
    num_own: int


class Validation:
    """Samples of a held-out split, of each task that is trained and that any may serve."""

    def __init__(
        self, loader: Loader, recipe: TrainRecipe, ranks: Ranks, mishaps: Mishaps | None = None
    ) -> None:
        """
        Args:
            loader: of the held-out split and of this rank.
            mishaps: where samples that cannot be read are counted and written down.

        Raises:
            ConfigError: no sample can serve any of the tasks.
        """
        self._loader, self._recipe, self._ranks = loader, recipe, ranks
        self._mishaps = mishaps
        shares = {task: self._share(task) for task in recipe.routing.trained}
        self.shares = {task: share for task, share in shares.items() if len(share.numbers)}
        if not self.shares:
            message = f"no sample of split {loader.split} can be evaluated"
            repair = "build the manifest with --val SHARE, or train with --set run.eval_every=null"
            raise ConfigError(
                message, remedy=repair, where=f"manifest {loader.manifest.facts.name}"
            )

    def _share(self, task: Task) -> Share:
        """As many samples for every rank, and none where no sample serves the task."""
        every = self._loader.draws.every(task, self._recipe.run.eval_samples)
        num = len(every.now)
        size = -(-num // self._ranks.world_size)
        first = self._ranks.rank * size
        numbers = np.minimum(np.arange(first, first + size), num - 1)
        num_own = min(max(num - first, 0), size)
        return Share(drawn=every.part(numbers), numbers=numbers, num_own=num_own)

    def run(
        self, learner: Trainable, model: nn.Module, averages: EMA | None, device: torch.device
    ) -> Validated:
        """Every rank calls this. Weights and their averages are as they were afterwards."""
        losses, loss = self._losses(learner, model, device)
        line: dict[str, object] = {"val_loss": loss, "val_loss_by_task": losses}
        if averages is not None:
            with _averaged(learner, averages):
                losses, loss = self._losses(learner, model, device)
            line |= {"val_averages_loss": loss, "val_averages_loss_by_task": losses}
        return Validated(line=line, loss=loss)

    @torch.no_grad()
    def _losses(
        self, learner: Trainable, model: nn.Module, device: torch.device
    ) -> tuple[dict[str, float], float]:
        """By task, and the one that is descended, LARA's part included."""
        sums = torch.zeros(len(TASKS), dtype=torch.float64, device=device)
        counts = torch.zeros_like(sums)
        lara = torch.zeros(2, len(TERMS), dtype=torch.float64, device=device)
        was_training = model.training
        model.eval()
        try:
            for task, share in self.shares.items():
                for rows, num_own, terms in self._terms(learner, model, task, share, device):
                    own = rows.sample < num_own
                    sums.index_add_(0, rows.task[own], terms.sample_sums[own].double())
                    counts.index_add_(0, rows.task[own], terms.sample_counts[own].double())
                    if terms.lara is not None:
                        lara[0] += terms.lara.sums[:num_own].double().sum(0)
                        lara[1] += terms.lara.counts[:num_own].double().sum(0)
        finally:
            let_go(model)
            model.train(was_training)
        sums, counts = sum_over(sums, self._ranks), sum_over(counts, self._ranks)
        by_task = {
            task.value: float(sums[INDEX[task]] / counts[INDEX[task]])
            for task in TASKS
            if counts[INDEX[task]] > 0
        }
        loss = weighted(sums, counts, self._recipe.run.loss_weights)
        if learner.lara is not None:
            loss = loss + learner.lara.loss(*sum_over(lara, self._ranks))
        return by_task, float(loss)

    def _terms(
        self,
        learner: Trainable,
        model: nn.Module,
        task: Task,
        share: Share,
        device: torch.device,
    ) -> Iterator[tuple[ScoredRows, int, Terms]]:
        """Of each batch the rows of its terms, and how many of its first samples are this rank's own."""
        run, seed = self._recipe.run, self._recipe.seed
        first, left = self._ranks.rank * len(share.numbers), share.num_own
        for batch in self._batches(task, share):
            here = moved(batch, device)
            drawn = learner.drawn(here, seed=seed, step=STEP, first=first, num_draws=1)
            with computing(run.precision, device):
                terms = model(here, *drawn)
            rows = learner.rows_of(here)
            own = max(left, 0)
            first, left = first + len(here.known.task), left - len(here.known.task)
            yield rows, own, terms

    def _batches(self, task: Task, share: Share) -> Iterator[Batch]:
        """As many on every rank. Where one rank cannot read a batch, or one sample too many is replaced, all raise.

        Raises:
            SourceError, ConfigError: more samples cannot be read than `run.max_bad_samples`.
        """
        run = self._recipe.run
        size = max(1, run.batch_size // self._ranks.world_size // run.num_parts)
        batches = self._loader.replaced_at(
            share.drawn,
            STEP,
            INDEX[task] * run.eval_samples + share.numbers,
            batch_size=size,
            num_workers=run.num_workers,
        )
        while True:
            with raise_on_any_rank(self._ranks):
                batch = next(batches, None)
            if batch is None:
                return
            if self._mishaps is not None:
                self._mishaps.replaced(batch.replaced)
            yield batch


@contextmanager
def _averaged(learner: Trainable, averages: EMA) -> Iterator[None]:
    """With the averaged weights in the learner, each rank its own piece of them."""
    pairs = [
        (own_shard(p.detach()), own_shard(averages.values[n])) for n, p in trained(learner).items()
    ]
    kept = [weight.clone() for weight, _ in pairs]
    try:
        for weight, average in pairs:
            weight.copy_(average)
        yield
    finally:
        for (weight, _), was in zip(pairs, kept, strict=True):
            weight.copy_(was)
