"""The work of `eicorpus export --to iceberg`: the catalog as Iceberg tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, uid_of
from ingest.corpus.writer import writing
from ingest.export.iceberg import Exported, export
from ingest.export.warehouse import DEFAULT_NAME, Warehouse, open_configured, open_folder
from ingest.storage.local import LocalStorage
from jobs.ui.output import outside, progress_of
from schemas.catalog import TABLES
from schemas.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was written of each table, and of which snapshot."""

    tables: list[Exported]
    snapshot: int


def run_export(corpus: CorpusLayout, to: Warehouse) -> ExportResult:
    """Write the tables. Shows progress on standard error."""
    with writing(
        corpus, LocalStorage(corpus.root)
    ):  # it only reads; the lock keeps writers from deleting what it reads
        current = snapshot.load(corpus.root)
        with progress_of("tables", len(TABLES)) as progress:
            done = export(corpus.root, uid_of(corpus), current, to, progress)
    return ExportResult(tables=done, snapshot=current.number)


def warehouse_at(corpus: Path, folder: Path | None, name: str | None, namespace: str) -> Warehouse:
    """
    Raises:
        ConfigError: neither a folder nor a name, a folder inside the corpus, or an invalid namespace.
    """
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
