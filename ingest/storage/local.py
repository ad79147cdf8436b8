"""Every lasting change to a corpus goes through a `LocalStorage`: rooted, atomic, and durable in an order that it makes explicit.

Rooted: each operation names something under one folder, walks there component by component and follows no link at the moment of use, so
that what a hostile corpus calls a folder cannot lead a write or a removal elsewhere. Durable: an operation alone survives a kill;
`sync` makes everything done so far survive a power cut, and raises when the disk has lost some of it. All of it goes through one
`FileSystem`, which tests replace.
"""

from __future__ import annotations

import copy
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from threading import get_native_id
from typing import BinaryIO, Self

from ingest.storage.file_system import FileSystem
from ingest.storage.file_tree import entries_below
from ingest.storage.rooted import Rooted
from ingest.storage.store import Store
from ingest.storage.unsynced import Unsynced
from schemas.errors import Code, InvariantError, SourceError, TransientError, system_error_text
from schemas.paths import OutsideCorpus, refused, within
from schemas.regular_file import open_regular, read_regular

__all__ = ["HALF_SUFFIX", "FileSystem", "LocalStorage", "OutsideCorpus", "within", "write_pieces"]

HALF_SUFFIX = ".part"  # a file `.<name>.part` is being written, or was when the power went
# What file systems say that have no hard links, or no rename that refuses to replace.
_CANNOT = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV}
)


class LocalStorage(Store):
    """Files and folders under one root. Every path leads there. One thread uses an instance at a time.

    Without a root the whole machine is it, and no component of a path may be a link.
    """

    def __init__(self, root: Path = Path("/"), system: FileSystem | None = None) -> None:
        self.system = system or FileSystem()
        self._rooted = Rooted(root, self.system)
        self._unsynced = Unsynced(self.system)

    @property
    def root(self) -> Path:
        return self._rooted.root

    def at(self, root: Path) -> Self:
        """The same storage under another root; one `sync` serves both."""
        other = copy.copy(self)
        other._rooted = Rooted(root, self.system)
        return other

    # --- by key, as any `Store` ---------------------------------------------------------------------------------------

    def local_path(self, key: str) -> Path:
        """Where an object lies, for what a library opens itself. Looked at now, so use it now.

        Raises:
            OutsideCorpus: the key leads out, or to something that is neither a plain file nor a folder.
        """
        return within(self._root_of_keys, key)

    @property
    def _root_of_keys(self) -> Path:
        if self.root == Path(self.root.anchor):
            raise InvariantError("keys need a storage with a root; use `at`")
        return self.root

    def get(self, key: str, *, max_bytes: int) -> bytes:
        return read_regular(self.local_path(key), max_bytes=max_bytes)

    def range(self, key: str, start: int, length: int) -> bytes:
        with open_regular(self.local_path(key)) as file:
            file.seek(start)
            return file.read(length)

    def put(self, key: str, data: bytes, *, is_durable: bool = False) -> None:
        self.write(self._place_for(key), data, is_durable=is_durable)

    def create(self, key: str, data: bytes) -> bool:
        return self.put_if_absent(self._place_for(key), data)

    def size(self, key: str) -> int | None:
        try:
            status = self.local_path(key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def copy(self, source_key: str, target_key: str) -> None:
        self.put_file(target_key, self.local_path(source_key))

    def put_file(self, key: str, path: Path) -> None:
        with open_regular(path) as file:
            self._write_pieces(self._place_for(key), _pieces(file))

    def get_file(self, key: str, path: Path, *, max_bytes: int | None = None) -> str:
        size = self.size(key)
        if size is not None and max_bytes is not None and size > max_bytes:
            message = f"{size} bytes; expected at most {max_bytes}"
            raise SourceError(Code.TOO_LARGE, message, where=key)
        with open_regular(self.local_path(key)) as file:
            return write_pieces(path, _pieces(file), self.system)

    def list(self, prefix: str, *, after: str | None = None) -> Sequence[str]:
        folder = self.local_path(prefix) if prefix else self._root_of_keys
        start = len(f"{self.root}/")
        keys = []
        for entry in entries_below(folder):
            if entry.is_file(follow_symlinks=False):
                is_half = entry.name.startswith(".") and entry.name.endswith(HALF_SUFFIX)
                keys += [] if is_half else [entry.path[start:]]
            elif not entry.is_dir(follow_symlinks=False):
                raise refused(Path(entry.path), entry.stat(follow_symlinks=False).st_mode)
        return sorted(key for key in keys if after is None or key > after)

    def delete(self, key: str) -> None:
        self.remove(self.local_path(key))

    def _write_pieces(self, path: Path, pieces: Iterable[bytes]) -> str:
        """As `write`, of what memory should not hold at once. Returns the SHA-256 of the bytes."""
        digest = sha256()
        with self.atomic_writer(path, is_alone=False) as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def _place_for(self, key: str) -> Path:
        path = self.local_path(key)
        if not path.parent.is_dir():
            self.make_dir(path.parent)
        return path

    @contextmanager
    def holding_folders(self) -> Iterator[None]:
        """For a batch of changes: folders that were reached stay open for the length of this block, instead of a walk for each change."""
        with self._rooted.holding():
            yield

    # --- changing ----------------------------------------------------------------------------------------------------

    def make_dir(self, path: Path) -> None:
        """Make a folder and those above it; one that is there stays."""
        parts = self._rooted.parts(path)
        if not self.root.exists():
            self._make_root()
        for changed in self._rooted.make(parts):
            self._changed(changed)

    def write(self, path: Path, data: bytes, *, is_durable: bool = False) -> None:
        """Write a whole file atomically: readers see the old one or the new one.

        `is_durable`: the bytes are on the disk before the name appears, for workers, whose files another process's `sync` does not know.
        """
        with self._writing(path, is_durable=is_durable) as file:
            file.write(data)

    @contextmanager
    def atomic_writer(
        self, path: Path, *, is_durable: bool = False, is_alone: bool = True
    ) -> Iterator[BufferedRandom]:
        """As `write`, for what memory should not hold at once: the file appears when the block ends, and never if it raises.

        `is_alone`: no other process writes this file at the same time.
        """
        with self._writing(path, is_durable=is_durable, is_alone=is_alone) as file:
            yield file

    def write_new(self, path: Path, data: bytes) -> None:
        """Write a file that is read only after a snapshot references it: no rename needed."""
        *above, name = self._rooted.parts(path)
        with self._rooted.folder(above) as folder:
            self._write_all(self._rooted.new(name, folder), data)
        self._changed(above, name)

    def append(self, path: Path, data: bytes) -> None:
        *above, name = self._rooted.parts(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with self._rooted.folder(above) as folder:
            self._write_all(self._rooted.opened(name, flags, folder), data)
        self._changed(above, name)

    def hard_link_or_copy(self, source: Path, target: Path) -> None:
        """Make `target` the same file as `source` (hard link; a copy where there are none), replacing what is there."""
        *from_above, from_name = self._rooted.parts(source)
        *above, name = self._rooted.parts(target)
        part = f".{name}{HALF_SUFFIX}"
        with self._rooted.folder(from_above) as from_folder, self._rooted.folder(above) as folder:
            self._rooted.unlink(part, folder)
            with self._rooted.reading(from_name, from_folder) as opened:
                try:
                    self.system.link(from_name, part, old_dir=from_folder, new_dir=folder)
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                    self._copy(opened, part, folder)
            self.system.rename(part, name, old_dir=folder, new_dir=folder)
        self._changed(above, name)

    def adopt(self, paths: Iterable[Path]) -> None:
        """Let the next `sync` cover files that something else wrote (libav, a worker), with all folders that hold them."""
        for path in paths:
            *above, name = self._rooted.parts(path)
            for depth in range(len(above)):
                self._changed(above[:depth])
            self._changed(above, name)

    def put_if_absent(self, path: Path, data: bytes) -> bool:
        """Create `path` with `data` only if it does not exist; False when someone was first.

        The file is complete and durable before its name appears, and the name is durable when this returns.

        Raises:
            TransientError: another process is publishing it, on a file system without hard links.
        """
        *above, name = self._rooted.parts(path)
        part = f".{name}.{os.getpid()}.{get_native_id()}{HALF_SUFFIX}"
        with self._rooted.folder(above) as folder:
            try:
                with self._rooted.created(part, folder) as file:
                    file.write(data)
                    file.flush()
                    self._unsynced.fsync(file.fileno())
                is_mine = self._named(part, name, folder)
            finally:
                self._rooted.unlink(part, folder)
            self._unsynced.fsync(folder)
        self._unsynced.sync_above(self.root, above)
        return is_mine

    def put_dir_if_absent(self, path: Path, files: Mapping[str, bytes]) -> bool:
        """Create the folder `path` with all its files only if there is nothing of that name; False when someone was first.

        Every file is complete and durable before the name appears, and the name appears at once: a folder cannot be renamed
        onto one that holds something.
        """
        *above, name = self._rooted.parts(path)
        part = path.with_name(f".{name}.{os.getpid()}{HALF_SUFFIX}")
        self.remove_tree(part)
        self.make_dir(part)
        for each, data in files.items():
            self.write(part / each, data, is_durable=True)
        self._unsynced.sync_above(self.root, self._rooted.parts(part))
        with self._rooted.folder(above) as folder:
            try:
                self.system.rename(part.name, name, old_dir=folder, new_dir=folder)
            except OSError as error:
                self.remove_tree(part)
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    return False
                raise
            self._unsynced.fsync(folder)
        return True

    def truncate(self, path: Path, size: int) -> None:
        *above, name = self._rooted.parts(path)
        with self._rooted.folder(above) as folder:
            handle = self._rooted.opened(name, os.O_WRONLY, folder)
            try:
                self.system.truncate(handle, size)
            finally:
                self.system.close(handle)
        self._changed(above, name)

    def remove(self, path: Path) -> None:
        """Remove a file, or a link itself; what has already gone is no error."""
        *above, name = self._rooted.parts(path)
        try:
            with self._rooted.folder(above) as folder:
                self._rooted.unlink(name, folder)
        except FileNotFoundError:
            return
        self._changed(above)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, of links only themselves; what has already gone is no error.

        Raises:
            OutsideCorpus: folders lie deeper in each other than any corpus has them.
        """
        *above, name = self._rooted.parts(path)
        self._rooted.let_go([*above, name])
        try:
            with self._rooted.folder(above) as folder:
                self._rooted.remove_all(name, folder)
        except FileNotFoundError:
            return
        self._changed(above)

    def sync(self) -> None:
        """Make everything done so far survive a power cut.

        Raises:
            OSError: the disk has lost some of it; nothing that relies on it may be published.
        """
        self._unsynced.sync()

    # --- looking -----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self, path: Path) -> Iterator[BinaryIO]:
        """A regular file, opened without following a link.

        Raises:
            OutsideCorpus: it is something else.
        """
        *above, name = self._rooted.parts(path)
        with self._rooted.folder(above) as folder, self._rooted.reading(name, folder) as file:
            yield file

    def read(self, path: Path, *, most: int) -> bytes:
        """The bytes of a regular file, at most so many."""
        with self.reading(path) as file:
            return file.read(most)

    def check(self) -> None:
        """Try what a commit needs, so that a file system that cannot do it is known before any work.

        Raises:
            OSError: it cannot.
        """
        name, *parts = [f".probe{n}.{os.getpid()}{HALF_SUFFIX}" for n in ("", "1", "2")]
        with self._rooted.folder(()) as folder:
            try:
                self._rooted.unlink(name, folder)  # a killed process may have had our number
                answers = []
                for part in parts:
                    with self._rooted.created(part, folder):
                        pass
                    answers.append(self._named(part, name, folder))
            finally:
                for each in (name, *parts):
                    self._rooted.unlink(each, folder)
        if answers != [True, False]:
            raise OSError(
                errno.EOPNOTSUPP,
                "this file system cannot create a file atomically (hard links are missing)",
            )

    # --- how ---------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(
        self, path: Path, *, is_durable: bool, is_alone: bool = True
    ) -> Iterator[BufferedRandom]:
        *above, name = self._rooted.parts(path)
        own = "" if is_alone else f".{os.getpid()}.{get_native_id()}"
        part = f".{name}{own}{HALF_SUFFIX}"
        with self._rooted.folder(above) as folder:
            try:
                with self._rooted.created(part, folder) as file:
                    yield file
                    file.flush()
                    if is_durable:
                        self._unsynced.fsync(file.fileno())
            except BaseException:
                self.remove(path.with_name(part))
                raise
            self.system.rename(part, name, old_dir=folder, new_dir=folder)
        self._changed(above, *([] if is_durable else [name]))

    def _write_all(self, handle: int, data: bytes) -> None:
        """And close."""
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self.system.write(handle, rest) :]
        finally:
            self.system.close(handle)

    def _make_root(self) -> None:
        """The root is the caller's to name, links on the way to it are the caller's too."""
        machine = Rooted(Path(self.root.anchor), self.system)
        full = self.root.parent.resolve() / self.root.name
        for changed in machine.make(machine.parts(full)):
            self._unsynced.add(machine.root, changed)

    def _changed(self, above: Iterable[str], *names: str) -> None:
        self._unsynced.add(self.root, tuple(above), *names)

    def _copy(self, opened: BinaryIO, part: str, folder: int) -> None:
        with self._rooted.created(part, folder) as file:
            while piece := opened.read(2**20):
                file.write(piece)

    def _named(self, part: str, name: str, folder: int) -> bool:
        """Give the finished file `part` its name unless that is taken."""
        for way in (self.system.link, self.system.rename_new, self._claimed):
            try:
                way(part, name, old_dir=folder, new_dir=folder)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
            else:
                return True
        raise OSError(
            errno.EOPNOTSUPP,
            "this file system cannot create a file atomically (hard links are missing)",
            name,
        )

    def _claimed(self, part: str, name: str, *, old_dir: int, new_dir: int) -> None:
        """The last way: only one process can make a folder, and the one that made it looks and renames."""
        claim = f".{name}.claim{HALF_SUFFIX}"
        try:
            self.system.make_dir(claim, dir_fd=new_dir)
        except FileExistsError as error:
            problem = f"another process is publishing {name}, or was stopped while publishing it ({claim})"
            raise TransientError(
                problem, remedy="run `eicorpus gc` when no other command is running"
            ) from error
        try:
            if name in os.listdir(new_dir):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            self.system.rename(part, name, old_dir=old_dir, new_dir=new_dir)
        finally:
            self.system.remove_dir(claim, dir_fd=new_dir)


def write_pieces(path: Path, pieces: Iterable[bytes], system: FileSystem | None = None) -> str:
    """Make or replace a local file outside of any corpus: whole or not at all. Returns the SHA-256 of its bytes.

    Its folder exists, and links on the way to it are followed. What `pieces` raises is raised.
    """
    folder = path.parent.resolve()
    return LocalStorage(folder, system)._write_pieces(folder / path.name, pieces)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    try:
        while piece := file.read(2**20):
            yield piece
    except OSError as error:
        name = str(file.name)
        raise TransientError(
            f"reading failed: {system_error_text(error, name)}", where=name
        ) from error
