"""`eicorpus train-value RUN`: a value head for `serve-policy --plan` and `rollout --plan`. The page: docs/how-to/rollout.md."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.commands.eval import manifest_of
from jobs.commands.train import check_installed
from jobs.ui.options import (
    ActionsCache,
    AllowsOtherManifest,
    AsJson,
    CheckpointStep,
    Device,
    OtherManifest,
    RunFolder,
    UsesAverages,
    VerifiesLatents,
    step_from,
)
from jobs.ui.output import answer_json, progress_of, stdout

if TYPE_CHECKING:
    from training.value.outcomes import EpisodeLabel


def command(
    run: RunFolder,
    manifest: OtherManifest = None,
    allow_other_manifest: AllowsOtherManifest = False,
    checkpoint: CheckpointStep = None,
    ema: UsesAverages = False,
    target: Annotated[
        Literal["discounted", "progress"],
        typer.Option(
            help="Value of an image t timesteps before the end of an episode that succeeds: the discount to the power of t, or the share of the episode that is over.",
        ),
    ] = "discounted",
    discount: Annotated[
        float, typer.Option(min=0.01, max=0.9999, help="Discount of one timestep.")
    ] = 0.98,
    low_fails: Annotated[
        bool,
        typer.Option(
            "--low-fails",
            help="Count an episode without a success label as failed if a segment has tier low. Default: leave it out.",
        ),
    ] = False,
    max_samples: Annotated[
        int,
        typer.Option(
            min=1, help="Images that are read, spread over the split. They stay in memory."
        ),
    ] = 20_000,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 128,
    lr: Annotated[float, typer.Option(min=1e-8, max=1.0, help="Learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order.")] = 0,
    device: Device = "auto",
    cache: ActionsCache = None,
    verify_latents: VerifiesLatents = False,
    as_json: AsJson = False,
) -> None:
    """Train a value head for planning (`--plan`) on the latents of a run: how near an image is to the end of an episode that succeeds."""
    check_installed()
    from jobs.stages.latent_place import latent_place
    from schemas.manifest import load
    from training.run.checkpoint import checkpoint_of
    from training.run.parallel import Ranks, device_for
    from training.value.fit import ValueRequest, fit
    from training.value.settings import ValueSettings
    from training.value.stored import save_value, value_file

    started = time.monotonic()
    opened = checkpoint_of(run, step_from(checkpoint))
    folder = manifest or manifest_of(run)
    segments = load(folder)
    settings = ValueSettings(
        target=target,
        discount=discount,
        low_fails=low_fails,
        max_samples=max_samples,
        num_steps=steps,
        batch_size=batch,
        lr=lr,
        seed=seed,
    )
    request = ValueRequest(
        settings=settings,
        use_averages=ema,
        may_be_other_manifest=allow_other_manifest,
        verify_latents=verify_latents,
        place=latent_place(folder),
    )
    with progress_of("steps", steps) as progress:
        fitted = fit(
            segments,
            opened,
            labels_of(segments.corpus),
            request,
            device=device_for(Ranks(), device),
            cache=cache,
            progress=progress,
        )
    facts = save_value(opened, fitted.head, fitted.facts)
    path = value_file(opened, is_averaged=ema)
    result = {
        "value": str(path),
        **facts.model_dump(mode="json"),
        "elapsed_s": round(time.monotonic() - started, 3),
    }
    if as_json:
        answer_json(result)
    else:
        for line in result_lines(result):
            stdout.print(line, markup=False, highlight=False)


def labels_of(corpus: Path) -> dict[str, EpisodeLabel]:
    """What the catalog has of each episode's outcome."""
    from ingest.corpus import snapshot
    from training.value.outcomes import EpisodeLabel

    rows = snapshot.load(corpus).read(corpus, "episodes", ["uid", "success", "length"])
    columns = (rows[name].to_pylist() for name in ("uid", "success", "length"))
    return {
        uid: EpisodeLabel(success=success, length=length or 0)
        for uid, success, length in zip(*columns, strict=True)
    }


def result_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    counts, scores = result["counts"], result["scores"]
    yield f"{result['value']}"
    by_label = f"{counts['succeeded']} succeeded and {counts['failed']} failed by label"
    by_tier = f"{counts['succeeded_by_tier']} succeeded and {counts['failed_low']} have low segments by tier"
    yield f"episodes: {by_label}, {by_tier}, {counts['unknown']} unknown"
    left_out = f"{counts['samples_left_out']} of unknown outcome and {counts['samples_beyond']} beyond --max-samples left out"
    yield f"samples: {counts['samples']} used, {left_out}"
    if scores is None:
        yield f"not scored: {result['not_scored']}"
        return
    of = f"{scores['num_samples']} samples of {scores['num_episodes']} episodes of split {scores['split']}"
    error = f"squared error {scores['mse']:.4f} (mean target: {scores['mse_of_mean']:.4f})"
    ranks = ", ".join(
        f"{name} {_number(scores[key])}"
        for name, key in (
            ("rank correlation", "rank_correlation"),
            ("of successes alone", "rank_correlation_succeeded"),
        )
    )
    yield f"{of}: {error}, {ranks}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
