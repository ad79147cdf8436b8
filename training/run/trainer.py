"""The loop: take a batch, change the weights by it, say how it goes, save. What it is made of is built in `opening.py` and `session.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from schemas.errors import InvariantError, PipelineError
from training.batch import Batch, Origin
from training.data.rng_keys import Purpose, key_of
from training.lara.lara import LaraTerms, scored_of
from training.lara.log import LaraLog, joined_terms
from training.loss import weighted
from training.precision import computing
from training.recipe import TrainRecipe
from training.run.best import Best
from training.run.feed import Feed, copying_for
from training.run.metrics import Losses, Throughput
from training.run.micro_batch import parts
from training.run.mishaps import Diverged, Mishaps, culprits, diverged
from training.run.optimiser import EMA, clip, gradient_norm, lr_at, step_where
from training.run.parallel import (
    Ranks,
    all_gather_rows,
    any_rank,
    full_tensor,
    no_sync,
    raise_on_any_rank,
    sum_over,
)
from training.run.restore import fill
from training.run.validation import Validated
from training.trainable import ScoredRows, Trainable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResult:
    """One step, most of it on the device: who reads a number waits until it is computed.

    sums, counts: [4] of the global batch. origin: of this rank's samples; rows, sample_sums, sample_counts: of this rank, a row for each sample and term.
    norm: [] of the gradient. is_finite: [] whether the weights were changed.
    """

    step: int
    sums: Tensor
    counts: Tensor
    origin: Origin
    rows: ScoredRows
    sample_sums: Tensor
    sample_counts: Tensor
    norm: Tensor
    is_finite: Tensor
    num_text: int  # tokens of this rank, of distinct texts
    lr: float
    lara: LaraTerms | None = None  # of this rank's samples
    lara_mean: Tensor | None = None  # [] LARA's part of the loss
    image_text: Tensor | None = None  # [2] sum and number of tokens of answers of the global batch

    @property
    def gradient_norm(self) -> float:
        return self.norm.item()

    @property
    def lara_loss(self) -> float:
        return 0.0 if self.lara_mean is None else self.lara_mean.item()

    def loss(self, recipe: TrainRecipe) -> float:
        """What was descended."""
        tasks = weighted(self.sums, self.counts, recipe.run.loss_weights).item()
        answers = 0.0
        if self.image_text is not None and recipe.image_text is not None:
            total, num = self.image_text.tolist()
            answers = recipe.image_text.weight * total / num
        return tasks + self.lara_loss + answers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTerms:
    """[R] sums and counts of rows of samples of all parts of this rank's batch, and LARA's."""

    rows: ScoredRows
    sample_sums: Tensor
    sample_counts: Tensor
    lara: LaraTerms | None
    answers: Tensor | None  # [] sum over tokens, of this rank


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainer:
    """Everything a step needs. `model` is what is called: the learner, or what DDP or FSDP2 made of it.

    `uid_of` names the episode of a row of the manifest.
    """

    learner: Trainable
    model: nn.Module
    optimiser: AdamW
    averages: EMA | None
    recipe: TrainRecipe
    ranks: Ranks
    device: torch.device
    uid_of: Callable[[int], str]

    def step(self, batch: Batch, step: int) -> StepResult:
        """`launch`, and wait for what comes of it.

        Raises:
            Diverged: a loss or gradient is not finite; the weights are as they were.
        """
        result = self.launch(batch, step)
        self.check(result)
        return result

    def launch(self, batch: Batch, step: int) -> StepResult:
        """Change the weights by this rank's share of global batch `step`, without waiting for the device. LARA's dead codes alone wait.

        The result is that of one process with the whole batch, but for the order of sums: every term is divided by the counts of
        all ranks and parts, which the masks tell beforehand. Where a loss or gradient is not finite, weights, moments and averages stay as they were: the
        optimiser and the averages are told so on the device, and `check` tells the host.
        """
        run, settings = self.recipe.run, self.recipe.optimiser
        scored = self.learner.num_scored(batch)
        counts = sum_over(scored * run.num_draws, self.ranks)
        lara_counts, num_answers = self._lara_counts(batch), self._num_answers(batch)
        self.optimiser.zero_grad(set_to_none=True)
        torch.manual_seed(
            int(key_of(self.recipe.seed, step, Purpose.DROPOUT, self.ranks.rank)) >> 1
        )
        terms = self._accumulate(batch, step, counts, lara_counts, num_answers)
        rows, sample_sums = terms.rows, terms.sample_sums
        norm = gradient_norm(self.learner)
        own = torch.zeros(len(counts), device=self.device, dtype=torch.float64)
        sums = sum_over(own.index_add(0, rows.task, sample_sums.double()), self.ranks)
        lara, lara_mean = self.learner.lara, None
        if lara is not None and terms.lara is not None and lara_counts is not None:
            lara_mean = lara.loss(sum_over(terms.lara.sums.sum(0), self.ranks), lara_counts)
        is_finite = norm.isfinite() & sums.isfinite().all()
        answers = None
        if terms.answers is not None and num_answers is not None:
            total = sum_over(terms.answers.double(), self.ranks)
            answers = torch.stack([total, num_answers.double()])
            is_finite = is_finite & total.isfinite()
        clip(self.learner, norm, settings.clip_norm)
        lr = lr_at(step, settings, run.num_steps)
        step_where(self.optimiser, is_finite, lr)
        if terms.lara is not None:
            self._move_dead_codes(terms.lara, step, is_finite)
        if self.averages is not None:
            self.averages.update(self.learner, is_finite)
        return StepResult(
            step=step,
            sums=sums,
            counts=counts,
            origin=batch.origin,
            rows=rows,
            sample_sums=sample_sums,
            sample_counts=terms.sample_counts,
            norm=norm,
            is_finite=is_finite,
            num_text=batch.text_inputs.layout.num_rows,
            lr=lr,
            lara=terms.lara,
            lara_mean=lara_mean,
            image_text=answers,
        )

    def rehearse(self, batch: Batch) -> None:
        """The forward and backward pass of `batch` in one part, of which nothing stays: it takes the memory that a part of a step takes. Every rank must call this."""
        run = self.recipe.run.model_copy(update={"accumulate": 1})
        alone = replace(self, recipe=self.recipe.model_copy(update={"run": run}))
        counts = sum_over(self.learner.num_scored(batch) * run.num_draws, self.ranks)
        self.optimiser.zero_grad(set_to_none=True)
        alone._accumulate(batch, 0, counts, self._lara_counts(batch), self._num_answers(batch))
        self.optimiser.zero_grad(set_to_none=True)

    def check(self, result: StepResult) -> None:
        """Wait for a step. Every rank must call this for the same steps.

        Raises:
            Diverged: a loss or gradient of it is not finite; it changed nothing.
        """
        if result.is_finite.item():
            return
        blamed = result.sample_sums
        if result.lara is not None:
            blamed = blamed + result.lara.sums.sum(1)
        origin = result.origin.at(result.rows.sample)
        if result.image_text is not None and not result.image_text.isfinite().all().item():
            raise Diverged(
                "the loss of the image-text pairs is not finite",
                remedy="use a smaller text.lr or image_text.weight",
                where=f"step {result.step}",
            )
        named = culprits(origin, result.rows.task, blamed, self.ranks)
        raise diverged(result.step, [(self.uid_of(row), t, i) for row, t, i in named])

    def _lara_counts(self, batch: Batch) -> Tensor | None:
        """[4] of the global batch; None without LARA."""
        lara, num_draws = self.learner.lara, self.recipe.run.num_draws
        if lara is None:
            return None
        return sum_over(scored_of(batch, lara.settings, num_draws).sum(0), self.ranks)

    def _num_answers(self, batch: Batch) -> Tensor | None:
        """[] tokens of answers of the global batch; None without pairs, which every rank has as many of."""
        if batch.image_text is None:
            return None
        return sum_over(batch.image_text["is_target"].sum(), self.ranks)

    @torch.no_grad()
    def _move_dead_codes(self, terms: LaraTerms, step: int, is_finite: Tensor) -> None:
        """By the latent actions of all ranks, so that all have the same codes."""
        lara = self.learner.lara
        if lara is None or lara.is_frozen or not is_finite.item():
            return
        z, code, is_scored = (
            all_gather_rows(x, self.ranks) for x in (terms.z, terms.code, terms.is_scored)
        )
        z, code = z[is_scored].flatten(0, 1), code[is_scored].flatten()
        book = lara.lam.book
        codes = full_tensor(book.codes)
        fill(book.codes, book.moved_codes(codes, z, code, seed=self.recipe.seed, step=step))

    def _accumulate(
        self,
        batch: Batch,
        step: int,
        counts: Tensor,
        lara_counts: Tensor | None,
        num_answers: Tensor | None,
    ) -> PartTerms:
        """Gradients of all parts of the batch; rows of its samples, and the sums and counts of each."""
        run = self.recipe.run
        size = len(batch.known.task) // run.num_parts
        first = self.ranks.rank * len(batch.known.task)
        by_part = []
        lara: list[LaraTerms] = []
        answers: list[Tensor] = []
        for index, part in enumerate(parts(batch, run.num_parts)):
            drawn = self.learner.drawn(
                part,
                seed=self.recipe.seed,
                step=step,
                first=first + index * size,
                num_draws=run.num_draws,
            )
            with no_sync(self.model, is_last=index == run.num_parts - 1):
                with computing(run.precision, self.device):
                    terms = self.model(part, *drawn)
                # Both wrappers take the mean over ranks where the sum is wanted.
                loss = weighted(terms.sums, counts, run.loss_weights)
                if self.learner.lara is not None and terms.lara is not None:
                    assert lara_counts is not None
                    loss = loss + self.learner.lara.loss(terms.lara.sums.sum(0), lara_counts)
                if terms.image_text is not None:
                    assert self.recipe.image_text is not None
                    assert num_answers is not None
                    weight = self.recipe.image_text.weight
                    loss = loss + weight * terms.image_text / num_answers
                    answers.append(terms.image_text.detach())
                (loss * self.ranks.world_size).backward()  # type: ignore[no-untyped-call]
            rows = self.learner.rows_of(part)
            by_part.append(
                (rows.sample + index * size, rows.task, terms.sample_sums, terms.sample_counts)
            )
            if terms.lara is not None:
                lara.append(terms.lara)
        sample, task, sums, numbers = (torch.cat(each) for each in zip(*by_part, strict=True))
        return PartTerms(
            rows=ScoredRows(sample=sample, task=task),
            sample_sums=sums,
            sample_counts=numbers,
            lara=joined_terms(lara) if lara else None,
            answers=torch.stack(answers).sum() if answers else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a loop is given of the world outside. On ranks other than the first, `on_log` gets nothing."""

    clock_s: Callable[[], float]
    should_stop: Callable[[], bool]
    on_log: Callable[[dict[str, Any]], None]
    save: Callable[[int], None]  # how many steps are done
    has_failed: Callable[[], bool] = lambda: False  # whether what was saved before could not be
    stepped: Callable[[int], None] = lambda done: None  # how many are done; on every rank
    validate: Callable[[], Validated] | None = None  # None: never
    save_best: Callable[[int, Best], None] = lambda done, best: (
        None
    )  # instead of `save`, where it is the best so far
    best: Best | None = None  # of before
    mishaps: Mishaps | None = None  # None: nothing may be left out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loop:
    """Many steps, and what is said and kept of them."""

    trainer: Trainer
    losses: Losses
    flops_per_sample: float  # without text
    peak: float  # floating point operations a second of this device
    hooks: Hooks
    flops_per_text_token: float = 0.0
    lara_log: LaraLog | None = None

    def run(self, batches: Iterator[Batch], first: int, end: int) -> int:
        """How many steps are done: `end`, or less where it was asked to stop. That many are saved.

        Raises:
            Diverged: numbers are no longer numbers, more often than may be; nothing was saved since.
            SourceError: samples cannot be read, more than may be.
        """
        recipe, hooks = self.trainer.recipe.run, self.hooks
        pace = Throughput(began_s=hooks.clock_s())
        saved_s, stepped, best = pace.began_s, None, hooks.best
        waiting: StepResult | None = (
            None  # a step is launched before the one before it is looked at
        )
        feed = Feed(batches, self.trainer.device, copying_for(self.trainer.device))
        for done in range(first + 1, end + 1):
            launched = self._launch(feed, done - 1, pace, waiting)
            if done < end and feed.copies_ahead:
                began_s = hooks.clock_s()
                feed.ahead()
                pace.waited_s += hooks.clock_s() - began_s
            stepped = self._settled(waiting, pace) or stepped
            waiting = launched
            hooks.stepped(done)
            # A signal reaches ranks at different steps, and their clocks differ: what one wants, all do.
            is_stopped, is_late, has_failed = any_rank(
                self.trainer.ranks,
                hooks.should_stop(),
                self._is_late(saved_s),
                hooks.has_failed(),
            )
            is_last = done == end or is_stopped
            # What failed is raised by the next save.
            is_saved = done % recipe.checkpoint_every == 0 or is_late or is_last or has_failed
            is_told = done % recipe.log_every == 0 or is_last
            if is_saved or is_told or self._is_validated(done):
                stepped, waiting = self._settled(waiting, pace) or stepped, None
            validated = self._validated(done, pace)
            if stepped is not None and (is_told or validated is not None):
                self._report(done, stepped, pace, {} if validated is None else validated.line)
                pace = Throughput(began_s=hooks.clock_s())
            is_best = validated is not None and (best is None or validated.loss < best.loss)
            if validated is not None and is_best and recipe.keep_best:
                best = Best(step=done, loss=validated.loss)
                hooks.save_best(done, best)
                saved_s = hooks.clock_s()
            elif is_saved:
                hooks.save(done)
                saved_s = hooks.clock_s()
            if is_stopped:
                return done
        return end

    def _is_validated(self, done: int) -> bool:
        every = self.trainer.recipe.run.eval_every
        return self.hooks.validate is not None and every is not None and done % every == 0

    def _validated(self, done: int, pace: Throughput) -> Validated | None:
        """Held-out losses where they are due. The time it takes is no step's."""
        if self.hooks.validate is None or not self._is_validated(done):
            return None
        began_s = self.hooks.clock_s()
        validated = self.hooks.validate()
        pace.began_s += self.hooks.clock_s() - began_s
        return validated

    def _is_late(self, saved_s: float) -> bool:
        """Whether a kill would cost more than the recipe says, by the clock of this rank."""
        minutes = self.trainer.recipe.run.checkpoint_minutes
        return minutes is not None and self.hooks.clock_s() - saved_s >= 60 * minutes

    def _launch(
        self, batches: Iterator[Batch], step: int, pace: Throughput, waiting: StepResult | None
    ) -> StepResult | None:
        """None for a step that was skipped before: it changes nothing."""
        began_s = self.hooks.clock_s()
        try:
            batch = self._next(batches, step)
        except PipelineError:
            if self.trainer.ranks.is_alone:  # that the step before was not finite is the news
                self._settled(waiting, pace)
            raise
        pace.waited_s += self.hooks.clock_s() - began_s
        mishaps = self.hooks.mishaps
        if mishaps is not None and mishaps.was_skipped(step):
            return None
        return self.trainer.launch(batch, step)

    def _settled(self, result: StepResult | None, pace: Throughput) -> StepResult | None:
        """A step that is over, counted; None for one that was not finite and is skipped.

        Raises:
            Diverged: it is one too many.
        """
        if result is None:
            return None
        try:
            self.trainer.check(result)
        except Diverged as error:
            if self.hooks.mishaps is None:
                raise
            self.hooks.mishaps.skipped(result.step, error)
            return None
        self.losses.add(result.origin, result.rows, result.sample_sums, result.sample_counts)
        if result.image_text is not None:
            self.losses.add_image_text(result.image_text)
        if self.lara_log is not None and result.lara is not None:
            self.lara_log.add(result.lara)
        pace.num_steps += 1
        pace.num_samples += len(result.origin.row)
        pace.num_text = pace.num_text + result.num_text
        return result

    def _next(self, batches: Iterator[Batch], step: int) -> Batch:
        """Where samples may be left out, ranks agree on which. Else what one cannot read ends it alone, and torchrun the others."""
        mishaps, ranks = self.hooks.mishaps, self.trainer.ranks
        is_bounded = self.trainer.recipe.run.max_bad_samples > 0
        with raise_on_any_rank(ranks) if is_bounded else nullcontext():
            batch = next(batches, None)
            if batch is None:
                raise InvariantError(
                    "the data loader ended before the last step", where=f"step {step}"
                )
        if mishaps is not None:
            mishaps.replaced(batch.replaced)
        return batch

    def _report(
        self, done: int, stepped: StepResult, pace: Throughput, more: dict[str, object]
    ) -> None:
        """`loss` and `gradient_norm` are of the last step. All else of the steps since the line before."""
        trainer = self.trainer
        means = self.losses.means(trainer.ranks)
        self.losses.reset()
        if self.lara_log is not None:
            means |= self.lara_log.means(trainer.ranks)
            self.lara_log.reset()
        line: dict[str, Any] = {
            "step": done,
            "loss": stepped.loss(trainer.recipe),
            "lr": stepped.lr,
            "gradient_norm": stepped.gradient_norm,
            "accumulate": trainer.recipe.run.num_parts,
        }
        if self.hooks.mishaps is not None:
            line |= self.hooks.mishaps.counts
        paced = pace.summary(
            self.hooks.clock_s(), self.flops_per_sample, self.peak, self.flops_per_text_token
        )
        paced["samples_per_s"] *= trainer.ranks.world_size
        if trainer.ranks.is_first:
            self.hooks.on_log(line | paced | means | more)
