"""Trains a value head on images that a run was trained on, and scores it on those of another split.

A sample is what a planner asks about: the instruction, the state of now where the recipe has one, and the image at `data.future_s`. The target is that of
the future image. Nothing of the network is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as fn

from schemas.errors import ConfigError
from schemas.manifest import Manifest, rows_sha256
from schemas.supervision import Task
from training.data.loader import Loader
from training.data.prefetch import tensors_mapped
from training.data.rng_keys import Purpose
from training.data.sampler import Drawn
from training.data.stored_latents import CORPUS_FOLDER, LatentPlace
from training.evaluation.draws import Sampler
from training.evaluation.evaluate_checkpoint import EvaluationRequest, open_checkpoint
from training.learner import Learner
from training.run.checkpoint import Checkpoint
from training.value.head import ValueHead, mean_of
from training.value.outcomes import SUCCESSES, EpisodeLabel, ends_of, targets_of
from training.value.settings import OutcomeCounts, ValueFacts, ValueScores, ValueSettings
from training.value.stored import shape_of

READ_AT_ONCE = 256
TRAINED = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRequest:
    """`held_out`: the split on which the head is scored. `place`: of latents."""

    settings: ValueSettings
    use_averages: bool = False
    held_out: str = "val"
    may_be_other_manifest: bool = False
    verify_latents: bool = False
    place: LatentPlace = CORPUS_FOLDER

    def of_split(self, split: str) -> EvaluationRequest:
        """For `open_checkpoint`."""
        return EvaluationRequest(
            split=split,
            use_averages=self.use_averages,
            may_be_other_manifest=self.may_be_other_manifest,
            verify_latents=self.verify_latents,
            place=self.place,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSamples:
    """[S] samples of known outcome on the CPU: what a head is shown (see `ValueHead.forward`), targets, whether their episodes succeed, and which they are."""

    future: Tensor  # as it is stored: bfloat16 where latents are
    has_future: Tensor
    instruction: Tensor
    state: Tensor | None
    target: Tensor
    succeeds: npt.NDArray[np.bool_]
    uid: npt.NDArray[np.object_]
    counts: OutcomeCounts

    def __len__(self) -> int:
        return len(self.target)

    def logits(self, head: ValueHead, which: Tensor, device: torch.device) -> Tensor:
        """[B] of some of them, on the device."""
        state = None if self.state is None else self.state[which].to(device)
        logits: Tensor = head(
            self.future[which].to(device).float(),
            self.has_future[which].to(device),
            self.instruction[which].to(device),
            state,
        )
        return logits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedValue:
    """A head and its facts, without the digest that saving adds."""

    head: ValueHead
    facts: ValueFacts


def fit(
    manifest: Manifest,
    checkpoint: Checkpoint,
    labels: Mapping[str, EpisodeLabel],
    request: ValueRequest,
    *,
    device: torch.device,
    cache: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> FittedValue:
    """Train a head for a checkpoint.

    Args:
        labels: of episodes, by uid. progress: called with the number of steps done.

    Raises:
        ConfigError: another manifest, latents of another encoder, a block-causal run, or no episode that is known to succeed.
        SourceError: a sample cannot be read.
    """
    settings = request.settings
    shape_of(checkpoint, 1)  # a network without forward dynamics is refused before data is opened
    trained = labelled(manifest, checkpoint, labels, request, TRAINED, device=device, cache=cache)
    if not trained.succeeds.any():
        problem = "no sample of the split train is of an episode that is known to succeed"
        repair = "use a manifest of episodes with a success label, or with high segments up to their ends"
        raise ConfigError(problem, remedy=repair, where=f"manifest {manifest.facts.name}")
    text_width = trained.instruction.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        head = ValueHead(shape_of(checkpoint, text_width), settings).to(device)
    train_head(head, trained, settings, device, progress)
    scores, not_scored = None, ""
    try:
        held_out = labelled(
            manifest, checkpoint, labels, request, request.held_out, device=device, cache=cache
        )
        mean = float(trained.target.mean())
        scores = scores_of(head, held_out, mean=mean, split=request.held_out, device=device)
    except ConfigError as error:  # the head stands without them
        not_scored = error.message
    facts = ValueFacts(
        step=checkpoint.state.step,
        is_averaged=request.use_averages,
        encoder_id=checkpoint.state.encoder_id,
        text_id=checkpoint.state.text_id,
        recipe_sha256=checkpoint.state.recipe_sha256,
        manifest_sha256=rows_sha256(manifest.rows),
        settings=settings,
        shape=head.shape,
        counts=trained.counts,
        scores=scores,
        not_scored=not_scored,
    )
    return FittedValue(head=head.eval(), facts=facts)


def labelled(
    manifest: Manifest,
    checkpoint: Checkpoint,
    labels: Mapping[str, EpisodeLabel],
    request: ValueRequest,
    split: str,
    *,
    device: torch.device,
    cache: Path | None = None,
) -> LabelledSamples:
    """Every sample of a split that has a future image and whose episode ended in a known way.

    Raises:
        ConfigError: see `fit`, or the split has none.
    """
    opened = open_checkpoint(
        manifest, checkpoint, request.of_split(split), device=device, cache=cache
    )
    learner, loader = opened.learner, opened.loader
    assert isinstance(learner, Learner)  # `shape_of` was asked
    step, settings = loader.window.future_step, request.settings
    ends = ends_of(manifest, labels, low_fails=settings.low_fails, tolerance=step)
    places = loader.places(Task.VISUAL_FORECASTING)
    row = loader.anchors.segments["row"][places.segment]
    names, number = np.unique(manifest.rows["uid"].to_numpy()[row], return_inverse=True)
    of_episode = [ends[name] for name in names]
    is_known = np.array([end.is_known for end in of_episode], dtype=bool)[number]
    known = np.flatnonzero(is_known)
    if not len(known):
        problem = f"no sample of the split {split} is of an episode whose outcome is known"
        repair = "use a manifest of episodes with a success label or with high segments"
        raise ConfigError(problem, remedy=repair, where=f"manifest {manifest.facts.name}")
    num = min(len(known), settings.max_samples)
    read = known[np.arange(num) * len(known) // num]
    succeeds = np.array([end.ending in SUCCESSES for end in of_episode], dtype=bool)[number[read]]
    last = np.array([end.last for end in of_episode])[number[read]]
    target = targets_of(last, succeeds, places.now[read] + step, settings)
    run = opened.recipe.run
    sampler = Sampler(learner=learner, precision=run.precision, num_steps=run.sampling_steps)
    future, has_future, instruction, state = _read(loader, sampler, places.part(read), device)
    return LabelledSamples(
        future=future,
        has_future=has_future,
        instruction=instruction,
        state=state,
        target=torch.from_numpy(target),
        succeeds=succeeds,
        uid=names[number[read]],
        counts=OutcomeCounts(
            **Counter(end.ending.value for end in of_episode),
            samples=num,
            samples_left_out=int((~is_known).sum()),
            samples_beyond=len(known) - num,
        ),
    )


@torch.no_grad()
def _read(
    loader: Loader, sampler: Sampler, places: Drawn, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Each place once: future images, which views there are, instructions, states."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    states: list[Tensor] = []
    workers = max(1, loader.recipe.run.num_workers)
    for batch in loader.at(places, batch_size=READ_AT_ONCE, num_workers=workers):
        inputs = tensors_mapped(batch.text_inputs, lambda x: x.to(device))
        instruction = mean_of(sampler.encode_text(inputs)).cpu()
        parts.append((batch.future, batch.has_future, instruction))
        if batch.known.state is not None:
            states.append(batch.known.state)
    future, has_future, instruction = (torch.cat(each) for each in zip(*parts, strict=True))
    return future, has_future, instruction, torch.cat(states) if states else None


def train_head(
    head: ValueHead,
    samples: LabelledSamples,
    settings: ValueSettings,
    device: torch.device,
    progress: Callable[[int], None],
) -> None:
    """Cross-entropy with the target as the chance of success: its minimum is the mean of the target."""
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.num_steps)
    order = torch.from_numpy(_order(len(samples), settings))
    for step, which in enumerate(torch.split(order, settings.batch_size), 1):
        logits = samples.logits(head, which, device)
        loss = fn.binary_cross_entropy_with_logits(logits, samples.target[which].to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(step)


def _order(num: int, settings: ValueSettings) -> npt.NDArray[np.int64]:
    """[steps * batch] samples, each once before any comes again."""
    rng = np.random.default_rng([settings.seed, Purpose.VALUE_ORDER])
    count = settings.num_steps * settings.batch_size
    passes = [rng.permutation(num) for _ in range(-(-count // num))]
    return np.concatenate(passes)[:count]


@torch.no_grad()
def scores_of(
    head: ValueHead, samples: LabelledSamples, *, mean: float, split: str, device: torch.device
) -> ValueScores:
    """How well the head orders and hits the targets of samples.

    Args:
        mean: of the targets of training, the constant that the head is compared with.
    """
    parts = torch.split(torch.arange(len(samples)), READ_AT_ONCE)
    logits = torch.cat([samples.logits(head, which, device).cpu() for which in parts])
    value, target = torch.sigmoid(logits.double()).numpy(), samples.target.double().numpy()
    succeeds = samples.succeeds
    return ValueScores(
        split=split,
        num_samples=len(samples),
        num_episodes=len(np.unique(samples.uid)),
        mse=float(np.square(value - target).mean()),
        mse_of_mean=float(np.square(mean - target).mean()),
        rank_correlation=_rank_correlation(value, target),
        rank_correlation_succeeded=_rank_correlation(value[succeeds], target[succeeds]),
    )


def _rank_correlation(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float | None:
    if len(np.unique(a)) < 2 or len(np.unique(b)) < 2:
        return None
    return float(spearmanr(a, b).statistic)
