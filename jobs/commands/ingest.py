"""`eicorpus ingest [SOURCE] PATH --out CORPUS`: plan, run with live progress, and print a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from ingest.corpus import snapshot
from ingest.corpus.layout import MARKER, open_corpus, open_or_create
from ingest.corpus.writer import writing
from ingest.executors.inline import Executor, InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.executors.ray import RayExecutor
from ingest.pipeline.plan import Request, make_plan
from ingest.pipeline.run import beyond_allowance, ingest
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from jobs.commands.source import source_at
from jobs.machine import usable_cores
from jobs.ray_token import require_token
from jobs.run_context import new_corpus_uid, new_run
from jobs.ui.ingest_report import IngestProgress, plan_as_json, report, show_plan, show_report
from jobs.ui.options import (
    CORPUS_ENV,
    AdapterOptions,
    AsJson,
    CameraPoses,
    DatasetName,
    DryRun,
    IngestConfig,
    ManoDevice,
    ManoDir,
    OnRay,
    RawPath,
    RayAddress,
    SourceArgument,
    UrdfFile,
    Workers,
    assets_from,
)
from jobs.ui.output import answer_json, exit_1, warn
from schemas.errors import ConfigError
from schemas.invalid import invalid
from schemas.yaml_text import read_yaml


def recipe_from(path: Path | None) -> Recipe:
    """The default recipe with the changes of a YAML file.

    Raises:
        ConfigError: the file is missing or is not YAML, or a field is unknown or invalid.
    """
    if path is None:
        return Recipe()
    try:
        return Recipe.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        raise ConfigError(f"not a recipe: {invalid(error, Recipe)}", where=str(path)) from error


def options_from(pairs: list[str], dataset: str | None) -> dict[str, str]:
    """`key=value` pairs of `--option`, and the name of `--dataset`."""
    out = {"set": dataset} if dataset else {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--option {pair!r}: expected key=value")
        out[key] = value
    return out


def command(
    source: SourceArgument,
    path: RawPath,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="CORPUS", envvar=CORPUS_ENV, help="Corpus folder. Created if missing."
        ),
    ],
    workers: Workers = None,
    ray: OnRay = False,
    address: RayAddress = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ingest at most N episodes.")] = None,
    select: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Ingest only matching episode ids.")
    ] = None,
    dataset: DatasetName = None,
    option: AdapterOptions = None,
    config: IngestConfig = None,
    mano_dir: ManoDir = None,
    mano_device: ManoDevice = "cpu",
    urdf: UrdfFile = None,
    camera_poses: CameraPoses = None,
    dry_run: DryRun = False,
    retry_crash_looping: Annotated[
        bool,
        typer.Option(
            "--retry-crash-looping",
            help="Retry episodes quarantined as worker_died, time_limit or out_of_memory.",
        ),
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Ingest episodes again that `forget` erased.")
    ] = False,
    time_limit_s: Annotated[
        float, typer.Option("--time-limit-s", help="Time limit of one episode.")
    ] = 1800.0,
    memory_limit_mb: Annotated[
        int, typer.Option("--memory-limit-mb", help="Memory limit of one worker, in MiB.")
    ] = 4096,
    max_quarantined: Annotated[
        float,
        typer.Option(
            help="Exit 1 if more than this share of the downloaded episodes is quarantined (its data have a defect)."
        ),
    ] = 0.2,
    max_failed: Annotated[
        float,
        typer.Option(
            help="Exit 1 if more than this share of the downloaded episodes fails (an error of the machine or of eicorpus)."
        ),
    ] = 0.0,
    moved: Annotated[
        bool, typer.Option("--moved", help="The raw data has moved to PATH since the last run.")
    ] = False,
    decoder_threads: Annotated[
        int, typer.Option(min=1, help="Video decoder threads of one episode.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Convert raw data and add it to a corpus. Run it again to resume."""
    options = options_from(option or [], dataset)
    request = Request(
        source=source_at(source, path, options, "ingest", "--out", str(out)),
        root=path.absolute(),
        options=options,
        recipe=recipe_from(config),
        limit=limit,
        select=select,
        retry_crash_looping=retry_crash_looping,
        restore=restore,
        has_moved=moved,
        assets=assets_from(mano_dir, mano_device, urdf, camera_poses),
    )
    refuse_nesting(request.root, out.absolute())
    limits = limits_from(
        time_limit_s=time_limit_s,
        memory_limit_mib=memory_limit_mb,
        max_quarantined_ratio=max_quarantined,
        max_failed_ratio=max_failed,
        threads_per_episode=decoder_threads,
    )
    count = usable_cores() if workers is None else workers
    if dry_run:
        _dry_run(request, out, count, as_json=as_json)
        return
    executor = executor_for(
        limits, workers=count, use_ray=ray or address is not None, address=address
    )
    run(request, out, executor, limits, workers=count, as_json=as_json)


def refuse_nesting(root: Path, out: Path) -> None:
    """A corpus inside the raw data would be read as raw data by the next run, and the other way round."""
    root, out = root.resolve(), out.resolve()
    if root == out or root in out.parents or out in root.parents:
        raise ConfigError(
            "the corpus must not be inside the raw data, nor the raw data inside the corpus",
            remedy="choose another --out",
            where=str(out),
        )


def limits_from(**values: float) -> Limits:
    """Limits from the command line's numbers."""
    try:
        return Limits.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"limits: {invalid(error, Limits)}") from error


def executor_for(limits: Limits, *, workers: int, use_ray: bool, address: str | None) -> Executor:
    """Ray if requested, else worker processes, else (0 workers) this process."""
    if use_ray:
        if address is None:
            require_token()
        on_ray = RayExecutor(limits, address=address, workers=max(workers, 1), notify=warn)
        on_ray.connect()  # before a corpus is touched: a wrong address is the caller's mistake
        return on_ray
    return LocalExecutor(workers, limits) if workers else InlineExecutor()


def run(
    request: Request, out: Path, executor: Executor, limits: Limits, *, workers: int, as_json: bool
) -> None:
    """Plan and run against the corpus at `out`, show progress, print the report, and exit with 1 beyond the allowance."""
    disk = LocalStorage(out.absolute())
    # A wrong source or path must leave nothing behind: a new corpus is created only for a valid plan.
    plan = None if (out / MARKER).is_file() else make_plan(request, None, snapshot.Snapshot())
    corpus = open_or_create(
        out.absolute(), uid=new_corpus_uid(), recipe_digest=request.recipe.digest, disk=disk
    )
    with writing(corpus, disk, block_recovers=True):
        current = snapshot.load(corpus.root)
        if plan is None or current.number:
            plan = make_plan(request, corpus, current)
        if not as_json:
            show_plan(plan, workers)
        started = time.monotonic()
        with IngestProgress(plan) as live:
            tally = ingest(
                request,
                plan,
                corpus=corpus,
                current=current,
                executor=executor,
                limits=limits,
                context=new_run(live.update),
                disk=disk,
            )
        elapsed_s = time.monotonic() - started
    failure = "; ".join(beyond_allowance(tally, limits))
    if as_json:
        excluded = {"excluded_nodes": excluded_nodes(executor)}
        answer_json(report(tally, plan, out, elapsed_s) | excluded, failure)
    else:
        show_report(tally, out, elapsed_s)
    if failure:
        exit_1(failure)


def excluded_nodes(executor: Executor) -> list[str]:
    """Nodes of a cluster that got no work, with the reason; none on one machine."""
    return list(executor.excluded.values()) if isinstance(executor, RayExecutor) else []


def _dry_run(request: Request, out: Path, workers: int, *, as_json: bool) -> None:
    corpus = open_corpus(out) if (out / MARKER).is_file() else None
    current = snapshot.load(out) if corpus else snapshot.Snapshot()
    plan = make_plan(request, corpus, current)
    if as_json:
        answer_json(plan_as_json(plan, workers))
    else:
        show_plan(plan, workers)
