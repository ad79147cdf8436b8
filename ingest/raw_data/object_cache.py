"""Content of objects on a local disk: fetched when a file is opened, bounded, and evicted by what was used longest ago.

Any number of processes share a cache. What it holds is counted in one SQLite file. A process that uses a file holds a shared lock on
it, which the kernel frees when the process dies; a file that is locked is not evicted. A fetched file appears whole, by a rename.
Files of parts (`ingest.raw_data.object_parts`) are counted and evicted beside them, as they grow.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import sqlite3
import stat
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingest.raw_data.object_tree import BucketListing, StoredObject, make_placeholder, make_tree
from ingest.storage.lock_file import held_alone, open_lock
from ingest.storage.object_store import ObjectReplaced, ObjectStore
from schemas.errors import Code, ConfigError, SourceError, TransientError
from schemas.regular_file import is_placeholder

MAX_PINS = 64  # files that one process keeps from being evicted at a time
# Of those, when the cache is full: files that were checked and are about to be opened.
KEPT_PINS = 2
NUM_LOCKS = 1024  # files that are fetched at a time by all processes
WAIT_S = 600.0  # for files that others use; and for one that another process fetches
PAUSE_S = 0.2
PARTS = "//parts"  # behind the key of an object that is fetched in parts: no key has an empty name
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_EVICTED_AT_ONCE = 256
_CHANGED = "the object was changed since it was listed"

_TABLES = """
CREATE TABLE IF NOT EXISTS trees (tree TEXT PRIMARY KEY, uri TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    tree TEXT, key TEXT, size INTEGER NOT NULL, e_tag TEXT NOT NULL, sha256 TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (tree, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    tree TEXT, key TEXT, bytes INTEGER NOT NULL, turn INTEGER NOT NULL, PRIMARY KEY (tree, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_turn ON files (turn);
CREATE TABLE IF NOT EXISTS usage (bytes INTEGER NOT NULL, turn INTEGER NOT NULL);
INSERT INTO usage SELECT 0, 0 WHERE NOT EXISTS (SELECT * FROM usage);
CREATE TRIGGER IF NOT EXISTS file_added AFTER INSERT ON files
    BEGIN UPDATE usage SET bytes = bytes + NEW.bytes, turn = turn + 1; END;
CREATE TRIGGER IF NOT EXISTS file_grown AFTER UPDATE OF bytes ON files
    BEGIN UPDATE usage SET bytes = bytes + NEW.bytes - OLD.bytes; END;
CREATE TRIGGER IF NOT EXISTS file_removed AFTER DELETE ON files
    BEGIN UPDATE usage SET bytes = bytes - OLD.bytes; END;
"""


class ObjectCache:
    """A folder of trees. `max_bytes`: of all content together, placeholders not counted."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        with on_disk(folder):
            for name in ("trees", "locks", "tmp", "parts"):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mutex = threading.RLock()
        self._database = sqlite3.connect(
            folder / "cache.sqlite", timeout=WAIT_S, isolation_level=None, check_same_thread=False
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.executescript(_TABLES)
        self._scratch = self._own_scratch()
        self._parts = self._parts_of_this_start()
        self._pins: OrderedDict[str, int] = OrderedDict()

    # --- trees --------------------------------------------------------------------------------------------------------

    def root_of(self, listing: BucketListing) -> Path:
        return self.folder / "trees" / listing.tree / listing.name

    def has_tree(self, tree: str) -> bool:
        return bool(self._rows("SELECT 1 FROM trees WHERE tree = ?", tree))

    def add_tree(self, listing: BucketListing, uri: str) -> None:
        """Make the tree of a listing, unless it is there. Older trees of this URI that no run reads give their content to it, and go."""
        with held_alone(self.folder / "locks" / "trees", WAIT_S):
            if not self.has_tree(listing.tree):
                self._make(listing, uri)
            for (tree,) in self._rows("SELECT tree FROM trees WHERE uri = ?", uri):
                if tree != listing.tree:
                    self._replace(tree, listing)

    def _make(self, listing: BucketListing, uri: str) -> None:
        target = self.folder / "trees" / listing.tree
        with on_disk(self.folder):
            if target.exists():
                shutil.rmtree(target)  # of a process that was killed in the next lines
            part = self._scratch / secrets.token_hex(8)
            part.mkdir()
            make_tree(part / listing.name, listing.objects, is_file=listing.is_file)
            part.rename(target)
        rows = ((listing.tree, each.key, each.size, each.e_tag) for each in listing.objects)
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO objects (tree, key, size, e_tag) VALUES (?, ?, ?, ?)", rows
            )
            database.execute("INSERT INTO trees VALUES (?, ?)", (listing.tree, uri))

    def hold(self, tree: str) -> int:
        """Keep a tree from being removed until the handle is closed, or this process ends."""
        handle = open_lock(self.folder / "locks" / f"tree-{tree}")
        fcntl.flock(handle, fcntl.LOCK_SH)
        return handle

    def _take_over(self, tree: str, listing: BucketListing) -> None:
        same = self._rows(
            "SELECT new.key, new.size FROM files JOIN objects old USING (tree, key) "
            "JOIN objects new ON new.tree = ? AND new.key = old.key "
            "AND new.size = old.size AND new.e_tag = old.e_tag AND new.e_tag != '' WHERE files.tree = ?",
            *(listing.tree, tree),
        )
        for key, size in same:
            source, target = self._path(tree, key), self._path(listing.tree, key)
            part = self._scratch / secrets.token_hex(8)
            with suppress(OSError), self._transaction() as database:
                if is_placeholder(source.lstat()):
                    continue
                os.link(source, part)
                part.rename(target)
                database.execute("DELETE FROM files WHERE tree = ? AND key = ?", (tree, key))
                database.execute(
                    "INSERT INTO files SELECT ?, ?, ?, turn + 1 FROM usage",
                    (listing.tree, key, size),
                )
        same_parts = self._rows(
            "SELECT old.key FROM objects old JOIN objects new ON new.tree = ? AND new.key = old.key "
            "AND new.size = old.size AND new.e_tag = old.e_tag AND new.e_tag != '' "
            "JOIN files ON files.tree = old.tree AND files.key = old.key || ? WHERE old.tree = ?",
            *(listing.tree, PARTS, tree),
        )
        for (key,) in same_parts:
            with suppress(OSError), self._transaction() as database:
                target = self._path(listing.tree, key + PARTS)
                target.parent.mkdir(exist_ok=True)
                self._path(tree, key + PARTS).rename(target)
                database.execute(
                    "UPDATE OR IGNORE files SET tree = ? WHERE tree = ? AND key = ?",
                    (listing.tree, tree, key + PARTS),
                )

    def _replace(self, tree: str, listing: BucketListing) -> None:
        handle = open_lock(self.folder / "locks" / f"tree-{tree}")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_over(tree, listing)
            for above in (self.folder / "trees", self._parts):
                shutil.rmtree(above / tree, ignore_errors=True)
            with self._transaction() as database:
                for table in ("files", "objects", "trees"):
                    database.execute(f"DELETE FROM {table} WHERE tree = ?", (tree,))
        except BlockingIOError:
            return  # another run reads it
        finally:
            os.close(handle)

    def _path(self, tree: str, key: str) -> Path:
        """The local path of an object of a tree, or of its parts. Keys were checked when the tree was made."""
        if key.endswith(PARTS):
            return self._parts / tree / sha256(key.encode()).hexdigest()[:32]
        (name,) = os.listdir(self.folder / "trees" / tree)
        root = self.folder / "trees" / tree / name
        return root / key if root.is_dir() else root

    # --- content ------------------------------------------------------------------------------------------------------

    def use(self, store: ObjectStore, tree: str, path: Path, key: str) -> None:
        """Fetch the content of an object that is not here, and pin it. A path that is no object is left alone.

        Raises:
            ConfigError: the object is larger than the cache, or the store refuses to give it.
            TransientError: it was changed since it was listed, the store or the disk fails, or the cache is full of used files.
        """
        name = str(path)
        with self._mutex:
            if name in self._pins:
                self._pins.move_to_end(name)
                return
        while True:
            try:
                status = path.lstat()
            except OSError:
                return
            if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
                return
            if is_placeholder(status):
                self._fetch(store, tree, path, key)
            elif self._pin(path):
                self._touch(tree, key)
                return

    def unpin(self, keep: int = 0) -> None:
        """Let files be evicted again, the last `keep` excepted."""
        with self._mutex:
            while len(self._pins) > keep:
                _, handle = self._pins.popitem(last=False)
                os.close(handle)

    def _pin(self, path: Path) -> bool:
        """False when the file was evicted at this moment."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except PermissionError:  # of a placeholder
            if is_placeholder(path.lstat()):
                return False
            raise
        fcntl.flock(handle, fcntl.LOCK_SH)
        if not _is_at(handle, path):
            os.close(handle)
            return False
        self._keep(path, handle)
        return True

    def _keep(self, path: Path, handle: int) -> None:
        with self._mutex:
            replaced = self._pins.pop(str(path), None)
            self._pins[str(path)] = handle
        if replaced is not None:
            os.close(replaced)
        self.unpin(MAX_PINS)

    def _touch(self, tree: str, key: str) -> None:
        with self._transaction() as database:
            database.execute("UPDATE usage SET turn = turn + 1")
            database.execute(
                "UPDATE files SET turn = (SELECT turn FROM usage) WHERE tree = ? AND key = ?",
                (tree, key),
            )

    def _fetch(self, store: ObjectStore, tree: str, path: Path, key: str) -> None:
        with held_alone(self._lock_of(tree, key), WAIT_S):
            if not is_placeholder(path.lstat()):
                return  # another process was first
            listed, digest = self.listed_object(tree, key)
            self._reserve(tree, key, listed.size, most=listed.size)
            part = self._scratch / secrets.token_hex(8)
            try:
                stored = _downloaded(store, listed, part, digest)
                with on_disk(part):
                    os.chmod(part, 0o444)
                    handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
                    fcntl.flock(handle, fcntl.LOCK_SH)
                    part.rename(path)
            except BaseException:
                part.unlink(
                    missing_ok=True
                )  # what was reserved is freed when another file needs it
                raise
            self._keep(path, handle)
            with self._transaction() as database:
                if self._is_evicted(tree, key + PARTS, 0):
                    database.execute(
                        "DELETE FROM files WHERE tree = ? AND key = ?", (tree, key + PARTS)
                    )
                database.execute(
                    "UPDATE objects SET sha256 = ? WHERE tree = ? AND key = ?", (stored, tree, key)
                )

    def listed_object(self, tree: str, key: str) -> tuple[StoredObject, str]:
        rows = self._rows(
            "SELECT size, e_tag, sha256 FROM objects WHERE tree = ? AND key = ?", tree, key
        )
        if not rows:
            raise TransientError(
                "the cache has lost its list of objects",
                remedy="remove the cache folder and run the same command again",
                where=str(self.folder),
            )
        size, e_tag, digest = rows[0]
        return StoredObject(key, size, e_tag), digest

    # --- content in parts ---------------------------------------------------------------------------------------------

    def opened_parts(self, tree: str, key: str, size: int) -> int:
        """A handle of the file of parts of an object, which is made where there is none, and pinned."""
        path = self._path(tree, key + PARTS)
        while True:
            with self._mutex:
                is_pinned = str(path) in self._pins
                if is_pinned:
                    self._pins.move_to_end(str(path))
            try:
                if is_pinned or self._pin(path):
                    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                    if not is_pinned:
                        self._touch(tree, key + PARTS)
                    return handle
            except FileNotFoundError:
                self._make_parts(path, size)

    def fetching_of(self, tree: str, name: str) -> AbstractContextManager[None]:
        """While the block runs, no other process fetches what has this name."""
        return held_alone(self._lock_of(tree, name), WAIT_S)

    def reserve_more(self, tree: str, listed: StoredObject, num_bytes: int) -> None:
        """Count bytes that are about to be added to the parts of an object, which never count for more than it has. Raises as `use`."""
        self._reserve(tree, listed.key + PARTS, num_bytes, most=listed.size)

    def _make_parts(self, path: Path, size: int) -> None:
        part = self._scratch / secrets.token_hex(8)
        with on_disk(self.folder):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with part.open("xb") as file:
                os.truncate(file.fileno(), size)
            with suppress(FileExistsError):
                os.link(part, path)
            part.unlink()

    def _parts_of_this_start(self) -> Path:
        """A folder for files of parts, which lie on the disk in any order until the machine stops. Those of earlier starts go.

        Where the kernel does not name its start, parts last as long as some process uses the cache: the machine did not stop meanwhile.
        """
        start = _start_of_machine()
        with on_disk(self.folder), held_alone(self.folder / "locks" / "parts", WAIT_S):
            own = self.folder / "parts" / (start or "in_use")
            is_old = not start and self._is_first_user()
            for left in (self.folder / "parts").iterdir():
                if left != own or is_old:
                    shutil.rmtree(left, ignore_errors=left != own)
            if not own.exists():
                with self._transaction() as database:
                    database.execute("DELETE FROM files WHERE key LIKE ?", (f"%{PARTS}",))
                own.mkdir(mode=0o700)
        return own

    def _is_first_user(self) -> bool:
        """Whether no other cache on this folder is open. This one is open until its process ends."""
        self._parts_lock = open_lock(self.folder / "locks" / "parts-users")
        try:
            fcntl.flock(self._parts_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_first = False
        else:
            is_first = True
        fcntl.flock(self._parts_lock, fcntl.LOCK_SH)
        return is_first

    # --- room ---------------------------------------------------------------------------------------------------------

    def _reserve(self, tree: str, key: str, size: int, *, most: int) -> None:
        """Count bytes that are about to be fetched, after others made room. `most`: of the object."""
        counted = self._counted_after(tree, key, size, most)
        if counted > self.max_bytes:
            message = f"{counted} bytes do not fit into the cache of {self.max_bytes} bytes"
            where = key.removesuffix(PARTS)
            raise ConfigError(message, remedy="raise --cache-gb", where=where)
        until_s = time.monotonic() + WAIT_S
        while not self._has_reserved(tree, key, size, most):
            if len(self._pins) > KEPT_PINS:
                self.unpin(max(len(self._pins) // 2, KEPT_PINS))
                continue
            if time.monotonic() >= until_s:
                raise TransientError(
                    f"all files of the cache have been in use for {WAIT_S:g} s",
                    remedy="raise --cache-gb, or use fewer --workers",
                    where=str(self.folder),
                )
            time.sleep(PAUSE_S)

    def _has_reserved(self, tree: str, key: str, size: int, most: int) -> bool:
        with self._transaction() as database:
            over = self._over(tree, key, size, most)
            passed = -1
            while over > 0:
                oldest = database.execute(
                    "SELECT tree, key, bytes, turn FROM files WHERE turn > ? ORDER BY turn LIMIT ?",
                    (passed, _EVICTED_AT_ONCE),
                ).fetchall()
                if not oldest:
                    return False
                for each_tree, each_key, num_bytes, turn in oldest:
                    passed = turn
                    if over > 0 and self._is_evicted(each_tree, each_key, num_bytes):
                        database.execute(
                            "DELETE FROM files WHERE tree = ? AND key = ?", (each_tree, each_key)
                        )
                        over = self._over(tree, key, size, most)
            if not key.endswith(PARTS):  # it comes whole
                database.execute("DELETE FROM files WHERE tree = ? AND key = ?", (tree, key))
            database.execute(
                "INSERT INTO files SELECT ?, ?, ?, turn + 1 FROM usage WHERE true "
                "ON CONFLICT (tree, key) DO UPDATE SET bytes = excluded.bytes",
                (tree, key, self._counted_after(tree, key, size, most)),
            )
        return True

    def _over(self, tree: str, key: str, size: int, most: int) -> int:
        ((used,),) = self._rows("SELECT bytes FROM usage")
        growth = self._counted_after(tree, key, size, most) - self._counted(tree, key)
        return int(used) + growth - self.max_bytes

    def _counted_after(self, tree: str, key: str, size: int, most: int) -> int:
        """Bytes of a file when so many more are fetched. Parts that were lost or evicted meanwhile are fetched, and not counted, again."""
        return min(self._counted(tree, key) + size, most)

    def _counted(self, tree: str, key: str) -> int:
        rows = self._rows("SELECT bytes FROM files WHERE tree = ? AND key = ?", tree, key)
        return int(rows[0][0]) if rows else 0

    def _is_evicted(self, tree: str, key: str, size: int) -> bool:
        """Whether the path is a placeholder now. False while a process uses or fetches the file."""
        lock = open_lock(self._lock_of(tree, key))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = self._path(tree, key)
            if not key.endswith(PARTS) and is_placeholder(path.lstat()):
                return True  # its process was killed while it fetched
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if key.endswith(PARTS):
                    path.unlink()
                    return True
                part = self._scratch / secrets.token_hex(8)
                make_placeholder(part, size)
                part.rename(path)
            finally:
                os.close(handle)
        except BlockingIOError:
            return False
        except FileNotFoundError:
            return True
        finally:
            os.close(lock)
        return True

    # --- how ----------------------------------------------------------------------------------------------------------

    def _lock_of(self, tree: str, key: str) -> Path:
        number = int.from_bytes(sha256(f"{tree}/{key}".encode()).digest()[:4]) % NUM_LOCKS
        return self.folder / "locks" / f"{number:04d}"

    def _own_scratch(self) -> Path:
        """A folder of this process on the file system of the trees. Those of dead processes are removed."""
        with on_disk(self.folder), held_alone(self.folder / "locks" / "tmp", WAIT_S):
            for left in (self.folder / "tmp").iterdir():
                lock = open_lock(left / "lock") if left.is_dir() else None
                try:
                    if lock is not None:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(left, ignore_errors=True)
                except BlockingIOError:
                    continue
                finally:
                    if lock is not None:
                        os.close(lock)
            own = self.folder / "tmp" / secrets.token_hex(8)
            own.mkdir()
            self._scratch_lock = open_lock(own / "lock")
            fcntl.flock(self._scratch_lock, fcntl.LOCK_SH)
        return own

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, _of_database(self.folder):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._mutex, _of_database(self.folder):
            return self._database.execute(query, values).fetchall()


def _start_of_machine() -> str:
    """The name that Linux gives to its start; "" where there is none, as in some containers."""
    try:
        return str(uuid.UUID(BOOT_ID.read_text().strip()))
    except (OSError, ValueError):
        return ""


def _downloaded(store: ObjectStore, listed: StoredObject, part: Path, digest: str) -> str:
    """Fetch the version of an object that was listed. Returns its SHA-256.

    Raises:
        TransientError: it is another one now.
    """
    with listed_version(listed.key):
        with on_disk(part):
            stored = store.get_file(listed.key, part, e_tag=listed.e_tag or None)
            size = part.stat().st_size
        if size != listed.size or stored != (digest or stored):
            raise ObjectReplaced(_CHANGED, where=listed.key)
    return stored


@contextmanager
def listed_version(key: str) -> Iterator[None]:
    """
    Raises:
        TransientError: the object is another one than was listed, or none.
    """
    remedy = "run the same command again, which lists the objects anew"
    try:
        yield
    except ObjectReplaced:
        raise TransientError(_CHANGED, remedy=remedy, where=key) from None
    except SourceError as error:
        if error.code is not Code.MISSING_FILE:
            raise
        message = "the object was deleted since it was listed"
        raise TransientError(message, remedy=remedy, where=key) from None


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        named = path.lstat()
    except OSError:
        return False
    status = os.fstat(handle)
    return (status.st_ino, status.st_dev) == (named.st_ino, named.st_dev)


@contextmanager
def on_disk(where: Path) -> Iterator[None]:
    """
    Raises:
        ConfigError, TransientError: the disk of the cache is full, or refuses.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(
                "the disk of the cache is full",
                remedy="free disk space, lower --cache-gb, or use another --cache-dir",
                where=str(where),
            ) from error
        raise ConfigError(
            f"the cache cannot be written: {error.strerror}",
            remedy="use another --cache-dir",
            where=str(where),
        ) from error


@contextmanager
def _of_database(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TransientError(
            f"the index of the cache fails: {error}",
            remedy="use a local disk, or remove the cache folder and run the same command again",
            where=str(folder),
        ) from error
