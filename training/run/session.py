"""From a manifest and a recipe to a run: builds everything, refuses what does not fit before the first step, goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from schemas import manifest as manifests
from schemas.errors import ConfigError
from schemas.manifest import Manifest
from training.batch import Batch
from training.conditioning.open import open_conditioner
from training.data.embodiments import embodiments_of, grown
from training.data.loader import Loader
from training.data.normalise import Normaliser, from_state, normaliser_of
from training.data.order import key_of
from training.learner import Learner
from training.model.network import Network
from training.model.settings import ModelSettings
from training.recipe import TrainRecipe
from training.run.blocks import prepare_blocks
from training.run.checkpoint import (
    Checkpoint,
    CheckpointState,
    CheckpointWriter,
    checkpoint_of,
    checkpoints,
    refuse_broken,
    snapshot,
    sweep,
)
from training.run.compute import flops_per_sample, matmul_peak
from training.run.estimate import (
    Estimate,
    activation_bytes,
    hours_of,
    parameters_of,
    state_bytes,
    tokens_of,
)
from training.run.metrics import Grouping, Losses
from training.run.optimiser import Averages, adamw, trained
from training.run.parallel import Ranks, sum_over, wrapped
from training.run.portion import moved
from training.run.restore import restore, restore_weights
from training.run.run_folder import RunFacts, check_same, cut_log, write_run
from training.run.trainer import Hooks, Loop, Trainer

INITIAL = 6  # purpose of the key from which weights are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What is asked for. `manifest`: its folder. `until`: stop after so many steps, though the recipe has more."""

    manifest: Path
    recipe: TrainRecipe
    out: Path
    device: str = "auto"
    until: int | None = None
    init_from: Path | None = None
    cache: Path | None = None
    num_processes: int = 1  # that derive actions, the first time
    verify_latents: bool = False
    may_change_manifest: bool = False
    may_change_recipe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The outside, passed in by a job."""

    clock_s: Callable[[], float]
    should_stop: Callable[[], bool] = lambda: False
    told: Callable[[dict[str, Any]], None] = lambda line: None
    progress: Callable[[int, int], None] = field(default=lambda done, whole: None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """A run that can begin: nothing of it is written yet."""

    request: TrainRequest
    ranks: Ranks
    device: torch.device
    facts: RunFacts
    loader: Loader
    learner: Learner
    settings: ModelSettings
    found: Checkpoint | None  # of this run, to go on from
    num_text: int  # tokens of text of a sample
    flops_per_sample: float
    peak_flops: float

    @property
    def first_step(self) -> int:
        return 0 if self.found is None else self.found.state.step

    @property
    def end(self) -> int:
        """How many steps there are to be done in all."""
        num_steps = self.request.recipe.run.num_steps
        return min(num_steps, self.request.until or num_steps)

    def estimate(self) -> Estimate:
        """For whoever thinks about beginning it."""
        recipe, world_size = self.request.recipe, self.ranks.world_size
        num = sum(p.numel() for p in trained(self.learner).values())
        epoch = self.loader.steps_per_epoch
        return Estimate(
            parameters=parameters_of(self.learner),
            tokens=tokens_of(self.settings, self.num_text),
            samples_per_epoch=round(epoch * recipe.run.batch_size),
            steps_per_epoch=epoch,
            flops_per_sample=self.flops_per_sample,
            peak_flops=self.peak_flops,
            state_bytes=state_bytes(num, recipe, world_size),
            activation_bytes=activation_bytes(self.settings, recipe, world_size),
            hours=hours_of(recipe, self.flops_per_sample, self.peak_flops, world_size),
        )

    def run(self, world: World) -> int:
        """How many steps are done in the end: `end`, or less where it was asked to stop. All of them are saved.

        Raises:
            Diverged: numbers are no longer numbers.
            SourceError: a sample is broken; its address is in the message.
            OSError: a checkpoint could not be written.
        """
        request, recipe = self.request, self.request.recipe
        trainer = self._trainer()
        if self.ranks.is_first:
            sweep(request.out)
            write_run(request.out, self.facts, recipe, request.manifest)
            cut_log(request.out, self.first_step)
        if self.first_step >= self.end:
            return self.first_step
        writer = CheckpointWriter(request.out, recipe.run.keep_checkpoints)
        loop = Loop(
            trainer=trainer,
            losses=Losses(self._groupings()),
            flops_per_sample=self.flops_per_sample,
            peak=self.peak_flops,
            hooks=Hooks(
                clock_s=world.clock_s,
                should_stop=world.should_stop,
                told=world.told,
                save=partial(self._save, trainer, writer),
            ),
        )
        batches = self.loader.batches(self.first_step, pin_memory=self.device.type == "cuda")
        try:
            return loop.run(batches, self.first_step, self.end)
        finally:
            writer.close()

    def _trainer(self) -> Trainer:
        """As the checkpoint had it, or as initialised."""
        recipe, rows = self.request.recipe, self.loader.manifest
        run = recipe.run
        prepare_blocks(self.learner, checkpointed=run.checkpoint_activations, compiled=run.compile)
        model = wrapped(self.learner, run.parallel, self.ranks, run.precision)
        optimiser = adamw(self.learner, recipe.optimiser)
        ema = recipe.optimiser.ema
        averages = None if ema is None else Averages(self.learner, ema)
        if self.found is not None:
            restore(self.learner, optimiser, averages, self.found)
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

    def _groupings(self) -> dict[str, Grouping]:
        rows = self.loader.manifest.rows
        return {name: Grouping.of(rows[name].to_pylist()) for name in ("tier", "embodiment")}

    def _save(self, trainer: Trainer, writer: CheckpointWriter, done: int) -> None:
        recipe = self.request.recipe
        state = CheckpointState(
            step=done,
            recipe=recipe.model_dump(mode="json"),
            recipe_sha256=recipe.digest(),
            manifest_name=self.facts.manifest_name,
            manifest_sha256=self.facts.manifest_sha256,
            model=self.settings,
            embodiments=self.loader.embodiments,
            encoder_id=self.loader.encoder_id,
            rate_hz=self.loader.window.rate_hz,
        )
        normaliser = self.loader.normaliser.state()
        made = snapshot(
            trainer.learner, trainer.optimiser, trainer.averages, state, self.ranks, normaliser
        )
        if made is not None:
            writer.save(made)


def open_session(
    request: TrainRequest, ranks: Ranks, device: torch.device, world: World
) -> Session:
    """Everything that a run needs, checked.

    Raises:
        ConfigError: the manifest is not what it was published as, lacks latents or statistics, does not fit the recipe, or the
            folder has a run of something else.
    """
    manifest = manifests.load(request.manifest)
    recipe = request.recipe
    facts = RunFacts(
        manifest=str(request.manifest),
        manifest_name=manifest.facts.name,
        manifest_sha256=manifests.rows_sha256(manifest.rows),
        recipe_sha256=recipe.digest(),
        init_from=str(request.init_from or ""),
    )
    check_same(
        request.out,
        facts,
        recipe,
        may_change_manifest=request.may_change_manifest,
        may_change_recipe=request.may_change_recipe,
    )
    refuse_broken(request.out)
    found = next(reversed(checkpoints(request.out)), None)
    base = None if found or request.init_from is None else checkpoint_of(request.init_from)
    embodiments, normaliser = _bodies(found, base, manifest, recipe)
    torch.manual_seed(int(key_of(recipe.seed, INITIAL, 0)) >> 1)  # each as if it were alone
    reader, conditioner = open_conditioner(recipe.text, manifest)
    loader = Loader(
        manifest,
        recipe,
        reader=reader,
        rank=ranks.rank,
        world_size=ranks.world_size,
        cache=request.cache,
        embodiments=embodiments,
        normaliser=normaliser,
        num_processes=request.num_processes,
        verify_latents=request.verify_latents,
        progress=world.progress,
    )
    _check_share(recipe, ranks)
    first = loader.batch(0)  # also the first look at whether a batch can be made at all
    begun = found or base
    _check_encoder(begun, loader)
    settings = ModelSettings(
        **recipe.architecture.model_dump(),
        **loader.shapes().settings(),
        text_width=conditioner.width,
        change_std=begun.state.model.change_std if begun else change_std(first, ranks, device),
    )
    torch.manual_seed(int(key_of(recipe.seed, INITIAL, 1)) >> 1)
    learner = Learner(Network(settings), conditioner)
    if base is not None:
        restore_weights(learner, base.tensors(), where=str(base.folder), may_grow=True)
    learner.to(device)
    num_text = _num_text(learner, moved(first, device))
    flops = flops_per_sample(settings, num_text) * recipe.run.num_draws
    dtype = torch.bfloat16 if recipe.run.precision == "bf16" else torch.float32
    return Session(
        request=request,
        ranks=ranks,
        device=device,
        facts=facts,
        loader=loader,
        learner=learner,
        settings=settings,
        found=found,
        num_text=num_text,
        flops_per_sample=flops,
        peak_flops=matmul_peak(device, dtype, world.clock_s),
    )


def _bodies(
    found: Checkpoint | None, base: Checkpoint | None, manifest: Manifest, recipe: TrainRecipe
) -> tuple[tuple[str, ...], Normaliser | None]:
    """Embodiments in the order of their layers, and how their actions are scaled: as a checkpoint has it; a base grows by new bodies."""
    if found is not None:
        return found.state.embodiments, from_state(found.normaliser_state())
    if base is None:
        return (), None
    embodiments = grown(base.state.embodiments, embodiments_of(manifest))
    later = normaliser_of(manifest, embodiments, recipe.data.normalise)
    return embodiments, from_state(base.normaliser_state()).joined(later)


def _check_encoder(begun: Checkpoint | None, loader: Loader) -> None:
    """Weights that were trained on the latents of one encoder mean nothing to another's, though they be as wide."""
    if begun is not None and begun.state.encoder_id != loader.encoder_id:
        found = f"latents of {loader.encoder_id}; {begun.folder} was trained on those of {begun.state.encoder_id}"
        repair = (
            f"say --set data.encoder={begun.state.encoder_id}, after `eicorpus latents` with it"
        )
        raise ConfigError(f"{found}; {repair}", where="recipe key data.encoder")


def _check_share(recipe: TrainRecipe, ranks: Ranks) -> None:
    share = recipe.run.batch_size // ranks.world_size
    if share % recipe.run.accumulate:
        found = f"a rank's {share} samples do not divide into {recipe.run.accumulate} parts"
        raise ConfigError(found, where="recipe key run.accumulate")


@torch.no_grad()
def _num_text(learner: Learner, batch: Batch) -> int:
    """Tokens of a batch, as the conditioner tells it."""
    return int(learner.conditioner(batch.text_inputs).has.shape[1])


def change_std(batch: Batch, ranks: Ranks, device: torch.device) -> float:
    """How far latents are from those of the last picture, over a global batch; of three digits, so that sums in another order agree."""
    change = (batch.future - batch.known.past[:, -1]).double().square()
    has = (batch.has_future & batch.known.has_past[:, -1]).repeat_interleave(
        change.shape[1] // batch.has_future.shape[1], dim=1
    )
    told = torch.stack([change[has].sum(), has.sum() * change.shape[-1]]).to(device)
    whole, num = sum_over(told, ranks).tolist()
    return float(f"{(whole / num) ** 0.5:.3g}") if whole > 0 else 1.0
