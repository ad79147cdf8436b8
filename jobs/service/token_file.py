"""The file of tokens: read only where its owner alone can read it, and made in the state folder when there is none. No message has a word of it."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from jobs.service.credentials import Access, Holder
from jobs.service.roles import Role
from schemas.errors import ConfigError, system_error_text
from schemas.review import MAX_AUTHOR

POLL_S = 2.0
MIN_TOKEN, MAX_TOKEN, MAX_BYTES = 16, 4096, 64 << 10


def read_tokens(path: Path) -> dict[str, Holder]:
    """The holders by token, of a file that no other user can read: one token alone, or lines NAME ROLE TOKEN.

    Raises:
        ConfigError: the file cannot be read, others can read it, or a line is neither.
    """
    where = f"--token-file {path}"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {system_error_text(error, str(path))}",
            remedy="check the path and the permissions",
            where=where,
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"other users can read the file (mode {mode & 0o777:o})",
            remedy=f"run chmod 600 {path}",
            where=where,
        )
    if len(text) > MAX_BYTES:
        raise ConfigError(f"expected at most {MAX_BYTES} bytes", where=where)
    try:
        return _holders(text)
    except ValueError as error:
        raise ConfigError(str(error), where=where) from None  # the cause may have a token


def watch_tokens(
    path: Path, access: Access, stop: threading.Event, report: Callable[[str], None]
) -> None:
    """Take the tokens of the file whenever it has changed, until `stop`. While it cannot be read, those of before hold."""
    before: tuple[int, ...] = ()
    while not stop.wait(POLL_S):
        try:
            status = path.stat()
        except OSError:
            now: tuple[int, ...] = ()
        else:
            now = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if now == before:
            continue
        before = now
        try:
            access.replace(read_tokens(path))
        except ConfigError as error:
            report(f"{error}; the tokens of before hold")


def _holders(text: bytes) -> dict[str, Holder]:
    """
    Raises:
        ValueError: what is wrong in which line.
    """
    lines = [
        (number, words)
        for number, line in enumerate(text.split(b"\n"), start=1)
        if (words := line.split()) and not words[0].startswith(b"#")
    ]
    if not lines:
        raise ValueError("the file has no token; delete an empty file of the state folder")
    if len(lines) == 1 and len(lines[0][1]) == 1:
        return {_token(lines[0][1][0], lines[0][0]): Holder(name="admin", role=Role.ADMIN)}
    holders: dict[str, Holder] = {}
    line_of: dict[str, int] = {}  # of a token and of a name
    for number, words in lines:
        if len(words) != 3 or words[1].decode("latin-1") not in tuple(Role):
            roles = ", ".join(Role)
            raise ValueError(f"line {number}: expected NAME ROLE TOKEN, with a role of {roles}")
        name, token = _name(words[0], number), _token(words[2], number)
        for key, what in ((f"name {name}", "name"), (f"token {token}", "token")):
            if line_of.setdefault(key, number) != number:
                raise ValueError(f"line {number}: the {what} of line {line_of[key]} again")
        holders[token] = Holder(name=name, role=Role(words[1].decode()))
    return holders


def _name(word: bytes, number: int) -> str:
    try:
        name = word.decode()
    except UnicodeDecodeError:
        name = ""
    if not name.isprintable() or not 0 < len(name) <= MAX_AUTHOR:
        raise ValueError(
            f"line {number}: expected a name of 1 to {MAX_AUTHOR} printable characters"
        )
    return name


def _token(word: bytes, number: int) -> str:
    if not word.isascii() or not MIN_TOKEN <= len(word) <= MAX_TOKEN:
        raise ValueError(
            f"line {number}: expected a token of {MIN_TOKEN} to {MAX_TOKEN} ASCII characters"
        )
    return word.decode()


def own_tokens(path: Path) -> dict[str, Holder]:
    """Those of the file of the state folder. One with a new token is made when absent; a stop never leaves it half written.

    Raises:
        ConfigError: as `read_tokens`.
    """
    if not os.path.lexists(path):
        try:
            _create(path, f"{secrets.token_urlsafe(32)}\n".encode())
        except OSError as error:
            raise ConfigError(system_error_text(error, str(path)), where=str(path)) from error
    return read_tokens(path)


def _create(path: Path, text: bytes) -> None:
    """Give a complete private file its name; another server's, started at the same moment, stays."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
    except FileExistsError:
        return
    finally:
        os.unlink(part)
