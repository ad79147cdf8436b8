"""A file that the user names: written whole or not at all, and replaced only with `--overwrite`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError, system_error_text

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")]


def check_absent(path: Path, where: str, *, overwrite: bool) -> None:
    """
    Args:
        where: the option and its value.

    Raises:
        ConfigError: the file exists.
    """
    if path.exists() and not overwrite:
        raise ConfigError(
            "the file exists", remedy="pass --overwrite, or another name", where=where
        )


def write_file(path: Path, data: bytes, where: str, *, overwrite: bool) -> None:
    """The whole file or none.

    Raises:
        ConfigError: the folder cannot be written, or another process wrote the file first.
    """
    folder = path.parent.resolve()
    disk = LocalStorage(folder)
    try:
        if overwrite:
            disk.write(folder / path.name, data)
        elif not disk.put_if_absent(folder / path.name, data):
            check_absent(path, where, overwrite=False)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {system_error_text(error, str(path))}",
            remedy="check the folder, its permissions and the disk, or choose another one",
            where=where,
        ) from error
