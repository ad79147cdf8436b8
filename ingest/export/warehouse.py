"""The Iceberg warehouse: a folder with its own catalog or a catalog that pyiceberg's configuration names, and the properties that record what was exported."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.corpus.snapshot import Part, Snapshot, text_of
from ingest.storage.file_tree import paths_below
from ingest.storage.local import LocalStorage
from schemas.catalog import TABLES
from schemas.errors import ConfigError, TransientError, system_error_text

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import Connection

DEFAULT_NAME = "eicorpus"
FILE = "catalog.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Warehouse:
    """An open Iceberg catalog. `folder` is None where files are not ours to remove."""

    catalog: Catalog
    namespace: str
    folder: Path | None

    def clear(self, table: str) -> None:
        """Remove what a dropped table, or a stopped export, left in the folder that a new table will get."""
        if self.folder is not None:
            left = self.folder / self.namespace / table
            if left.exists():
                shutil.rmtree(left)


def open_folder(folder: Path, name: str, namespace: str) -> Warehouse:
    """A folder with the catalog in `catalog.db` (SQLite), made when it is not there.

    Raises:
        ConfigError: the extra is not installed, or the folder cannot be used.
    """
    sql = _needed("pyiceberg.catalog.sql")
    try:
        folder = folder.resolve()
        disk = LocalStorage(folder)
        disk.make_dir(folder)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {system_error_text(error, str(folder))}",
            remedy="check the permissions and the disk, or use another --warehouse",
            where=str(folder),
        ) from error
    with warehouse_errors(str(folder)):
        catalog = sql.SqlCatalog(name, uri=f"sqlite:///{folder / FILE}", warehouse=str(folder))
        _synchronise_before_commits(catalog, disk, folder / namespace)
        catalog.create_namespace_if_not_exists(namespace)
    return Warehouse(catalog=catalog, namespace=namespace, folder=folder)


def _synchronise_before_commits(catalog: SqlCatalog, disk: LocalStorage, tables: Path) -> None:
    """SQLite makes its own file survive a power cut: what it names must have done so before. pyiceberg leaves that to the kernel."""
    from sqlalchemy import event

    def synchronise(connection: Connection) -> None:
        disk.adopt(path for path in paths_below(tables) if path.is_file())
        disk.sync()

    event.listen(catalog.engine, "commit", synchronise)


def open_configured(name: str, namespace: str) -> Warehouse:
    """The catalog `name` of pyiceberg's own configuration (`~/.pyiceberg.yaml`, PYICEBERG_CATALOG__...).

    Raises:
        ConfigError: the extra is not installed, or no such catalog can be opened.
    """
    catalogs = _needed("pyiceberg.catalog")
    try:
        with warehouse_errors(f"catalog {name}"):
            catalog = catalogs.load_catalog(name)
            catalog.create_namespace_if_not_exists(namespace)
    except ValueError as error:
        message = f"cannot be opened: {error}"
        raise ConfigError(
            message,
            remedy="add --warehouse DIR, or configure the catalog for pyiceberg",
            where=f"catalog {name}",
        ) from error
    return Warehouse(catalog=catalog, namespace=namespace, folder=None)


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed"
        raise ConfigError(problem, remedy="run pip install 'eicorpus[iceberg]'") from error


@contextmanager
def warehouse_errors(where: str) -> Iterator[None]:
    """What an Iceberg catalog may refuse, as our errors.

    Raises:
        TransientError: another process wrote to the same table; run again.
        ConfigError: the catalog is damaged, or does not answer.
    """
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, RESTError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (CommitFailedException, CommitStateUnknownException) as error:
        message = f"another process wrote to the table: {error}"
        raise TransientError(message, remedy="run the same command again", where=where) from error
    except (SQLAlchemyError, RESTError) as error:
        raise ConfigError(f"the Iceberg catalog refuses the write: {error}", where=where) from error


PREFIX = "eicorpus."


class ExportStep(StrEnum):
    """What becomes of a table."""

    NOTHING = "nothing"  # it holds this snapshot's rows
    APPEND = "append"  # it holds the first parts of them
    REPLACE = "replace"  # its rows are in other parts now: a compaction
    ANEW = "anew"  # it, or its history, has rows of erased episodes: nothing of it may stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which snapshot of which corpus, and its parts of one table, in order. `erasures`: tombstones there were."""

    corpus: str
    snapshot: int
    snapshot_sha256: str
    num_parts: int
    parts_sha256: str
    erasures: int

    @staticmethod
    def of(corpus_uid: str, current: Snapshot, table: str) -> Mark:
        return Mark(
            corpus=corpus_uid,
            snapshot=current.number,
            snapshot_sha256=hashlib.sha256(text_of(current).encode()).hexdigest(),
            num_parts=len(current.parts(table)),
            parts_sha256=_sha256(current.parts(table)),
            erasures=sum(part.rows for part in current.parts("tombstones")),
        )

    @staticmethod
    def read(properties: Mapping[str, str], where: str) -> Mark:
        """
        Raises:
            ConfigError: the table is not one of ours.
        """
        try:
            values = {name: properties[f"{PREFIX}{name}"] for name in Mark.__dataclass_fields__}
            return Mark(
                corpus=values["corpus"],
                snapshot=int(values["snapshot"]),
                snapshot_sha256=values["snapshot_sha256"],
                num_parts=int(values["num_parts"]),
                parts_sha256=values["parts_sha256"],
                erasures=int(values["erasures"]),
            )
        except (KeyError, ValueError) as error:
            message = "a table of this name exists that eicorpus did not write"
            raise ConfigError(message, remedy="use another --namespace", where=where) from error

    @property
    def nothing(self) -> Mark:
        """Of a table to which no row was written yet: a stopped export goes on from here."""
        return replace(self, snapshot=0, snapshot_sha256="", num_parts=0, parts_sha256=_sha256(()))

    @property
    def properties(self) -> dict[str, str]:
        return {f"{PREFIX}{name}": str(value) for name, value in asdict(self).items()}

    @property
    def summary(self) -> dict[str, str]:
        """What an Iceberg snapshot says of itself."""
        names = ("corpus", "snapshot", "snapshot_sha256")
        return {f"{PREFIX}{name}": str(getattr(self, name)) for name in names}


def step_to(now: Mark, table: str, parts: Sequence[Part], was: Mark) -> ExportStep:
    """From what a table holds to what it shall hold.

    Raises:
        ConfigError: it holds another corpus.
    """
    if was.corpus != now.corpus:
        message = f"the namespace contains corpus {was.corpus or '(no name)'}, not {now.corpus or '(no name)'}"
        raise ConfigError(message, remedy="use another --namespace", where=table)
    can_tell = "uid" in TABLES[table].names and table != "tombstones"
    if can_tell and was.erasures != now.erasures:
        return ExportStep.ANEW
    if (was.num_parts, was.parts_sha256) == (now.num_parts, now.parts_sha256):
        return ExportStep.NOTHING
    is_start = was.num_parts <= len(parts) and _sha256(parts[: was.num_parts]) == was.parts_sha256
    return ExportStep.APPEND if is_start else ExportStep.REPLACE


def _sha256(parts: Sequence[Part]) -> str:
    return hashlib.sha256("\n".join(part.sha256 for part in parts).encode()).hexdigest()
