"""`eicorpus compact CORPUS`: fewer, larger catalog parts under a new snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.corpus.writing import writing
from ingest.maintenance.compact import compact, count_parts, plan_merges
from ingest.storage.local import LocalStorage
from jobs.output import answer_json, progress_of, stdout, table
from jobs.run_context import new_run_id


def command(
    corpus: Annotated[Path, typer.Argument(help="The corpus.")],
    what_if: Annotated[bool, typer.Option("--what-if", help="Count only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Merge small parts of the catalog, so that queries open fewer files. Not a row changes; `gc` removes the old parts."""
    opened = open_corpus(corpus)
    if what_if:
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
    said = f"snapshot {after.number}" if after != before else "nothing was touched"
    stdout.print(said if merges else "there is nothing to merge")
