"""`eicorpus manifest show | diff | verify`: the commands that only read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated

import typer

from ingest.corpus.layout import open_corpus, uid_of
from ingest.corpus.manifest_folders import open_manifest_folder
from ingest.curation.manifests.diff import compare
from ingest.verify.manifest import verify_manifest
from jobs.machine import usable_cores
from jobs.stages.manifest import LIMITS
from jobs.ui.manifest_report import (
    difference_as_object,
    show_difference,
    show_facts,
    show_statistics,
)
from jobs.ui.options import AsJson, CorpusWithFiles, ManifestName, Threads
from jobs.ui.output import answer_json, exit_1, progress_of, stderr, stdout, table
from schemas.manifest import load

SHOWN_FLAWS = 200


def show_command(
    corpus: CorpusWithFiles,
    name: ManifestName,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Also print the normalisation statistics.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the hours, mixture and statistics of a manifest. Checks its rows against its digest."""
    root = open_corpus(corpus).root
    page = load(open_manifest_folder(root, name)).facts
    if as_json:
        answer_json(page.model_dump(mode="json"))
    else:
        show_facts(page, root)
        if statistics and page.statistics is not None:
            show_statistics(page.statistics)


def diff_command(
    corpus: CorpusWithFiles,
    a: Annotated[str, typer.Argument(metavar="A", help="Name of the first manifest.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Name of the second manifest.")],
    limit_rows: Annotated[int, typer.Option(min=0, help="Maximum rows to print.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Compare two manifests: segments added, removed and changed, with the reason."""
    root = open_corpus(corpus).root
    before, after = (load(open_manifest_folder(root, each)) for each in (a, b))
    difference = compare(before, after, limits=LIMITS)
    if as_json:
        answer_json(difference_as_object(difference, limit_rows))
    else:
        show_difference(difference, limit_rows)


def verify_command(
    corpus: CorpusWithFiles,
    name: ManifestName,
    quick: Annotated[bool, typer.Option("--quick", help="Check file sizes only.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Check the rows of a manifest and every file and episode that it names. Exit 1 on any fault."""
    opened = open_corpus(corpus)
    with ExitStack() as stack:
        verification = verify_manifest(
            opened,
            uid_of(opened),
            name,
            is_quick=quick,
            workers=threads or usable_cores(),
            progress=_bar(stack),
        )
    count = len(verification.flaws)
    failure = f"{count:,} faults: the manifest does not match the corpus" if count else ""
    if as_json:
        flaws = [asdict(flaw) for flaw in verification.flaws]
        answer_json(
            {
                "ok": not flaws,
                "flaws": flaws,
                "notes": verification.notes,
                "files": verification.files,
            },
            failure,
        )
    else:
        for note in verification.notes:
            stderr.print(note, markup=False, highlight=False)
        rows = [
            [flaw.what, flaw.fault.value, flaw.message] for flaw in verification.flaws[:SHOWN_FLAWS]
        ]
        if rows:
            stdout.print(table("", ["item", "fault", "message"], rows))
        outcome = f"{len(verification.flaws)} faults" if verification.flaws else "OK"
        stdout.print(
            f"{outcome}: {verification.facts.num_rows:,} segments, {verification.files:,} files",
            highlight=False,
        )
    if failure:
        exit_1(failure)


def _bar(stack: ExitStack) -> Callable[[int, int], None]:
    """A progress line that begins when the first file is done, for only then their number is known."""
    bars: list[Callable[[int], None]] = []

    def advance(done: int, total: int) -> None:
        if not bars:
            bars.append(stack.enter_context(progress_of("verify", total)))
        bars[0](done)

    return advance
