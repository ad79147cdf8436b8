"""`eicorpus export iceberg CORPUS --warehouse DIR`: the catalog as Iceberg tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ingest.corpus.layout import open_corpus
from ingest.export.iceberg import Exported
from ingest.export.warehouse import ExportStep
from jobs.stages.export import run_export, warehouse_at
from jobs.ui.options import AsJson, CorpusArgument
from jobs.ui.output import answer_json, stdout, table

app = typer.Typer(no_args_is_help=True, help="Export the catalog to other table formats.")
STEP_TEXT = {
    ExportStep.NOTHING: "up to date",
    ExportStep.APPEND: "rows added",
    ExportStep.REPLACE: "rows replaced",
    ExportStep.ANEW: "rewritten",
}


@app.callback()
def _forms() -> None:
    """Export the catalog to other table formats."""


@app.command("iceberg")
def iceberg_command(
    corpus: CorpusArgument,
    warehouse: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the tables and their SQLite catalog."),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Catalog of the pyiceberg configuration."),
    ] = None,
    namespace: Annotated[
        str, typer.Option(help="Namespace of the tables. Use one per corpus.")
    ] = "corpus",
    as_json: AsJson = False,
) -> None:
    """Write the catalog as Iceberg tables. Later runs add new rows and delete those of erased episodes."""
    opened = open_corpus(corpus)
    done = run_export(opened, warehouse_at(opened.root, warehouse, catalog, namespace))
    if as_json:
        tables = [asdict(each) for each in done.tables]
        answer_json({"snapshot": done.snapshot, "tables": tables})
    else:
        _show(done.tables, done.snapshot)


def _show(done: list[Exported], number: int) -> None:
    rows = [[each.table, each.rows, each.written, STEP_TEXT[each.step]] for each in done]
    stdout.print(table("", ["table", "rows", "written", "change"], rows))
    stdout.print(f"snapshot {number}", highlight=False)
