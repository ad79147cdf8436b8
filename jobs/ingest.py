"""`eicorpus ingest SOURCE PATH --out CORPUS`: plan, run with live progress, and a report that adds up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from adapters.registry import resolved
from ingest.corpus import snapshot
from ingest.corpus.layout import MARKER, open_corpus, open_or_create
from ingest.corpus.writing import writing
from ingest.executors.inline import Executor, InlineExecutor
from ingest.executors.local import LocalExecutor
from ingest.executors.ray import RayExecutor
from ingest.pipeline.plan import Request, make_plan
from ingest.pipeline.run import Tally, beyond_allowance, ingest
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage
from jobs.assets import CameraPoses, ManoDevice, ManoDir, UrdfFile, assets_from
from jobs.cores import usable_cores
from jobs.ingest_report import Live, plan_as_json, report, show_plan, show_report
from jobs.options import SOURCE_HELP
from jobs.output import answer_json, exit_1, warn
from jobs.ray_token import require_token
from jobs.run_context import new_corpus_uid, new_run
from schemas.errors import ConfigError
from schemas.invalid import invalid
from schemas.yaml_text import read_yaml


def recipe_from(path: Path | None) -> Recipe:
    """The default recipe with what a YAML file changes.

    Raises:
        ConfigError: no such file, no YAML, or a field that does not exist or fit.
    """
    if path is None:
        return Recipe()
    try:
        return Recipe.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        raise ConfigError(f"not a recipe: {invalid(error, Recipe)}", where=str(path)) from error


def options_from(pairs: list[str]) -> dict[str, str]:
    """`key=value` pairs of `--option`."""
    out = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--option {pair!r}: expected key=value")
        out[key] = value
    return out


def command(
    source: Annotated[str, typer.Argument(help=SOURCE_HELP)],
    path: Annotated[Path, typer.Argument(help="Where the raw data is.")],
    out: Annotated[Path, typer.Option("--out", help="The corpus; made when absent.")],
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0 works inline. Default: all cores.")
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Run on Ray instead.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Join this Ray cluster (`auto` inside one).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many episodes.")] = None,
    select: Annotated[str | None, typer.Option(help="Glob on the episode id.")] = None,
    set_name: Annotated[
        str | None, typer.Option("--set", help="Set within the source (oxe), if its metadata lies.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the adapter, key=value; repeatable.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML that changes the recipe.")] = None,
    mano_dir: ManoDir = None,
    mano_device: ManoDevice = "cpu",
    urdf: UrdfFile = None,
    camera_poses: CameraPoses = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan only; touch nothing.")] = False,
    retry_poison: Annotated[
        bool, typer.Option("--retry-poison", help="Try episodes that killed a worker again.")
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Bring back what `eicorpus forget` erased.")
    ] = False,
    time_limit: Annotated[float, typer.Option(help="Seconds one episode may take.")] = 1800.0,
    memory_limit: Annotated[int, typer.Option(help="MiB one worker may use.")] = 4096,
    max_quarantined: Annotated[
        float, typer.Option(help="Share of the episodes present that may be quarantined, exit 0.")
    ] = 0.2,
    max_failed: Annotated[
        float, typer.Option(help="Share of the episodes present that may fail, exit 0.")
    ] = 0.0,
    moved: Annotated[
        bool, typer.Option("--moved", help="The same raw data, now in another place.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1, help="Decoder threads of an episode.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Bring raw data into a corpus. Run it again after any stop: it resumes."""
    options = options_from(option or []) | ({"set": set_name} if set_name else {})
    request = Request(
        source=resolved(source, Path.cwd()),
        root=path.absolute(),
        options=options,
        recipe=recipe_from(recipe),
        limit=limit,
        select=select,
        retry_poison=retry_poison,
        restore=restore,
        has_moved=moved,
        assets=assets_from(mano_dir, mano_device, urdf, camera_poses),
    )
    refuse_nesting(request.root, out.absolute())
    limits = limits_from(
        time_limit_s=time_limit,
        memory_limit_mib=memory_limit,
        max_quarantined_ratio=max_quarantined,
        max_failed_ratio=max_failed,
        threads_per_episode=threads,
    )
    count = usable_cores() if workers is None else workers
    if dry_run:
        _dry_run(request, out, count, as_json=as_json)
        return
    executor = executor_for(
        limits, workers=count, use_ray=ray or address is not None, address=address
    )
    tally = run(request, out, executor, limits, workers=count, as_json=as_json)
    if reasons := beyond_allowance(tally, limits):
        exit_1("; ".join(reasons))


def refuse_nesting(root: Path, out: Path) -> None:
    """A corpus inside the raw data would be found as raw data by the next run, and the other way round."""
    root, out = root.resolve(), out.resolve()
    if root == out or root in out.parents or out in root.parents:
        raise ConfigError("raw data and corpus must not lie inside each other", where=str(out))


def limits_from(**values: float) -> Limits:
    """Limits from the command line's numbers."""
    try:
        return Limits.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"limits: {invalid(error, Limits)}") from error


def executor_for(limits: Limits, *, workers: int, use_ray: bool, address: str | None) -> Executor:
    """Ray when asked for, else processes, else (0 workers) this very process."""
    if use_ray:
        if address is None:
            require_token()
        on_ray = RayExecutor(limits, address=address, workers=max(workers, 1), notify=warn)
        on_ray.connect()  # before a corpus is touched: a wrong address is the caller's mistake
        return on_ray
    return LocalExecutor(workers, limits) if workers else InlineExecutor()


def run(
    request: Request, out: Path, executor: Executor, limits: Limits, *, workers: int, as_json: bool
) -> Tally:
    """Plan and run against the corpus at `out`, telling people on the way; prints the closing report."""
    disk = LocalStorage(out.absolute())
    # A wrong source or path must leave nothing behind, so a new corpus is made only for a plan that stands.
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
        with Live(plan) as live:
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
    if as_json:
        answer_json(
            report(tally, plan, out, elapsed_s) | {"excluded_nodes": excluded_nodes(executor)}
        )
    else:
        show_report(tally, out, elapsed_s)
    return tally


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
