"""Files and folders under one root, reached component by component without following a link: the walk below `ingest/storage/local.py`."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

from ingest.storage.file_system import FileSystem
from ingest.storage.file_tree import MAX_DEPTH, too_deep
from schemas.errors import Code, SourceError
from schemas.paths import OutsideCorpus, refused, within

NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK  # and no waiting for the other end of a pipe
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
MOST_HELD = 32
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK


def item_within(root: Path, relative: str) -> Path:
    """As `within`, for one item of a batch: the item fails, the batch goes on.

    Raises:
        SourceError: UNSAFE_PATH where `within` refuses.
    """
    try:
        return within(root, relative)
    except OutsideCorpus as error:
        raise SourceError(Code.UNSAFE_PATH, error.message, where=relative[:200]) from error


class Rooted:
    """The walk from one root."""

    def __init__(self, root: Path, system: FileSystem) -> None:
        self.root = root
        self.system = system
        self._start = f"{root}/".replace("//", "/") if root.is_absolute() else None
        self._held: dict[tuple[str, ...], int] | None = None  # open folders, the last used last

    def parts(self, path: Path) -> tuple[str, ...]:
        """Components of a path under the root.

        Raises:
            OutsideCorpus: it leads out.
        """
        text = str(path)
        if self._start is not None and text.startswith(self._start):  # nearly all: `Path` is slow
            below = tuple(text[len(self._start) :].split("/"))
            if ".." not in below and below[0]:
                return below
        is_said = path.is_relative_to(self.root)  # in the words of the root itself
        try:
            parts = (
                path.relative_to(self.root)
                if is_said
                else path.absolute().relative_to(self.root.absolute())
            ).parts
        except ValueError as error:
            raise OutsideCorpus(f"the path is outside {self.root}", where=str(path)) from error
        if ".." in parts:
            raise OutsideCorpus("leaves the folder by `..`", where=str(path))
        return parts

    @contextmanager
    def folder(self, parts: Sequence[str]) -> Iterator[int]:
        """A folder under the root, open."""
        if self._held is not None:
            yield self._kept_open(tuple(parts), self._held)
            return
        handle = self._walked(parts)
        try:
            yield handle
        finally:
            self.system.close(handle)

    def _walked(self, parts: Sequence[str]) -> int:
        handle = self.system.open(str(self.root), _FOLDER)
        try:
            for depth, name in enumerate(parts):
                inner = self._entered(name, handle, parts[: depth + 1])
                self.system.close(handle)
                handle = inner
        except BaseException:
            self.system.close(handle)
            raise
        return handle

    @contextmanager
    def holding(self) -> Iterator[None]:
        """In this block a folder that was reached stays open, and is not walked to again. Blocks are short: what is renamed or replaced
        meanwhile is noticed after it."""
        self._held = {}
        try:
            yield
        finally:
            held, self._held = self._held, None
            for handle in held.values():
                self.system.close(handle)

    def _kept_open(self, parts: tuple[str, ...], held: dict[tuple[str, ...], int]) -> int:
        handle = held.pop(parts, None)
        if handle is None:
            handle = self._walked(parts)
            while len(held) >= MOST_HELD:
                self.system.close(held.pop(next(iter(held))))
        held[parts] = handle
        return handle

    def let_go(self, parts: Sequence[str]) -> None:
        """Of a folder that is removed, and those in it."""
        start = tuple(parts)
        for key in [key for key in self._held or () if key[: len(start)] == start]:
            self.system.close((self._held or {}).pop(key))

    def make(self, parts: Sequence[str]) -> list[tuple[str, ...]]:
        """Make a folder and those above it; returns those in which one was made."""
        changed = []
        handle = self.system.open(str(self.root), _FOLDER)
        try:
            for depth, name in enumerate(parts):
                try:
                    self.system.make_dir(name, dir_fd=handle)
                    changed.append(tuple(parts[:depth]))
                except FileExistsError:
                    pass
                inner = self._entered(name, handle, parts[: depth + 1])
                self.system.close(handle)
                handle = inner
        finally:
            self.system.close(handle)
        return changed

    def _entered(self, name: str, handle: int, walked: Sequence[str]) -> int:
        try:
            return self.system.open(name, _FOLDER | NO_LINK, dir_fd=handle)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(name, handle):
                raise refused(self.root.joinpath(*walked), stat.S_IFLNK) from error
            raise

    def opened(self, name: str, flags: int, folder: int) -> int:
        """A regular file, open.

        Raises:
            OutsideCorpus: it is something else.
        """
        try:
            handle = self.system.open(name, flags | NO_LINK, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                mode = stat.S_IFLNK if error.errno == errno.ELOOP else stat.S_IFIFO
                raise refused(self.root / name, mode) from error
            raise
        if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
            self.system.close(handle)
            raise refused(self.root / name, mode)
        return handle

    @contextmanager
    def created(self, name: str, folder: int) -> Iterator[BufferedRandom]:
        """A new empty file under a name that may hold what a stopped run left."""
        with BufferedRandom(_Raw(self.new(name, folder), self.system)) as file:
            yield file

    def new(self, name: str, folder: int) -> int:
        """As `created`, without a buffer: for what is written at once."""
        try:
            return self.system.open(name, _NEW, dir_fd=folder)
        except FileExistsError:
            self.unlink(name, folder)
            return self.system.open(name, _NEW, dir_fd=folder)

    @contextmanager
    def reading(self, name: str, folder: int) -> Iterator[BinaryIO]:
        """A regular file for reading."""
        with os.fdopen(self.opened(name, os.O_RDONLY, folder), "rb") as file:
            yield file

    def unlink(self, name: str, folder: int) -> None:
        """Remove a name; what has already gone is no error."""
        try:
            self.system.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return

    def remove_all(self, name: str, folder: int, depth: int = 0) -> None:
        """Remove a folder with all that is in it, of links only themselves.

        Raises:
            OutsideCorpus: folders lie deeper in each other than any corpus has them.
        """
        if depth > MAX_DEPTH:
            raise too_deep(name)
        try:
            inner = self.system.open(name, _FOLDER | NO_LINK, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            self.unlink(name, folder)
            return
        try:
            with os.scandir(inner) as found_there:
                entries = [(e.name, e.is_dir(follow_symlinks=False)) for e in found_there]
            for each, is_folder in sorted(entries):
                if is_folder:
                    self.remove_all(each, inner, depth + 1)
                else:
                    self.unlink(each, inner)
        finally:
            self.system.close(inner)
        self.system.remove_dir(name, dir_fd=folder)


def _is_link(name: str, folder: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


class _Raw(io.RawIOBase):
    """A file whose writes go through the `FileSystem`."""

    def __init__(self, handle: int, system: FileSystem) -> None:
        self._handle, self._system = handle, system

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def readinto(self, buffer: Any) -> int:
        return os.readv(self._handle, [buffer])

    def write(self, data: Any) -> int:
        return self._system.write(self._handle, data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._handle, offset, whence)

    def truncate(self, size: int | None = None) -> int:
        length = self.tell() if size is None else size
        self._system.truncate(self._handle, length)
        return length

    def close(self) -> None:
        if not self.closed:
            try:
                super().close()
            finally:
                self._system.close(self._handle)
