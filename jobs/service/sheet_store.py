"""Contact sheets that were made before, in one file of SQLite in the state folder: they outlive the server, up to a number of bytes.

It is a cache: what cannot be read or written, for whatever reason, is made again and not kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

T = TypeVar("T")
FILE = "contact-sheets.sqlite"
MAX_BYTES = 4 << 30
BUSY_TIMEOUT_S = 1.0
_OPENING = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = OFF",  # a power cut may damage the file, which is made anew then
    "PRAGMA secure_delete = ON",  # pictures of an erased episode leave the file too
    """CREATE TABLE IF NOT EXISTS sheets (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        uid TEXT NOT NULL,
        sha256 TEXT NOT NULL,
        jpeg BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS sheets_by_uid ON sheets (uid)",
)
_USED_BYTES = """SELECT (page_count - freelist_count) * page_size
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""
# A tenth at a time: that is one sweep for many new sheets.
_DELETE_OLDEST = """DELETE FROM sheets WHERE place IN
    (SELECT place FROM sheets ORDER BY place LIMIT (SELECT count(*) / 10 + 1 FROM sheets))"""


class SheetStore:
    """For any number of threads, and for several servers of one state folder."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._file, self._max_bytes = folder / FILE, max_bytes

    def get(self, key: str, uid: str, make: Callable[[], bytes]) -> bytes:
        """The sheet of a key, made where there is none.

        Args:
            key: says of which content of which video it is.
            uid: of the episode, with which it goes.
        """

        def read(connection: sqlite3.Connection) -> bytes | None:
            statement = "SELECT sha256, jpeg FROM sheets WHERE key = ?"
            row = connection.execute(statement, [key]).fetchone()
            return row[1] if row and hashlib.sha256(row[1]).hexdigest() == row[0] else None

        def write(connection: sqlite3.Connection) -> None:
            values = [key, uid, hashlib.sha256(jpeg).hexdigest(), jpeg]
            statement = "REPLACE INTO sheets (key, uid, sha256, jpeg) VALUES (?, ?, ?, ?)"
            connection.execute(statement, values)
            if connection.execute(_USED_BYTES).fetchone()[0] > self._max_bytes:
                connection.execute(_DELETE_OLDEST)

        stored = self._with_file(read)
        if stored is not None:
            return stored
        jpeg = make()
        self._with_file(write)
        return jpeg

    def keep(self, uids: pa.StringArray) -> None:
        """Delete the sheets of all other episodes."""

        def delete(connection: sqlite3.Connection) -> None:
            have = [row[0] for row in connection.execute("SELECT DISTINCT uid FROM sheets")]
            is_kept = pc.is_in(pa.array(have, pa.string()), value_set=uids).to_pylist()
            others = [[uid] for uid, kept in zip(have, is_kept, strict=True) if not kept]
            connection.executemany("DELETE FROM sheets WHERE uid = ?", others)

        if self._file.exists():
            self._with_file(delete)

    def _with_file(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Work in one transaction; None where SQLite cannot do it."""
        try:
            with closing(sqlite3.connect(self._file, timeout=BUSY_TIMEOUT_S)) as connection:
                for statement in _OPENING:
                    connection.execute(statement)
                with connection:
                    return work(connection)
        except sqlite3.OperationalError:  # locked, a full disk, a folder that cannot be written
            return None
        except sqlite3.DatabaseError:  # damaged
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._file.with_name(FILE + suffix).unlink()
            return None
