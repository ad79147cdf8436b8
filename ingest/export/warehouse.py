"""Where Iceberg tables go: a folder with a catalog of its own, or a catalog that pyiceberg's configuration names."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.storage.file_tree import paths_below
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError, TransientError
from schemas.system_error import system_error_text

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
            f"cannot be written: {system_error_text(error, str(folder))}", where=str(folder)
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
        message = f"cannot be opened: {error}; name --warehouse, or configure it for pyiceberg"
        raise ConfigError(message, where=f"catalog {name}") from error
    return Warehouse(catalog=catalog, namespace=namespace, folder=None)


def _needed(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"{error.name} is not installed; the export to Iceberg needs the extra: pip install 'eicorpus[iceberg]'"
        raise ConfigError(problem) from error


@contextmanager
def warehouse_errors(where: str) -> Iterator[None]:
    """What an Iceberg catalog may refuse, as our errors.

    Raises:
        TransientError: somebody else wrote the same table; run again.
        ConfigError: the catalog is damaged, or does not answer.
    """
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, RESTError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (CommitFailedException, CommitStateUnknownException) as error:
        message = f"somebody else wrote to it: {error}; run the same command again"
        raise TransientError(message, where=where) from error
    except (SQLAlchemyError, RESTError) as error:
        raise ConfigError(f"the Iceberg catalog refuses: {error}", where=where) from error
