"""A run that can begin, and how it runs: from its first step or where it stopped, to the last. `opening.py` makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from training.batch import Batch
from training.causal.settings import AnySettings
from training.data.loader import Loader
from training.data.stored_latents import CORPUS_FOLDER, LatentPlace
from training.lara.log import LaraLog
from training.recipe import OnlineText, TrainRecipe
from training.run.architecture import tokens_for
from training.run.best import Best, load_best
from training.run.checkpoint import (
    FOLDER,
    Checkpoint,
    CheckpointState,
    CheckpointWriter,
    snapshot,
    sweep,
)
from training.run.communication import Traffic
from training.run.compile_blocks import prepare_blocks
from training.run.compute import Estimate, SampleFlops, hours_of, parameters_of
from training.run.memory import USABLE, Memory, bytes_of, fewest_parts
from training.run.metrics import Grouping, Losses
from training.run.micro_batch import moved, parts_by_trial, samples_of
from training.run.mishaps import Mishaps
from training.run.optimiser import EMA, adamw, trained
from training.run.parallel import (
    Ranks,
    checkpoint_group,
    gradients_between_parts,
    max_over_ranks,
    own_shard,
    wrapped,
)
from training.run.restore import restore
from training.run.run_folder import RunFacts, cut_log, write_run
from training.run.trainer import Hooks, Loop, Trainer
from training.run.validation import Validated, Validation
from training.trainable import Trainable

# Where `run.accumulate` is from. "estimate": it was auto; on a GPU trials before the first step settle it.
PartsBy = Literal["recipe", "checkpoint", "estimate"]
COMMON_GPU = 80 * 10**9  # bytes of an H100 or A100, for which a dry run says what would be chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What is asked for. `manifest`: its folder. `until`: stop after so many steps, though the recipe has more."""

    manifest: Path
    recipe: TrainRecipe
    out: Path
    device: str = "auto"
    until: int | None = None
    init_from: Path | None = None
    init_averages: bool = False  # of `init_from` the averaged weights
    init_lam: Path | None = None  # a run whose latent action model it begins with
    cache: Path | None = None
    num_processes: int = 1  # that derive actions, the first time
    num_threads: int | None = None  # of a matrix product on a CPU; None is torch's own choice
    verify_latents: bool = False
    place: LatentPlace = CORPUS_FOLDER  # of latents
    may_change_manifest: bool = False
    may_change_recipe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHooks:
    """The outside, passed in by a job."""

    clock_s: Callable[[], float]
    should_stop: Callable[[], bool] = lambda: False
    on_log: Callable[[dict[str, Any]], None] = lambda line: None
    stepped: Callable[[int], None] = lambda done: None  # after every step: how many are done
    progress: Callable[[int, int], None] = field(default=lambda done, whole: None)
    warn: Callable[[str], None] = field(default=lambda message: None)  # on every rank


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """A run that can begin: nothing of it is written yet."""

    request: TrainRequest
    ranks: Ranks
    device: torch.device
    facts: RunFacts
    loader: Loader
    learner: Trainable
    settings: AnySettings
    resumed: Checkpoint | None  # of this run, to go on from
    measured_state: Mapping[str, tuple[str, ...]]  # `CheckpointState` keeps it
    short_side_px: int | None  # this too
    mishaps: Mishaps
    validation: Validation | None
    num_text: int  # tokens of text of a sample, of the longest of a batch
    mean_text: float  # and in the mean
    flops: SampleFlops
    peak_flops: float
    by_parts: dict[int, Memory]  # of a rank, by `run.accumulate`
    parts_by: PartsBy
    traffic: Traffic

    @property
    def first_step(self) -> int:
        return 0 if self.resumed is None else self.resumed.state.step

    @property
    def end(self) -> int:
        """How many steps there are to be done in all."""
        num_steps = self.request.recipe.run.num_steps
        return min(num_steps, self.request.until or num_steps)

    def estimate(self) -> Estimate:
        """Printed before a run starts."""
        recipe, world_size = self.request.recipe, self.ranks.world_size
        epoch = self.loader.steps_per_epoch
        hours = hours_of(recipe, self.flops.of_sample(self.mean_text), self.peak_flops, world_size)
        return Estimate(
            parameters=parameters_of(self.learner),
            tokens=tokens_for(self.settings, self.num_text),
            samples_per_epoch=round(epoch * recipe.run.batch_size),
            steps_per_epoch=epoch,
            flops_per_sample=round(self.flops.of_sample(self.mean_text)),
            peak_flops=self.peak_flops,
            memory=self.by_parts[recipe.run.num_parts].as_object(),
            accumulate=recipe.run.num_parts,
            accumulate_by=self.parts_by,
            accumulate_of_80_gb=fewest_parts(self.by_parts, COMMON_GPU),
            memory_by_parts={number: each.total for number, each in self.by_parts.items()},
            traffic=self.traffic.as_object(),
            hours=hours,
            latents=self.loader.latent_traffic().as_object(recipe.run.num_steps / (3600 * hours)),
        )

    def language_model(self) -> dict[str, Any]:
        """For `--json`: what the language model is given, and what of it is trained; nothing where the recipe has none."""
        conditioner, text = self.learner.conditioner, self.request.recipe.text
        settings = conditioner.text_settings
        if settings is None:
            return {}
        num_trained = self.request.recipe.text_layers
        return {
            "text_id": conditioner.text_id,
            "prompt": settings.prompt,
            "layer": settings.layer,
            "images": settings.picture_every_s is not None,
            "image_every_s": settings.picture_every_s,
            "camera": None if settings.picture_every_s is None else settings.camera,
            "trained_layers": list(range(settings.layer - num_trained, settings.layer)),
            "lr": text.lr if num_trained and isinstance(text, OnlineText) else None,
        }

    def image_text(self) -> dict[str, Any]:
        """For `--json`: the pairs beside the samples; nothing where the recipe has none."""
        source = self.loader.image_text
        if source is None:
            return {}
        kept = source.settings.model_dump(include={"data", "batch_size", "every", "weight"})
        return {"pairs": len(source.file), **kept}

    def run(self, world: RunHooks) -> int:
        """How many steps are done in the end: `end`, or less where it was asked to stop. All of them are saved.

        Raises:
            Diverged: numbers are no longer numbers.
            SourceError: a sample is broken; its address is in the message.
            OSError: a checkpoint could not be written.
        """
        request, trainer = self.request, self._trainer()
        if self.parts_by == "estimate" and self.device.type == "cuda":
            device_bytes = torch.cuda.get_device_properties(self.device).total_memory
            allocated = partial(torch.cuda.memory_allocated, self.device)
            trainer = self.tried(trainer, partial(_peak_of, trainer), allocated, device_bytes)
        recipe = trainer.recipe
        if self.ranks.is_first:
            sweep(request.out)
            write_run(request.out, self.facts, recipe, request.manifest)
            cut_log(request.out, self.first_step)
        self.mishaps.begin()
        if self.first_step >= self.end:
            return self.first_step
        group = checkpoint_group(recipe.run.parallel, self.ranks)
        writer = CheckpointWriter(request.out, recipe.run.keep_checkpoints, group)
        loop = Loop(
            trainer=trainer,
            losses=Losses(self._groupings()),
            flops_per_sample=self.flops.without_text,
            flops_per_text_token=self.flops.per_text_token,
            peak=self.peak_flops,
            lara_log=(
                None
                if self.learner.lara is None
                else LaraLog(self.learner.lara.settings.lam.num_codes)
            ),
            hooks=Hooks(
                clock_s=world.clock_s,
                should_stop=world.should_stop,
                on_log=world.on_log,
                stepped=world.stepped,
                save=partial(self._save, trainer, writer),
                has_failed=lambda: writer.has_failed,
                validate=self._validate_with(trainer),
                save_best=partial(self._save, trainer, writer),
                best=load_best(request.out / FOLDER),
                mishaps=self.mishaps,
            ),
        )
        batches = self.loader.batches(
            self.first_step, pin_memory=self.device.type == "cuda", warn=world.warn
        )
        with closing(writer), closing(batches):
            return loop.run(batches, self.first_step, self.end)

    def _trainer(self) -> Trainer:
        """As the checkpoint had it, or as initialised."""
        recipe, rows = self.request.recipe, self.loader.manifest
        run = recipe.run
        prepare_blocks(self.learner, checkpointed=run.checkpoint_activations, compiled=run.compile)
        model = wrapped(
            self.learner,
            run.parallel,
            self.ranks,
            run.precision,
            shard_ranks=self.traffic.shard_ranks,
        )
        text_lr = recipe.text.lr if isinstance(recipe.text, OnlineText) else None
        optimiser = adamw(self.learner, recipe.optimiser, text_lr)
        ema = recipe.optimiser.ema
        averages = None if ema is None else EMA(self.learner, ema)
        if self.resumed is not None:
            restore(self.learner, optimiser, averages, self.resumed)
        return Trainer(
            learner=self.learner,
            model=model.train(),
            optimiser=optimiser,
            averages=averages,
            recipe=recipe,
            ranks=self.ranks,
            device=self.device,
            uid_of=lambda row: rows.row(row).uid,
        )

    def tried(
        self,
        trainer: Trainer,
        peak_of: Callable[[Batch], int],
        allocated: Callable[[], int],
        device_bytes: int,
    ) -> Trainer:
        """With as many parts as trials on its first batch say.

        Args:
            peak_of: bytes on this rank's device while it learns from a batch, of `device_bytes`. allocated: bytes there now.

        Raises:
            ConfigError: not even one sample fits.
        """
        batch = moved(self.loader.batch(0), self.device)
        gradients = sum(own_shard(p.detach()).nbytes for p in trained(self.learner).values())
        # What is not there yet in a trial: moments of the optimiser, and the next batch.
        later = bytes_of(batch) + (0 if trainer.optimiser.state else 2 * gradients)
        without = -max_over_ranks(-(allocated() + gradients + later), self.ranks)
        held = max_over_ranks(gradients_between_parts(trainer.model), self.ranks)
        # Of a trial's gradients its peak has none, if that is where all activations are, or all, if few are.
        bounds = max(0, held - gradients), held

        def peak(size: int) -> int:
            own = peak_of(samples_of(batch, slice(0, size))) + later
            return max_over_ranks(own, self.ranks)

        usable = -max_over_ranks(-int(USABLE * device_bytes), self.ranks)  # of the smallest device
        num_parts = parts_by_trial(
            len(batch.known.task), peak, usable, without=without, held=bounds
        )
        run = trainer.recipe.run.model_copy(update={"accumulate": num_parts})
        return replace(trainer, recipe=trainer.recipe.model_copy(update={"run": run}))

    def _groupings(self) -> dict[str, Grouping]:
        rows = self.loader.manifest.rows
        return {name: Grouping.of(rows[name].to_pylist()) for name in ("tier", "embodiment")}

    def _validate_with(self, trainer: Trainer) -> Callable[[], Validated] | None:
        if self.validation is None:
            return None
        of = trainer.learner, trainer.model, trainer.averages, self.device
        return partial(self.validation.run, *of)

    def _save(
        self, trainer: Trainer, writer: CheckpointWriter, done: int, best: Best | None = None
    ) -> None:
        recipe = trainer.recipe
        state = CheckpointState(
            step=done,
            recipe=recipe.model_dump(mode="json"),
            recipe_sha256=recipe.digest(),
            manifest_name=self.facts.manifest_name,
            manifest_sha256=self.facts.manifest_sha256,
            model=self.settings,
            embodiments=self.loader.embodiments,
            measured_state=dict(self.measured_state),
            encoder_id=self.loader.encoder_id,
            text_id=self.learner.conditioner.text_id,
            text_settings=self.learner.conditioner.text_settings,
            rate_hz=self.loader.window.rate_hz,
            short_side_px=self.short_side_px,
            world_size=self.ranks.world_size,
        )
        normaliser = self.loader.normaliser.state()
        parts = trainer.learner, trainer.optimiser, trainer.averages
        take = partial(snapshot, *parts, state, self.ranks, normaliser)
        writer.save(partial(take, is_gathered=not writer.is_sharded), best)


def _peak_of(trainer: Trainer, batch: Batch) -> int:
    """Bytes that torch had allocated at most on the GPU."""
    torch.cuda.reset_peak_memory_stats(trainer.device)
    trainer.rehearse(batch)
    return torch.cuda.max_memory_allocated(trainer.device)
