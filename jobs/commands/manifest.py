"""`eicorpus manifest build | show | diff | verify`: the input of training. The page: docs/how-to/manifests.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus, uid_of
from ingest.corpus.manifest_folders import existing, manifest_folder, publish
from ingest.curation.captions.select import TextPolicy
from ingest.curation.duplicates.leakage import leakage_report
from ingest.curation.manifests.action_stats import Selection, num_missing, selection, statistics
from ingest.curation.manifests.building import building
from ingest.curation.manifests.manifest import Built, ManifestRequest, build
from ingest.curation.manifests.mixture_text import load_mixture
from ingest.curation.manifests.splits import SplitBy
from ingest.curation.tiers.policy import load_policy
from ingest.executors.inline import Executor
from ingest.storage.local import LocalStorage
from jobs.commands.ingest import executor_for, limits_from
from jobs.commands.manifest_look import LIMITS, diff_command, show_command, verify_command
from jobs.machine import usable_cores
from jobs.ui.manifest_report import as_object, show_facts, warn_of_no_latents
from jobs.ui.options import (
    AsJson,
    CorpusArgument,
    DryRun,
    ManifestName,
    OnRay,
    PolicyName,
    RayAddress,
    Snapshot,
    Workers,
)
from jobs.ui.output import answer_json, progress_of, stdout
from schemas.errors import ConfigError
from schemas.manifest import ManifestFacts, has_latents
from schemas.split import Shares

FEW_SEGMENTS = 500  # at 3 ms each: processes would take longer to start

app = typer.Typer(
    no_args_is_help=True, help="Build, show, compare and verify manifests, the input of training."
)


@app.command("build")
def build_command(
    corpus: CorpusArgument,
    name: ManifestName,
    where: Annotated[
        str,
        typer.Option(
            "--where",
            metavar="SQL",
            help="SQL expression over episodes, tier, start and end that selects segments.",
        ),
    ] = "",
    policy: PolicyName = None,
    mixture: Annotated[
        Path | None,
        typer.Option("--mixture", metavar="YAML", help="File with sampling weights of groups."),
    ] = None,
    split_by: Annotated[
        SplitBy, typer.Option("--split-by", help="Keep each of these groups within one split.")
    ] = SplitBy.AUTO,
    val: Annotated[float, typer.Option(help="Share of groups used for validation.")] = 0.02,
    test: Annotated[float, typer.Option(help="Share of groups used for testing.")] = 0.02,
    keep_source_splits: Annotated[
        bool,
        typer.Option(
            "--keep-source-splits/--ignore-source-splits",
            help="Keep the val and test splits of a source out of train.",
        ),
    ] = True,
    text: Annotated[
        TextPolicy, typer.Option(help="Instruction text: from the source, or a caption.")
    ] = TextPolicy.BEST,
    with_snapshot: Snapshot = None,
    stats: Annotated[bool, typer.Option(help="Compute normalisation statistics.")] = True,
    dry_run: DryRun = False,
    workers: Workers = None,
    ray: OnRay = False,
    address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Select segments, assign splits and weights, and save an immutable manifest. Same inputs, same digest."""
    if split_by is SplitBy.SOURCE and not keep_source_splits:
        raise ConfigError("--split-by source cannot be combined with --ignore-source-splits")
    request = ManifestRequest(
        name=name,
        where=where,
        policy=load_policy(policy) if policy else None,
        mixture=load_mixture(mixture),
        split_by=split_by,
        shares=shares_from(val, test),
        keeps_source_splits=keep_source_splits,
        text_policy=text,
    )
    opened = open_corpus(corpus)
    manifest_folder(opened.root, name)  # an invalid name is refused before any work
    started = time.monotonic()
    with Catalog.open(opened.root, snapshot=with_snapshot, limits=LIMITS) as catalog:
        built = build(catalog, request, uid_of(opened))
        shared = leakage_report(catalog, built.rows)
    facts, is_new = built.facts, False
    if not dry_run:
        published = existing(opened.root, facts)
        if stats and published is not None and published.statistics is None:
            problem = f"{name} was published without statistics, and manifests are immutable"
            raise ConfigError(problem, remedy="choose another name, or add --no-stats")
        is_new = published is None

        def executor_of(num_segments: int) -> Executor:
            use_ray = ray or address is not None
            usual = 0 if num_segments < FEW_SEGMENTS and not use_ray else usable_cores()
            return executor_for(
                limits_from(),
                workers=usual if workers is None else workers,
                use_ray=use_ray,
                address=address,
            )

        facts = published or _published(opened, built, executor_of if stats else None)
    answer = as_object(facts) | {
        "folder": None if dry_run else str(manifest_folder(opened.root, name)),
        "published": is_new,
        "shared_recordings": shared.as_object(),
        "elapsed_s": round(time.monotonic() - started, 3),
    }
    if not has_latents(built.rows):
        warn_of_no_latents(facts, opened.root)
    if as_json:
        answer_json(answer)
        return
    show_facts(facts, opened.root)
    outcome = "dry run: nothing was changed" if dry_run else "published" if is_new else "unchanged"
    stdout.print(f"\n{outcome}: {facts.rows_sha256}", highlight=False)
    stdout.print(shared.note(opened.root), markup=False, highlight=False)


def shares_from(val: float, test: float) -> Shares:
    """Raises ConfigError for shares that leave nothing to train."""
    try:
        return Shares(val=val, test=test)
    except ValueError as error:
        raise ConfigError(str(error), where="--val, --test") from error


def _published(
    corpus: CorpusLayout, built: Built, on: Callable[[int], Executor] | None
) -> ManifestFacts:
    facts, disk = built.facts, LocalStorage(corpus.root)
    with building(corpus.root, disk):
        if on is not None:
            current = snapshot.load(corpus.root, facts.snapshot)
            chosen = selection(corpus.root, current, built.rows)
            update = {"statistics": _statistics(chosen, on, disk)}
            facts = facts.model_copy(update=update)
        publish(corpus.root, facts, built.rows, disk)
    return facts


def _statistics(chosen: Selection, on: Callable[[int], Executor], disk: LocalStorage) -> Any:
    count = num_missing(chosen)
    with progress_of("statistics", count) as advance:
        return statistics(chosen, on(count), disk, progress=advance)


app.command("show")(show_command)
app.command("diff")(diff_command)
app.command("verify")(verify_command)
