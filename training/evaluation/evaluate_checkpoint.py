"""A checkpoint on a split that it was not trained on: everything that is measured, and a few pictures to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from schemas.errors import ConfigError
from schemas.manifest import Manifest, rows_sha256
from schemas.supervision import Task
from training.batch import Origin
from training.causal.learner import CausalLearner
from training.conditioning.hashed_words import NoTextReader
from training.conditioning.open import open_conditioner
from training.conditioning.protocol import TextReader
from training.data.loader import Loader
from training.data.normalise import Normaliser, checked_statistics, from_state
from training.data.routing import RoutingSettings
from training.data.stored_latents import CORPUS_FOLDER, LatentPlace
from training.evaluation.accumulate import Group
from training.evaluation.draws import Answering, Sampler
from training.evaluation.evaluate import Evaluation, means_of
from training.evaluation.examples import Shown, shown_of
from training.evaluation.last_frame import LastFrameSampler
from training.evaluation.motion_probe import MotionProbe, probed, samples_of
from training.evaluation.summary import Comparison, MetricLine, compared, lines
from training.learner import Learner
from training.policy.restored import restored_latent_actions, restored_learner
from training.precision import Precision
from training.recipe import CachedText, TextSettings, TrainRecipe
from training.run.checkpoint import Checkpoint, recipe_of
from training.run.micro_batch import moved
from training.run.resume import check_text
from training.trainable import Trainable

# Of each task, where nobody says otherwise: minutes on a CPU, and its mean is within 1 / sqrt(2000), 2 %, of a sample's spread
NUM_SAMPLES = 2000
FITTED = "train"  # the split on which a probe is fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """`max_samples`: of each task, evenly spread over the split; None is all. `num_steps` of Euler, `precision`: None is the recipe's."""

    split: str = "val"
    use_averages: bool = False
    max_samples: int | None = NUM_SAMPLES
    batch_size: int = 64
    num_steps: int | None = None
    precision: Precision | None = None
    seed: int = 0
    num_shown: int = 4
    may_be_other_manifest: bool = False
    verify_latents: bool = False
    place: LatentPlace = CORPUS_FOLDER  # of latents


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    """What came out. num_samples: of each task; action_t_s [K]: when each step of a chunk is reached; precision: computed in."""

    lines: list[MetricLine]
    num_samples: dict[Task, int]
    action_t_s: npt.NDArray[np.float64]
    precision: Precision
    shown: Shown | None

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """By the name of a baseline."""
        return compared(self.lines)


def check_manifest(manifest: Manifest, checkpoint: Checkpoint) -> None:
    """
    Raises:
        ConfigError: it is not the manifest that the run was trained from: what is held out there may have been trained on.
    """
    digest, trained_digest = rows_sha256(manifest.rows), checkpoint.state.manifest_sha256
    if digest != trained_digest:
        problem = f"manifest digest {digest}; the run was trained on {checkpoint.state.manifest_name} {trained_digest}"
        repair = "pass that manifest, or add --allow-other-manifest if the run saw none of these episodes in training"
        raise ConfigError(problem, remedy=repair, where=f"manifest {manifest.facts.name}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """A checkpoint and the samples that it is asked about, before it is asked anything."""

    recipe: TrainRecipe
    learner: Trainable
    normaliser: Normaliser
    loader: Loader


def open_checkpoint(
    manifest: Manifest,
    checkpoint: Checkpoint,
    request: EvaluationRequest,
    *,
    device: torch.device,
    cache: Path | None = None,
) -> Opened:
    """
    Raises:
        ConfigError: another manifest, latents or text of another encoder, an unknown body, or a damaged checkpoint.
        SourceError: a file of latents or of text features cannot be read.
    """
    if not request.may_be_other_manifest:
        check_manifest(manifest, checkpoint)
    recipe = recipe_of(checkpoint)
    reader, conditioner = open_conditioner(
        _text_of(recipe, checkpoint),
        manifest,
        split=request.split,
        verify_latents=request.verify_latents,
    )
    check_text(checkpoint, conditioner)
    learner = restored_learner(checkpoint, conditioner, use_averages=request.use_averages)
    normaliser = from_state(checkpoint.normaliser_state(), where=str(checkpoint.folder))
    loader = _loader(manifest, checkpoint, request, reader, normaliser, cache, request.split)
    return Opened(
        recipe=recipe, learner=learner.to(device).eval(), normaliser=normaliser, loader=loader
    )


def _loader(
    manifest: Manifest,
    checkpoint: Checkpoint,
    request: EvaluationRequest,
    reader: TextReader,
    normaliser: Normaliser,
    cache: Path | None,
    split: str,
) -> Loader:
    """All tasks of a split, with the latents, bodies and scales of the checkpoint."""
    recipe = recipe_of(checkpoint)
    data = recipe.data.model_copy(
        update={"encoder": checkpoint.state.encoder_id or recipe.data.encoder}
    )
    return Loader(
        manifest,
        recipe.model_copy(update={"data": data, "routing": RoutingSettings(min_per_batch=0)}),
        reader=reader,
        split=split,
        cache=cache,
        embodiments=checkpoint.state.embodiments,
        normaliser=normaliser,
        verify_latents=request.verify_latents,
        place=request.place,
    )


def latent_actions_probed(
    manifest: Manifest,
    checkpoint: Checkpoint,
    request: EvaluationRequest,
    *,
    device: torch.device,
    cache: Path | None = None,
) -> MotionProbe | None:
    """What the latent actions of a run tell of motion on the split; None for a run without a latent action model. Each split gives `request.max_samples` at most.

    Raises:
        ConfigError: another manifest, latents of another encoder, a damaged checkpoint, or too few episodes that act.
        SourceError: a file of latents cannot be read.
    """
    if not request.may_be_other_manifest:
        check_manifest(manifest, checkpoint)
    lara = restored_latent_actions(checkpoint, device=device)
    if lara is None:
        return None
    if request.split == FITTED:
        problem = (
            "the probe of latent actions is fitted on the split train, and cannot be scored on it"
        )
        raise ConfigError(problem, remedy="evaluate on val or test", where="--split")
    normaliser = from_state(checkpoint.normaliser_state(), where=str(checkpoint.folder))
    fitted, scored = (
        samples_of(
            _loader(manifest, checkpoint, request, NoTextReader(), normaliser, cache, split),
            lara,
            max_samples=request.max_samples,
            batch_size=request.batch_size,
            device=device,
        )
        for split in (FITTED, request.split)
    )
    return probed(fitted, scored, num_codes=lara.settings.lam.num_codes, seed=request.seed)


def held_out(
    manifest: Manifest,
    checkpoint: Checkpoint,
    request: EvaluationRequest,
    *,
    device: torch.device,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda task, done, whole: None,
) -> Evaluated:
    """Ask for every task that the recipe trains, at places of the split where it can be asked: all, or `request.max_samples` of them.

    Which places these are does not depend on how the recipe weighs tasks, so runs of different recipes are scored on the same.

    Args:
        progress: called with the task, the number of its samples that are done, and their total.

    Raises:
        ConfigError: another manifest, latents or text of another encoder, an unknown body, or nothing held out.
        SourceError: a sample cannot be read.
    """
    opened = open_checkpoint(manifest, checkpoint, request, device=device, cache=cache)
    recipe, loader = opened.recipe, opened.loader
    trained = recipe.routing.trained
    sampler = _sampler(opened, request)
    evaluation = Evaluation(
        sampler,
        opened.normaliser,
        means_of(checked_statistics(manifest), opened.normaliser.embodiments),
        seed=request.seed,
        trained=trained,
    )
    num_samples = {
        task: _pass(loader, evaluation, task, request, device, progress) for task in trained
    }
    return Evaluated(
        lines=lines(evaluation.tally, seed=request.seed),
        num_samples=num_samples,
        action_t_s=loader.window.action_t_s,
        precision=sampler.precision,
        shown=shown_of(loader, evaluation, trained, request.num_shown, device),
    )


def _sampler(opened: Opened, request: EvaluationRequest) -> Answering:
    """With the sampling steps of the request, or those of the recipe."""
    run, learner, num_steps = opened.recipe.run, opened.learner, request.num_steps
    precision = request.precision or run.precision
    if isinstance(learner, CausalLearner):
        sampling = learner.network.settings.sampling
        return LastFrameSampler(
            learner=learner,
            precision=precision,
            video_steps=num_steps or sampling.video_steps,
            action_steps=num_steps or sampling.action_steps,
        )
    assert isinstance(learner, Learner)  # there are two
    return Sampler(learner=learner, precision=precision, num_steps=num_steps or run.sampling_steps)


def _text_of(recipe: TrainRecipe, checkpoint: Checkpoint) -> TextSettings:
    """Of stored features the very ones: a recipe may have said only the name of a model, of which a manifest now has two."""
    if isinstance(recipe.text, CachedText) and checkpoint.state.text_id:
        return recipe.text.model_copy(update={"encoder": checkpoint.state.text_id})
    return recipe.text


def _pass(
    loader: Loader,
    evaluation: Evaluation,
    task: Task,
    request: EvaluationRequest,
    device: torch.device,
    progress: Callable[[str, int, int], None],
) -> int:
    """Batches are read by threads while the network works."""
    groups_of = _Groups(loader.manifest)
    places = loader.places(task, request.max_samples)
    done, whole = 0, len(places.now)
    progress(task.value, done, whole)
    for batch in loader.at(
        places,
        batch_size=request.batch_size,
        num_workers=max(1, loader.recipe.run.num_workers),
        pin_memory=device.type == "cuda",
    ):
        evaluation.add(moved(batch, device), groups_of(batch.origin), task)
        done += len(batch.origin.row)
        progress(task.value, done, whole)
    return done


class _Groups:
    """Under what the errors of a sample are counted."""

    def __init__(self, manifest: Manifest) -> None:
        names = ("embodiment", "tier", "uid")
        self._columns = [manifest.rows[name] for name in names]

    def __call__(self, origin: Origin) -> Sequence[Group]:
        columns = [column.take(origin.row).to_pylist() for column in self._columns]
        return [Group(*each) for each in zip(*columns, strict=True)]
