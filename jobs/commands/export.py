"""`eicorpus export iceberg CORPUS --warehouse DIR`: the catalog as Iceberg tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, uid_of
from ingest.corpus.writer import writing
from ingest.export.iceberg import Exported, export
from ingest.export.warehouse import (
    DEFAULT_NAME,
    ExportStep,
    Warehouse,
    open_configured,
    open_folder,
)
from ingest.storage.local import LocalStorage
from jobs.ui.options import AsJson, CorpusArgument
from jobs.ui.output import answer_json, outside, progress_of, stdout, table
from schemas.catalog import TABLES
from schemas.errors import ConfigError

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
    to = _warehouse(opened.root, warehouse, catalog, namespace)
    with writing(
        opened, LocalStorage(opened.root)
    ):  # it only reads; the lock keeps writers from deleting what it reads
        current = snapshot.load(opened.root)
        with progress_of("tables", len(TABLES)) as progress:
            done = export(opened.root, uid_of(opened), current, to, progress)
    if as_json:
        answer_json({"snapshot": current.number, "tables": [asdict(each) for each in done]})
    else:
        _show(done, current.number)


def _warehouse(corpus: Path, folder: Path | None, name: str | None, namespace: str) -> Warehouse:
    if not namespace.replace("_", "").isalnum():
        raise ConfigError(
            f"{namespace!r}: expected letters, digits and underscores", where="--namespace"
        )
    if folder is not None:
        outside(corpus, folder, "--warehouse")
        return open_folder(folder, name or DEFAULT_NAME, namespace)
    if name is None:
        raise ConfigError("no target", remedy="pass --warehouse DIR or --catalog NAME")
    return open_configured(name, namespace)


def _show(done: list[Exported], number: int) -> None:
    rows = [[each.table, each.rows, each.written, STEP_TEXT[each.step]] for each in done]
    stdout.print(table("", ["table", "rows", "written", "change"], rows))
    stdout.print(f"snapshot {number}", highlight=False)
