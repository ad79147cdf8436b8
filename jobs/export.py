"""`eicorpus export iceberg CORPUS --warehouse DIR`: the catalog as tables that other engines read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus, uid_of
from ingest.corpus.writing import writing
from ingest.export.iceberg import Exported, export
from ingest.export.mark import Step
from ingest.export.warehouse import DEFAULT_NAME, Warehouse, open_configured, open_folder
from ingest.storage.local import LocalStorage
from jobs.output import answer_json, outside, progress_of, stdout, table
from schemas.catalog import TABLES
from schemas.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="A corpus in the forms of others: iceberg.")
SAID = {
    Step.NOTHING: "was up to date",
    Step.APPEND: "rows added",
    Step.REPLACE: "rows replaced",
    Step.ANEW: "written anew",
}


@app.callback()
def _forms() -> None:
    """A corpus in the forms of others."""


@app.command("iceberg")
def iceberg_command(
    corpus: Annotated[Path, typer.Argument(help="The corpus; it is only read.")],
    warehouse: Annotated[
        Path | None,
        typer.Option(help="A folder for tables and an SQLite catalog of them.", metavar="DIR"),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(help="Without --warehouse: a catalog of pyiceberg's own configuration."),
    ] = None,
    namespace: Annotated[str, typer.Option(help="Of the tables; one for each corpus.")] = "corpus",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write the catalog's tables as Iceberg tables: what is new since the last export is added, what was forgotten goes."""
    opened = open_corpus(corpus)
    to = _warehouse(opened.root, warehouse, catalog, namespace)
    with writing(
        opened, LocalStorage(opened.root)
    ):  # it only reads, and no writer may remove what it reads
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
            f"{namespace!r}: letters, digits and underscores only", where="--namespace"
        )
    if folder is not None:
        outside(corpus, folder, "--warehouse")
        return open_folder(folder, name or DEFAULT_NAME, namespace)
    if name is None:
        raise ConfigError("name a folder (--warehouse DIR) or a configured catalog (--catalog)")
    return open_configured(name, namespace)


def _show(done: list[Exported], number: int) -> None:
    rows = [[each.table, each.rows, each.written, SAID[each.step]] for each in done]
    stdout.print(table("", ["table", "rows", "written", ""], rows))
    stdout.print(f"snapshot {number}", highlight=False)
