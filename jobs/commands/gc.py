"""`eicorpus gc CORPUS`: delete what no kept snapshot and no published manifest needs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ingest.corpus import snapshot
from ingest.corpus.erasure import redact_published_manifests
from ingest.corpus.erasure_page import begun_erasures
from ingest.corpus.layout import open_corpus
from ingest.corpus.publishing import working_copy
from ingest.corpus.tombstones import tombstones
from ingest.corpus.writer import writing
from ingest.maintenance.erase_bucket import finish_erasures
from ingest.maintenance.gc import Garbage, collect_garbage, plan_gc
from ingest.maintenance.sweep import Swept, sweep
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.ui.options import AsJson, CorpusArgument, DryRun
from jobs.ui.output import answer_json, size_text, stdout, table

S_PER_DAY = 86_400.0


def command(
    corpus: CorpusArgument,
    keep: Annotated[
        int, typer.Option(min=1, help="Keep the newest N snapshots, however old.")
    ] = 10,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Keep everything younger than this.")
    ] = 7.0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete old snapshots, unreferenced catalog files, replaced latents and abandoned staging. Keeps every episode and what manifests need."""
    opened = open_corpus(corpus)
    disk = LocalStorage(opened.root)
    done: list[str] = []
    older_than_s, now_s = older_than * S_PER_DAY, time.time()
    copy = working_copy(opened.root)
    if copy is not None:
        if not dry_run and begun_erasures(copy):
            with writing(opened, disk, always_recovers=True):
                finish_erasures(copy, disk)
        swept = sweep(
            copy,
            stale_s=older_than_s,
            run_id=new_run_id(),
            dry_run=dry_run,
            now_s=time.time(),
        )
        _show_swept(swept, is_done=not dry_run, as_json=as_json)
        return
    if dry_run:
        garbage = plan_gc(opened, keep=keep, older_than_s=older_than_s, now_s=now_s)
    else:
        with writing(opened, disk, always_recovers=True) as done:
            current = snapshot.load(opened.root)
            redact_published_manifests(opened, disk, tombstones(opened.root, current))
            garbage = plan_gc(opened, keep=keep, older_than_s=older_than_s, now_s=now_s)
            collect_garbage(opened, disk, garbage)
    answer = _answer(garbage, done, is_done=not dry_run)
    if as_json:
        answer_json(answer)
    else:
        _show(garbage, answer)


def _show_swept(swept: Swept, *, is_done: bool, as_json: bool) -> None:
    if as_json:
        answer_json({"removed": is_done, **asdict(swept)})
        return
    verb = "deleted" if is_done else "would delete"
    stdout.print(
        f"{verb} {len(swept.keys)} objects ({size_text(swept.num_bytes)}) that no commit names; "
        f"lanes without a commit for long: {', '.join(swept.sealed) or 'none'}"
    )


def _answer(garbage: Garbage, done: list[str], *, is_done: bool) -> dict[str, Any]:
    return {
        "removed": is_done,
        "snapshots": garbage.to_remove,
        "kept": {each.entry.number: each.why for each in garbage.snapshots if each.why},
        "parts": list(garbage.parts),
        "latents": list(garbage.latents),
        "num_bytes": garbage.num_bytes,
        "staging": list(garbage.staging),
        "recovered": done,
    }


def _show(garbage: Garbage, answer: dict[str, Any]) -> None:
    rows = [[each.entry.number, each.why or "(deleted)"] for each in garbage.snapshots]
    stdout.print(table("", ["snapshot", "kept because"], rows))
    for line in answer["recovered"]:
        stdout.print(line, markup=False)
    verb = "deleted" if answer["removed"] else "would delete"
    stdout.print(
        f"{verb} {len(garbage.to_remove)} snapshots, {len(garbage.parts)} catalog files and "
        f"{len(garbage.latents)} files of latents ({size_text(garbage.num_bytes)}), "
        f"{len(garbage.staging)} staged episodes"
    )
