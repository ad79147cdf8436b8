"""`eicorpus manifest show | diff | verify`: the half that only reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ingest.catalog.query_limits import Limits
from ingest.corpus.layout import open_corpus, uid_of
from ingest.corpus.manifest_folders import manifest_folder, manifest_names
from ingest.curation.manifests.diff import compare
from ingest.verify.manifest import verify_manifest
from jobs.cores import usable_cores
from jobs.manifest_report import (
    as_object,
    difference_as_object,
    show_difference,
    show_facts,
    show_statistics,
)
from jobs.output import answer_json, exit_1, progress_of, stderr, stdout, table
from schemas.manifest import load, load_facts

LIMITS = Limits(timeout_s=3600.0, memory_mb=4096)
SHOWN_FLAWS = 200
CorpusOption = Annotated[Path, typer.Option("--corpus", help="The corpus.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object.")]


def show_command(
    name: Annotated[str | None, typer.Argument(help="A manifest; without one, all names.")] = None,
    *,
    corpus: CorpusOption,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Normalisation, element by element.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What a manifest holds: hours, mixture, statistics. Its rows are checked against its digest."""
    root = open_corpus(corpus).root
    if name is None:
        facts = [load_facts(manifest_folder(root, each)) for each in manifest_names(root)]
        if as_json:
            answer_json({"manifests": [as_object(each) for each in facts]})
            return
        rows = [
            [f.name, f.snapshot, f.policy.name, f.num_rows, f.hours["all"]["all"]] for f in facts
        ]
        stdout.print(table("", ["manifest", "snapshot", "policy", "segments", "hours"], rows))
        return
    found = load(manifest_folder(root, name)).facts
    if as_json:
        answer_json(found.model_dump(mode="json"))
    else:
        show_facts(found, root)
        if statistics and found.statistics is not None:
            show_statistics(found.statistics)


def diff_command(
    a: Annotated[str, typer.Argument(help="The manifest before.")],
    b: Annotated[str, typer.Argument(help="The manifest after.")],
    corpus: CorpusOption,
    limit_rows: Annotated[int, typer.Option(min=0, help="Rows that are shown.")] = 20,
    as_json: Json = False,
) -> None:
    """What came, what went, what changed from A to B, and why."""
    root = open_corpus(corpus).root
    before, after = (load(manifest_folder(root, each)) for each in (a, b))
    found = compare(before, after, limits=LIMITS)
    if as_json:
        answer_json(difference_as_object(found, limit_rows))
    else:
        show_difference(found, limit_rows)


def verify_command(
    name: Annotated[str, typer.Argument(help="The manifest.")],
    corpus: CorpusOption,
    quick: Annotated[bool, typer.Option("--quick", help="Sizes of files only.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read files.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a manifest with the corpus: every file, every episode, its own rows. Exit 1 when anything does not hold."""
    opened = open_corpus(corpus)
    with ExitStack() as stack:
        found = verify_manifest(
            opened,
            uid_of(opened),
            name,
            is_quick=quick,
            workers=workers or usable_cores(),
            progress=_bar(stack),
        )
    if as_json:
        flaws = [asdict(flaw) for flaw in found.flaws]
        answer_json({"ok": not flaws, "flaws": flaws, "notes": found.notes, "files": found.files})
    else:
        for note in found.notes:
            stderr.print(note, markup=False, highlight=False)
        rows = [[flaw.what, flaw.fault.value, flaw.message] for flaw in found.flaws[:SHOWN_FLAWS]]
        if rows:
            stdout.print(table("", ["what", "fault", "message"], rows))
        said = f"{len(found.flaws)} faults" if found.flaws else "all well"
        stdout.print(
            f"{said}: {found.facts.num_rows:,} segments, {found.files:,} files", highlight=False
        )
    if found.flaws:
        exit_1(f"{len(found.flaws):,} faults: the manifest does not fit the corpus")


def _bar(stack: ExitStack) -> Callable[[int, int], None]:
    """A progress line that begins when the first file is done, for only then their number is known."""
    bars: list[Callable[[int], None]] = []

    def advance(done: int, total: int) -> None:
        if not bars:
            bars.append(stack.enter_context(progress_of("verify", total)))
        bars[0](done)

    return advance
