"""`eicorpus ingest [SOURCE] PATH --out CORPUS`: plan, run with live progress, and print a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.corpus.remote_link import address_of, is_working_copy
from ingest.pipeline.cost import ingest_cost
from ingest.pipeline.plan import Plan, Request
from ingest.recipe import Limits
from jobs.commands.source import source_at
from jobs.stages.ingest import (
    IngestResult,
    plan_ingest,
    recipe_from,
    run_ingest,
)
from jobs.stages.raw_data import raw_data
from jobs.stages.request_checks import refuse_nesting
from jobs.stages.resources import Resources, limits_from
from jobs.ui.ingest_report import (
    cost_as_json,
    plan_as_json,
    report,
    show_cost,
    show_plan,
    show_report,
)
from jobs.ui.options import (
    CACHE_FOLDER,
    CACHE_GB,
    CORPUS_ENV,
    AdapterOptions,
    AsJson,
    BucketUse,
    CacheFolder,
    CacheSize,
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
from jobs.ui.output import answer_json, exit_1
from schemas.errors import ConfigError


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
            "--out",
            metavar="CORPUS",
            envvar=CORPUS_ENV,
            help="Corpus folder, or its URI (s3://, gs://, az://). Created if missing.",
        ),
        BucketUse.CREATES,
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
            help="Retry episodes quarantined because workers died: worker_died, time_limit, out_of_memory, oom_killed, node_*.",
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
    cache_dir: CacheFolder = CACHE_FOLDER,
    cache_gb: CacheSize = CACHE_GB,
    as_json: AsJson = False,
) -> None:
    """Convert raw data and add it to a corpus. Run it again to resume."""
    options = options_from(option or [], dataset)
    limits = limits_from(
        time_limit_s=time_limit_s,
        memory_limit_mib=memory_limit_mb,
        max_quarantined_ratio=max_quarantined,
        max_failed_ratio=max_failed,
        threads_per_episode=decoder_threads,
    )
    resources = Resources(workers=workers, use_ray=ray, address=address)
    with raw_data(path, cache_dir.expanduser(), cache_gb) as raw:
        more = ("--out", str(out))
        request = Request(
            source=source_at(source, raw.root, options, "ingest", *more, uri=raw.uri or path),
            root=raw.root,
            options=options,
            recipe=recipe_from(config),
            limit=limit,
            select=select,
            retry_crash_looping=retry_crash_looping,
            restore=restore,
            has_moved=moved,
            assets=assets_from(mano_dir, mano_device, urdf, camera_poses),
            uri=raw.uri,
            bucket=raw.bucket,
        )
        refuse_nesting(request.root, out.absolute())
        _ingest(request, out, resources, limits, is_dry_run=dry_run, as_json=as_json)


def _ingest(
    request: Request,
    out: Path,
    resources: Resources,
    limits: Limits,
    *,
    is_dry_run: bool,
    as_json: bool,
) -> None:
    count = resources.num_workers
    if is_dry_run:
        _dry_run(request, out, resources, limits, as_json=as_json)
        return

    def tell(plan: Plan) -> None:
        if not as_json:
            show_plan(plan, count)

    done = run_ingest(request, out, resources.executor(limits), limits, on_plan=tell)
    _show(done, address_of(out), as_json=as_json)


def _dry_run(
    request: Request, out: Path, resources: Resources, limits: Limits, *, as_json: bool
) -> None:
    plan, workers = plan_ingest(request, out), resources.num_workers
    uploads = resources.use_ray and is_working_copy(out)
    cost = ingest_cost(plan, request, limits, workers_upload=uploads)
    if as_json:
        answer_json(plan_as_json(plan, workers) | {"cost": cost_as_json(cost)})
    else:
        show_plan(plan, workers)
        show_cost(cost)


def _show(done: IngestResult, out: str, *, as_json: bool) -> None:
    """Print the report, and exit with 1 beyond the allowance."""
    if as_json:
        excluded = {"excluded_nodes": done.excluded_nodes}
        answer_json(report(done.tally, done.plan, out, done.elapsed_s) | excluded, done.failure)
    else:
        show_report(done.tally, out, done.elapsed_s)
    if done.failure:
        exit_1(done.failure)
