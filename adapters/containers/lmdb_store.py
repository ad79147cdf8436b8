"""Read one LMDB environment from outside: checked as a whole before the engine maps it, then read-only and without locks.

The engine trusts its file: a page number beyond the end of a cut file is a SIGBUS, a wrong length reads past the map. So every
file first passes py-lmdb's own offline verifier, which walks the tree in plain Python (20 ms for 300 MB: it reads page heads, not
values). Nothing is written, no lock file is made, and the map is as long as the file is: a writer's own map size, 1 TiB in
InternData, is not taken over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from adapters.containers.safe_path import inside
from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import check_regular

DATA = "data.mdb"
MAX_FILE_BYTES = 64 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class LmdbReader:
    """One read transaction."""

    transaction: Any
    where: str

    def get(self, key: str, *, limit: int) -> bytes:
        """The value of `key`, copied. Raises SourceError: MISSING_CHANNEL, TOO_LARGE."""
        value = self.transaction.get(key.encode())
        if value is None:
            raise SourceError(Code.MISSING_CHANNEL, "no such key", where=f"{self.where}:{key}")
        if len(value) > limit:
            problem = f"{len(value)} bytes; expected at most {limit}"
            raise SourceError(Code.TOO_LARGE, problem, where=f"{self.where}:{key}")
        return bytes(value)

    def __contains__(self, key: str) -> bool:
        return self.transaction.get(key.encode()) is not None


def check_lmdb(root: Path, folder: str) -> Path:
    """`root / folder` after its data file passed the verifier.

    Raises:
        SourceError: MISSING_FILE, UNSAFE_PATH, TOO_LARGE, TRUNCATED, or CORRUPT_RECORD for a tree that is not whole.
        ConfigError: the package is not installed.
    """
    path, where = inside(root, folder, DATA), f"{folder}/{DATA}"
    if (size := check_regular(path, where=where)) > MAX_FILE_BYTES:
        message = f"{size} bytes; expected at most {MAX_FILE_BYTES}"
        raise SourceError(Code.TOO_LARGE, message, where=where)
    verifier = _package("lmdb.verify")
    try:
        problems = verifier.verify(str(path))
    except (verifier.VerifyError, OSError) as error:
        raise SourceError(Code.CORRUPT_RECORD, f"not an LMDB file: {error}", where=where) from error
    if problems:
        is_cut = any("EOF" in problem for problem in problems)
        message = f"{len(problems)} faults; the first is: {problems[0]}; download the file again"
        raise SourceError(Code.TRUNCATED if is_cut else Code.CORRUPT_RECORD, message, where=where)
    return path.parent


@contextmanager
def open_lmdb(folder: Path, where: str) -> Iterator[LmdbReader]:
    """A reader of an environment that `check_lmdb` passed; opening one takes 50 us.

    Values are views of the map until they are copied; the reader copies them.

    Raises:
        SourceError: UNREADABLE.
    """
    lmdb = _package("lmdb")
    size = check_regular(folder / DATA, where=where)
    try:
        with (
            lmdb.open(
                str(folder),
                readonly=True,
                lock=False,
                readahead=False,
                create=False,
                max_readers=1,
                map_size=size,
            ) as environment,
            environment.begin(buffers=True) as transaction,
        ):
            yield LmdbReader(transaction=transaction, where=where)
    except (lmdb.Error, OSError) as error:
        raise SourceError(Code.UNREADABLE, f"cannot be read: {error}", where=where) from error


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            "reading LMDB needs py-lmdb 3", remedy="pip install 'eicorpus[lmdb]'"
        ) from error
