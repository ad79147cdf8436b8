"""`eicorpus manifest build | show | diff | verify`: the input of training. The page: docs/how-to/manifests.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.captions.select import TextPolicy
from ingest.curation.manifests.manifest import ManifestRequest
from ingest.curation.manifests.mixture_text import load_mixture
from ingest.curation.manifests.split_by import SplitBy
from ingest.curation.tiers.policy import load_policy
from jobs.commands.manifest_look import diff_command, show_command, verify_command
from jobs.stages.manifest import (
    ManifestResult,
    read_uids,
    run_manifest,
    where_of,
)
from jobs.stages.request_checks import shares_from
from jobs.stages.resources import Resources
from jobs.ui.manifest_report import as_object, show_facts, warn_of_no_latents
from jobs.ui.options import (
    AsJson,
    CorpusWithFiles,
    DryRun,
    ManifestName,
    OnRay,
    PolicyName,
    RayAddress,
    Snapshot,
    Workers,
)
from jobs.ui.output import answer_json, stdout, warn
from schemas.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True, help="Build, show, compare and verify manifests, the input of training."
)


@app.command("build")
def build_command(
    corpus: CorpusWithFiles,
    name: ManifestName,
    where: Annotated[
        str,
        typer.Option(
            "--where",
            metavar="SQL",
            help="SQL expression over episodes, tier, start and end that selects segments.",
        ),
    ] = "",
    uids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the uid of an episode on each line. - reads standard input.",
        ),
    ] = None,
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
    opened = open_corpus(corpus)
    named = [] if uids is None else read_uids(uids)
    if named:  # one snapshot knows them and has their rows
        with_snapshot = snapshot.load(opened.root, with_snapshot).number
        where = where_of(opened, named, where, with_snapshot)
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
    done = run_manifest(
        opened,
        request,
        Resources(workers=workers, use_ray=ray, address=address),
        with_snapshot=with_snapshot,
        with_statistics=stats,
        dry_run=dry_run,
    )
    if not done.has_latents:
        warn_of_no_latents(done.facts, opened.root)
    left_out = max(len(named) - done.facts.num_episodes, 0)
    if left_out:
        warn(f"{left_out:,} of {len(named):,} named episodes have no segment in the manifest")
    if as_json:
        answer_json(_answer(done) | ({"named_left_out": left_out} if named else {}))
        return
    show_facts(done.facts, opened.root)
    outcome = (
        "dry run: nothing was changed" if dry_run else "published" if done.is_new else "unchanged"
    )
    stdout.print(f"\n{outcome}: {done.facts.rows_sha256}", highlight=False)
    stdout.print(done.shared.note(opened.root), markup=False, highlight=False)


def _answer(done: ManifestResult) -> dict[str, Any]:
    return as_object(done.facts) | {
        "folder": None if done.folder is None else str(done.folder),
        "published": done.is_new,
        "shared_recordings": done.shared.as_object(),
        "elapsed_s": round(done.elapsed_s, 3),
    }


app.command("show")(show_command)
app.command("diff")(diff_command)
app.command("verify")(verify_command)
