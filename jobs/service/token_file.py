"""The file of the token: read only where its owner alone can read it, and made in the state folder when there is none."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from schemas.errors import ConfigError, system_error_text

MIN_TOKEN, MAX_TOKEN_BYTES = 16, 4096


def read_token(path: Path) -> str:
    """The token of a file that no other user can read.

    Raises:
        ConfigError: the file cannot be read, others can read it, or it does not have one line of 16 characters or more.
    """
    where = f"--token-file {path}"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(path))}",
            remedy="check the path and the permissions",
            where=where,
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("the token has other characters than ASCII", where=where) from error
    if mode & 0o077:
        raise ConfigError(
            f"other users can read the file (mode {mode & 0o777:o})",
            remedy=f"run chmod 600 {path}",
            where=where,
        )
    if not (MIN_TOKEN <= len(token) <= MAX_TOKEN_BYTES) or len(token.split()) != 1:
        raise ConfigError(f"expected one token of {MIN_TOKEN} characters or more", where=where)
    return token


def own_token(path: Path) -> str:
    """The token of the state folder, made when absent.

    Raises:
        ConfigError: as `read_token`.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise ConfigError(system_error_text(error, str(path)), where=str(path)) from error
    with os.fdopen(handle, "w") as file:
        file.write(f"{secrets.token_urlsafe(32)}\n")
    return read_token(path)
