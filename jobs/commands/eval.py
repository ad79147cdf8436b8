"""`eicorpus eval RUN`: errors of a policy on held-out segments, and of simple baselines. The page: docs/how-to/evaluate.md."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from jobs.commands.train import check_installed
from jobs.ui.eval_page import (
    COMPARED,
    comparison_rows,
    headline,
    interval_text,
    is_beaten,
    is_whole,
    skills_text,
    verdicts,
)
from jobs.ui.options import (
    ActionsCache,
    AllowsOtherManifest,
    AsJson,
    CheckpointStep,
    ComputePrecision,
    Device,
    OtherManifest,
    RunFolder,
    SamplingSteps,
    UsesAverages,
    VerifiesLatents,
    step_from,
)
from jobs.ui.output import answer_json, exit_1, stderr, stdout, table
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from jobs.ui.tables import FittedTable
    from schemas.manifest import Manifest
    from training.evaluation.evaluate_checkpoint import Evaluated, EvaluationRequest
    from training.evaluation.motion_probe import MotionProbe
    from training.evaluation.summary import Comparison, MetricLine
    from training.run.checkpoint import Checkpoint


def command(
    run: RunFolder,
    manifest: OtherManifest = None,
    allow_other_manifest: AllowsOtherManifest = False,
    checkpoint: CheckpointStep = None,
    split: Annotated[
        Literal["val", "test", "train"], typer.Option(help="Split to evaluate on.")
    ] = "val",
    ema: UsesAverages = False,
    max_samples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Samples per training task (policy, dynamics, forecasting), spread over the split. 0 uses all.",
        ),
    ] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Samples per batch.")] = 64,
    sampling_steps: SamplingSteps = None,
    precision: ComputePrecision = "auto",
    seed: Annotated[int, typer.Option(help="Seed of sampling noise and bootstrap.")] = 0,
    device: Device = "auto",
    cache: ActionsCache = None,
    verify_latents: VerifiesLatents = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write an HTML page with figures.")
    ] = None,
    must_beat: Annotated[
        list[str] | None,
        typer.Option(metavar="BASELINE", help="Exit 1 if this baseline is not beaten. Repeatable."),
    ] = None,
    clearly: Annotated[
        bool,
        typer.Option(
            "--clearly",
            help="With --must-beat: the 95 % interval of the improvement must exclude zero.",
        ),
    ] = False,
    details: Annotated[
        bool,
        typer.Option("--details", help="Also show results by embodiment and tier."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a run offline on segments of a split (default: val) against simple baselines."""
    check_installed()
    from jobs.stages.latent_place import latent_place
    from training.evaluation.evaluate_checkpoint import (
        EvaluationRequest,  # torch: the base works without it
    )

    _check_known(must_beat or [])
    request = EvaluationRequest(
        split=split,
        use_averages=ema,
        max_samples=max_samples or None,
        batch_size=batch,
        num_steps=sampling_steps,
        precision=None if precision == "auto" else precision,
        seed=seed,
        may_be_other_manifest=allow_other_manifest,
        num_shown=4 if html else 0,
        verify_latents=verify_latents,
        place=latent_place(manifest or manifest_of(run)),
    )
    asked = Asked(
        run=run,
        checkpoint=checkpoint,
        manifest=manifest,
        request=request,
        device=device,
        cache=cache,
    )
    if not asked.has_policy:
        if must_beat or html is not None:
            problem = "this run is of a latent action model, which has no errors of actions"
            raise ConfigError(problem, remedy="remove --must-beat and --html", where=str(run))
        _tell_latent_actions(asked, as_json=as_json)
        return
    about, evaluated = _evaluated(asked)
    actions, not_probed = _probed(asked)
    if html is not None:
        from jobs.ui.eval_page import write_page

        write_page(html, about, evaluated)
    failure = not_beaten(must_beat or [], evaluated.comparisons, clearly=clearly)
    if as_json:
        more: dict[str, object] = {}
        if actions is not None:
            more["latent_actions"] = actions.as_object()
        elif not_probed:
            more["latent_actions_left_out"] = not_probed
        answer_json(about | _content(evaluated) | more, failure)
    else:
        _show(about, evaluated, must_beat or [], clearly=clearly, has_details=details)
        if actions is not None:
            show_latent_actions(actions)
        elif not_probed:
            stderr.print(
                f"latent actions are not probed: {not_probed}", style="yellow", markup=False
            )
    if failure:
        exit_1(failure)


def _check_known(baselines: Sequence[str]) -> None:
    from training.evaluation.summary import BASELINES

    if odd := sorted(set(baselines) - set(BASELINES)):
        known = ", ".join(BASELINES)
        raise ConfigError(f"no baseline {odd[0]!r}; expected one of {known}", where="--must-beat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which checkpoint is evaluated, on what, and where. Opening raises ConfigError."""

    run: Path
    checkpoint: str | None
    manifest: Path | None
    request: EvaluationRequest
    device: str
    cache: Path | None

    @property
    def opened(self) -> Checkpoint:
        from training.run.checkpoint import checkpoint_of

        return checkpoint_of(self.run, step_from(self.checkpoint))

    @property
    def has_policy(self) -> bool:
        from training.policy.restored import has_policy

        return has_policy(self.opened)

    @property
    def segments(self) -> Manifest:
        from schemas.manifest import load

        return load(self.manifest or manifest_of(self.run))


def _latent_actions(asked: Asked) -> MotionProbe | None:
    """Of a run with LARA."""
    from training.evaluation.evaluate_checkpoint import latent_actions_probed
    from training.run.parallel import Ranks, device_for

    return latent_actions_probed(
        asked.segments,
        asked.opened,
        asked.request,
        device=device_for(Ranks(), asked.device),
        cache=asked.cache,
    )


def _probed(asked: Asked) -> tuple[MotionProbe | None, str]:
    """Of a run that has a policy, and why not where its latent actions cannot be probed: the errors of its policy stand all the same."""
    from training.evaluation.evaluate_checkpoint import FITTED
    from training.evaluation.motion_probe import NothingToProbe

    if asked.request.split == FITTED:
        return None, ""
    try:
        return _latent_actions(asked), ""
    except NothingToProbe as error:
        return None, str(error)


def _tell_latent_actions(asked: Asked, *, as_json: bool) -> None:
    """Of a run that has nothing else."""
    opened = asked.opened
    with stderr.status("evaluating"):
        actions = _latent_actions(asked)
    assert actions is not None  # it has no policy, so it has these
    about = {
        "run": str(asked.run),
        "step": opened.state.step,
        "manifest": opened.state.manifest_name,
        "split": asked.request.split,
    }
    if as_json:
        answer_json(about | {"latent_actions": actions.as_object()})
    else:
        show_latent_actions(actions)


def _evaluated(asked: Asked) -> tuple[dict[str, Any], Evaluated]:
    """A description of the evaluation, and its results."""
    from training.evaluation.evaluate_checkpoint import held_out
    from training.run.parallel import Ranks, device_for

    opened, run, request = asked.opened, asked.run, asked.request
    started = time.monotonic()
    with stderr.status("evaluating") as status:
        evaluated = held_out(
            asked.segments,
            opened,
            request,
            device=device_for(Ranks(), asked.device),
            cache=asked.cache,
            progress=lambda task, done, whole: status.update(
                f"{task}: {done:,} of {whole:,} samples"
            ),
        )
    about = {
        "run": str(run),
        "step": opened.state.step,
        "averaged": request.use_averages,
        "precision": evaluated.precision,
        "manifest": opened.state.manifest_name,
        "split": request.split,
        "max_samples": request.max_samples,
        "num_samples": {task.value: num for task, num in evaluated.num_samples.items()},
        "elapsed_s": round(time.monotonic() - started, 3),
    }
    return about, evaluated


def _content(evaluated: Evaluated) -> dict[str, Any]:
    """For JSON."""
    return {
        "comparisons": {name: each.as_object() for name, each in evaluated.comparisons.items()},
        "action_t_s": evaluated.action_t_s.tolist(),
        "lines": [line.as_object() for line in evaluated.lines],
    }


def not_beaten(
    names: Sequence[str], comparisons: Mapping[str, Comparison], *, clearly: bool
) -> str:
    """The baselines of `names` that are not beaten, by the mean or (`clearly`) by the whole interval; or nothing."""
    lost = [
        f"{name} ({comparisons[name].answer})"
        for name in names
        if not is_beaten(comparisons[name], clearly=clearly)
    ]
    return f"baselines not beaten: {', '.join(lost)}" if lost else ""


def manifest_of(run: Path) -> Path:
    """The manifest that a run was trained on.

    Raises:
        ConfigError: no run, or its manifest is not there any more.
    """
    from training.run.run_folder import load_run

    begun = load_run(run)
    if begun is None:
        raise ConfigError(
            "no run.json", remedy="pass a run directory of `eicorpus train`", where=str(run)
        )
    folder = Path(begun[0].manifest)
    if not folder.is_dir():
        problem = f"the run was trained on {folder}, which does not exist"
        raise ConfigError(problem, remedy="add --manifest CORPUS/manifests/NAME", where=str(run))
    return folder


def _show(
    about: dict[str, Any],
    evaluated: Evaluated,
    must_beat: Sequence[str],
    *,
    clearly: bool,
    has_details: bool,
) -> None:
    """The verdict, then one line for each task and metric; the rest where it is asked for."""
    for line in [
        headline(about, evaluated.comparisons),
        *verdicts(must_beat, evaluated.comparisons, clearly),
    ]:
        stdout.print(line, markup=False, highlight=False)
    whole = [line for line in evaluated.lines if is_whole(line)]
    stdout.print(_errors("\nerrors", whole))
    if not has_details:
        heading = "\nuse --details for results by embodiment and tier, and all intervals"
        stdout.print(heading, markup=False, highlight=False)
        return
    parts = [line for line in evaluated.lines if not is_whole(line)]
    stdout.print(_errors("\nerrors by embodiment and tier", parts))
    stdout.print(table("\nbaselines", [*COMPARED], comparison_rows(evaluated.comparisons)))


def show_latent_actions(actions: MotionProbe) -> None:
    """What they tell of motion, and of the later picture."""
    rows = [
        [name.replace("_", " "), f"{each.value:.3f}", interval_text(each)]
        for name, each in actions.r2.items()
    ]
    title = f"\nmotion explained by a linear probe: {actions.num_scored} samples of {actions.num_episodes} episodes"
    stdout.print(table(title, ["probe of", "R2", "95 %"], rows))
    line = (
        f"error of the later picture: {actions.reconstruction:.3f} of that of the picture of now, {actions.reconstruction_with_other:.3f} with the latent "
        f"action of another sample; codes in use (perplexity): {actions.perplexity:.1f}"
    )
    stdout.print(line, markup=False, highlight=False)


def _errors(title: str, lines: Sequence[MetricLine]) -> FittedTable:
    columns = ["task", "embodiment", "tier", "metric", "episodes", "error", "95 %", "better by"]
    rows = [
        [
            line.task,
            line.embodiment,
            line.tier,
            line.metric,
            line.num_episodes,
            f"{line.model.value:.4g}",
            interval_text(line.model),
            skills_text(line),
        ]
        for line in lines
    ]
    return table(title, columns, rows)
