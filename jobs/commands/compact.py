"""`eicorpus compact CORPUS`: fewer, larger catalog files, or with `--latents` packs of latents, in a new snapshot."""

from __future__ import annotations

from typing import Annotated

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.remote_link import read_link
from ingest.corpus.writer import writing
from ingest.maintenance.compact import compact, count_parts, plan_merges
from ingest.maintenance.pack_latents import pack_latents, plan_packs
from ingest.storage.local import LocalStorage
from jobs.machine import refuse_without_room
from jobs.run_context import new_run_id
from jobs.ui.options import AsJson, CorpusArgument, DryRun
from jobs.ui.output import answer_json, exit_1, progress_of, size_text, stdout, table
from schemas.errors import ConfigError
from schemas.latent_pack import PACK_BYTES

_DEFAULT_MB = PACK_BYTES // 1_000_000


def command(
    corpus: CorpusArgument,
    latents: Annotated[
        bool,
        typer.Option(
            "--latents",
            help="Instead put latents that lie in files of their own, or in small packs, into packs. Nothing is encoded again.",
        ),
    ] = False,
    pack_mb: Annotated[
        int,
        typer.Option(min=1, metavar="MB", help="With --latents: least size of a pack."),
    ] = _DEFAULT_MB,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge small catalog files so that queries open fewer. Rows stay the same; `gc` deletes the old files."""
    if pack_mb != _DEFAULT_MB and not latents:
        raise ConfigError("has no effect without --latents", remedy="remove it", where="--pack-mb")
    opened = open_corpus(corpus)
    if latents:
        _pack(opened, pack_mb * 1_000_000, is_dry=dry_run, as_json=as_json)
        return
    if dry_run:
        before = after = snapshot.load(opened.root)
        merges = plan_merges(opened.root, before)
    else:
        disk = LocalStorage(opened.root)
        with writing(opened, disk, always_recovers=True):
            before = snapshot.load(opened.root)
            merges = plan_merges(opened.root, before)
            with progress_of("compact"):
                after = compact(opened, disk, before, merges, new_run_id())
    rows = count_parts(merges, before)
    if as_json:
        answer_json({"snapshot": after.number, "committed": after != before, "tables": rows})
        return
    columns = ["table", "rows", "parts", "parts_after"]
    stdout.print(table("", columns, [[row[column] for column in columns] for row in rows]))
    outcome = f"snapshot {after.number}" if after != before else "dry run: nothing was changed"
    stdout.print(outcome if merges else "nothing to merge")


def _pack(corpus: CorpusLayout, pack_bytes: int, *, is_dry: bool, as_json: bool) -> None:
    if (link := read_link(corpus.root)) is not None:
        raise ConfigError(
            "--latents packs the files of a corpus on this machine; this one is in a bucket",
            remedy=f"run `eicorpus pull {link.uri} DIR`, then `eicorpus compact DIR --latents`",
            where=link.uri,
        )
    if is_dry:
        before = after = snapshot.load(corpus.root)
        tally = plan_packs(corpus, before, pack_bytes).expected()
    else:
        disk = LocalStorage(corpus.root)
        with writing(corpus, disk, always_recovers=True):
            before = snapshot.load(corpus.root)
            plan = plan_packs(corpus, before, pack_bytes)
            expected = plan.expected()
            refuse_without_room(corpus.root, expected.num_bytes, "run `eicorpus gc` first")
            with progress_of("compact", expected.packs) as done:
                tally, after = pack_latents(corpus, disk, before, plan, new_run_id(), done)
    answer = {
        "snapshot": after.number,
        "committed": after != before,
        "files": tally.files,
        "packed": tally.packed,
        "packs": tally.packs,
        "num_bytes": tally.num_bytes,
        "left_out": dict(tally.left_out),
    }
    num_out = tally.left_out.total()
    failure = f"{num_out} of {tally.files} files left out" if num_out and not is_dry else ""
    if as_json:
        answer_json(answer, failure)
    else:
        packed = f"{tally.files - num_out}" if is_dry else f"{tally.packed} of {tally.files}"
        stdout.print(
            f"{packed} files of latents in {tally.packs} packs ({size_text(tally.num_bytes)})",
            markup=False,
        )
        for why, count in tally.left_out.items():
            stdout.print(f"left out: {count} {why}, {tally.first_left_out} first", markup=False)
        stdout.print(_outcome(after.number, has_packs=tally.packs > 0, is_dry=is_dry))
    if failure:
        exit_1(f"{failure}; run `eicorpus verify {corpus.root}`")


def _outcome(number: int, *, has_packs: bool, is_dry: bool) -> str:
    if not has_packs:
        return "nothing to pack"
    return "dry run: nothing was changed" if is_dry else f"snapshot {number}"
