"""`eicorpus push SOURCE TARGET`: a corpus or an export to the Hugging Face Hub, to a bucket, or to another folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.ui.options import AsJson, DryRun
from jobs.ui.output import answer_json, size_text, stdout
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from jobs.stages.hub import Pushed


def command(
    folder: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Corpus, or folder that `eicorpus export` wrote."),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="hf://datasets/OWNER/NAME, s3://BUCKET/NAME (gs://, az://), or file:///DIR.",
        ),
    ],
    public: Annotated[
        bool,
        typer.Option(
            "--public",
            help="Make a new repository public, or push to a public one. Default: private.",
        ),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete files of TARGET that SOURCE lacks.")
    ] = False,
    allow_licence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Also send this licence class: non_commercial, no_redistribution or unknown. Repeatable.",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Copy a corpus or an export to the Hugging Face Hub, to a bucket, or to a folder. Run it again to resume."""
    from ingest.export.hub import HuggingFaceHub
    from jobs.stages.hub import place_at, run_push

    hub = place_at(target)
    if isinstance(hub, HuggingFaceHub) and hub.revision:
        raise ConfigError("a push goes to no @REVISION; leave it out", where=target)
    done = run_push(
        folder,
        hub,
        is_private=not public,
        allowed_licences=allow_licence or (),
        replaces=replace,
        dry_run=dry_run,
    )
    if as_json:
        source = done.source
        answer_json(
            {
                "kind": source.kind,
                "target": hub.address,
                "private": done.is_private,
                "files": len(source.files) + 1,
                "bytes": source.num_bytes,
                "snapshot": source.snapshot or None,
                "licence_classes": source.counts["licence_class"],
                "deleted": len(done.deleted),
                "pushed": not dry_run,
                "unrecorded": done.unrecorded or None,
            }
        )
    else:
        _show(done, hub.address, dry_run=dry_run)


def _show(done: Pushed, address: str, *, dry_run: bool) -> None:
    source = done.source
    licences = ", ".join(f"{n:,} {name}" for name, n in source.counts["licence_class"].items())
    size = f"{len(source.files) + 1:,} files, {size_text(source.num_bytes)}"
    number = f" of snapshot {source.snapshot}" if source.snapshot else ""
    deleted = f"\n{len(done.deleted):,} files deleted there" if done.deleted else ""
    unrecorded = (
        f"\nnot recorded, so `eicorpus forget` will not name this copy: {done.unrecorded}"
        "; export again with the same words to name the corpus, then push again"
        if done.unrecorded
        else ""
    )
    outcome = "dry run: nothing was sent" if dry_run else f"pushed to {address}"
    stdout.print(
        f"{source.kind}{number}: {size}\nlicences of {source.what}: {licences}{deleted}\n{outcome}{unrecorded}",
        highlight=False,
        markup=False,
    )
