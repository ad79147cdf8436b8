"""`eicorpus forget CORPUS EPISODE...`: erase episodes and keep only a tombstone of each."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ingest.catalog.episode_lookup import find_uids
from ingest.catalog.next_command import next_command
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.publishing import working_copy
from ingest.corpus.writer import writing
from ingest.maintenance.erase import forget
from ingest.maintenance.erase_bucket import forget_in_bucket
from ingest.maintenance.erasure_plan import ErasurePreview, erasure_preview
from ingest.storage.local import LocalStorage
from jobs.run_context import new_run_id
from jobs.ui.options import EPISODE_HELP, AsJson, CorpusArgument, DryRun
from jobs.ui.output import answer_json, stdout, table


def command(
    corpus: CorpusArgument,
    episode: Annotated[list[str], typer.Argument(metavar="EPISODE...", help=EPISODE_HELP)],
    reason: Annotated[str, typer.Option(help="Reason, stored with the tombstone.")] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Erase episodes from datasets, latents, tables, snapshots and manifests. Only `ingest --restore` from raw data can bring them back."""
    opened = open_corpus(corpus)
    if dry_run:
        before = snapshot.load(opened.root)
        uid = find_uids(opened.root, before, episode)
        looked, number = erasure_preview(opened, before, uid), before.number
    else:
        disk = LocalStorage(opened.root)
        with writing(opened, disk, block_recovers=True):
            uid = find_uids(opened.root, snapshot.load(opened.root), episode)
            run_id, now = new_run_id(), datetime.now(UTC)
            copy = working_copy(opened.root)
            if copy is None:
                looked, published = forget(
                    opened, disk, uid, reason=reason, run_id=run_id, erased_at=now
                )
            else:
                looked, published = forget_in_bucket(
                    copy, disk, uid, reason=reason, run_id=run_id, erased_at=now
                )
            number = published.number
    answer = _answer(looked, number, is_done=not dry_run)
    if as_json:
        answer_json(answer)
    else:
        _show(looked, answer, opened.root)


def _answer(looked: ErasurePreview, number: int, *, is_done: bool) -> dict[str, Any]:
    return {
        "forgotten": list(looked.selection.uids) if is_done else [],
        "would_forget": [] if is_done else list(looked.selection.uids),
        "already": list(looked.selection.already),
        "rows": dict(looked.rows),
        "snapshots_rewritten": looked.snapshots,
        "manifests": list(looked.manifests),
        "exports": list(looked.exports),
        "undecided": list(looked.undecided),
        "snapshot": number,
    }


def _show(looked: ErasurePreview, answer: dict[str, Any], root: Path) -> None:
    rows: list[list[Any]] = [[name, count] for name, count in looked.rows.items()]
    if rows:
        stdout.print(table("", ["table", "rows"], rows))
    verb = "erased" if answer["forgotten"] else "would erase"
    known = f"; {len(answer['already'])} were erased before" if answer["already"] else ""
    stdout.print(
        f"{verb} {len(looked.selection.uids)} episodes{known}; {looked.snapshots} snapshots rewritten"
    )
    if looked.manifests:
        stdout.print(
            f"removed from the manifests {', '.join(looked.manifests)}, which keep their digest; "
            "`manifest verify` reports this; build new manifests",
            markup=False,
        )
    for each in looked.exports:
        note = f"the export {each} holds them: remove it, and export again"
        if not each.startswith("/"):  # an address: `eicorpus push`
            note = f"the pushed copy {each} holds them: push to it again with --replace"
            if each.startswith("hf:"):
                note += (
                    "; what is deleted there stays in its history until the repository is deleted"
                )
        stdout.print(note, markup=False, highlight=False)
    if looked.undecided:
        again = next_command("dedup", root)
        note = f"{len(looked.undecided)} duplicates need a new decision: run {again}"
        stdout.print(note, markup=False, highlight=False)
