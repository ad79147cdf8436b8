"""`eicorpus pull ORIGIN DIR`: a corpus or an export from the Hugging Face Hub or another folder, or a corpus from a bucket."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jobs.machine import usable_cores
from jobs.ui.options import AsJson, DryRun, Threads, uri_of
from jobs.ui.output import answer_json, exit_1, size_text, stdout
from schemas.errors import ConfigError

SHOWN_FINDINGS = 200


def command(
    origin: Annotated[
        str,
        typer.Argument(
            metavar="ORIGIN",
            help="hf://datasets/OWNER/NAME, with @REVISION or without, s3://BUCKET/NAME (gs://, az://), or file:///DIR.",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder, or a begun copy.")],
    manifest: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a bucket: only the episodes of this manifest."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL", help="Of a bucket: only episodes for which this expression holds."
        ),
    ] = None,
    threads: Threads = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Copy a corpus or an export from the Hugging Face Hub, a bucket, or a folder, and verify it. Run it again to resume."""
    from ingest.export.hub import hub_at
    from ingest.storage.store_uri import OBJECT_SCHEMES, scheme_of
    from jobs.stages.bucket_corpus import copied, copied_part
    from jobs.stages.hub_pull import run_pull

    threads = threads or usable_cores()
    if manifest or where:
        if scheme_of(origin) not in OBJECT_SCHEMES or (manifest and where):
            raise ConfigError(
                "a part is pulled from a bucket, by one of --manifest and --where", where=origin
            )
        done = copied_part(
            uri_of(origin),
            folder.absolute(),
            threads,
            manifest=manifest or "",
            where=where or "",
            dry_run=dry_run,
        )
        address = uri_of(origin)
    elif scheme_of(origin) in OBJECT_SCHEMES:
        address, done = origin, copied(origin, folder.absolute(), threads, dry_run=dry_run)
    else:
        hub = hub_at(origin)
        address, done = hub.address, run_pull(hub, folder, threads, dry_run=dry_run)
    findings = done.findings or ()
    failure = f"{len(findings):,} findings: the copy is damaged" if findings else ""
    if as_json:
        answer_json({**asdict(done), "origin": address, "folder": str(folder)}, failure)
    else:
        for each in findings[:SHOWN_FINDINGS]:
            stdout.print(each, markup=False, highlight=False)
        outcome = "dry run: nothing was copied" if dry_run else str(folder)
        revision = f" at {done.revision}" if done.revision else ""
        size = f"{done.kind}{revision}: {done.num_files:,} files, {size_text(done.num_bytes)}"
        stdout.print(f"{size}\n{outcome}", markup=False, highlight=False)
    if failure:
        exit_1(failure)
