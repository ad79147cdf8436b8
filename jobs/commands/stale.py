"""`eicorpus stale CORPUS`: episodes that this version or another recipe would write differently; latents of other videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adapters.registry import ADAPTERS, adapter_for, adapters_of_packages
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.latents.plan import encoder_states
from jobs.stages.ingest import recipe_from
from jobs.ui.options import AsJson, CorpusArgument
from jobs.ui.output import answer_json, exit_1, stdout, table

_KEYS = ["source", "dataset", "adapter_version", "recipe_digest", "options_digest"]
_LATENTS = ["encoder_id", "up_to_date", "stale", "lacking", "reason"]  # in videos


def command(
    corpus: CorpusArgument,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Recipe YAML to compare with. Default: the default recipe."),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 if anything is stale.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count episodes and latents written by another recipe or adapter version. Renew episodes by ingest into a new corpus, latents by `latents images`."""
    digest = recipe_from(config).digest
    root = open_corpus(corpus).root
    now = snapshot.load(root)
    rows = now.read(root, "episodes", _KEYS)
    states = list(encoder_states(root, now))
    latents = [
        [state.encoder_id, state.up_to_date, state.stale, state.missing, state.reason]
        for state in states
    ]
    groups = rows.group_by(_KEYS).aggregate([([], "count_all")]).sort_by("dataset").to_pylist()
    known = {*ADAPTERS, *adapters_of_packages()}
    stale_rows = []
    for group in groups:
        source, version = group["source"], group["adapter_version"]
        current = adapter_for(source).version if source in known else version
        reasons = [f"adapter version {version}, now {current}"] if version != current else []
        if group["recipe_digest"] != digest:
            reasons.append(f"recipe {group['recipe_digest']}, expected {digest}")
        stale_rows.append([source, group["dataset"], group["count_all"], "; ".join(reasons)])
    stale = sum(count for _, _, count, reason in stale_rows if reason)
    num_latents = sum(state.stale for state in states)
    failure = ""
    if exit_code and (stale or num_latents):
        failure = f"{stale:,} episodes and {num_latents:,} latent files are stale (--exit-code)"
    if as_json:
        columns = ["source", "dataset", "episodes", "reason"]
        entries = [dict(zip(columns, row, strict=True)) for row in stale_rows]
        encoders = [dict(zip(_LATENTS, row, strict=True)) for row in latents]
        answer_json(
            {"episodes": rows.num_rows, "stale": stale, "groups": entries, "latents": encoders},
            failure,
        )
    else:
        stdout.print(table("", ["source", "dataset", "episodes", "reason"], stale_rows))
        stdout.print(f"{stale} of {rows.num_rows} episodes are stale")
        if latents:
            stdout.print(table("", _LATENTS, latents))
    if failure:
        exit_1(failure)
