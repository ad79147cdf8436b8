"""What was changed and would not survive a power cut yet, and how it is made to."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

from ingest.storage.file_system import FileSystem
from ingest.storage.rooted import NO_LINK, Rooted

FEW = 16  # files and folders that are synchronised one by one; more are cheaper as a whole file system
Parts = tuple[str, ...]


class Unsynced:
    """Changed files and folders, in the order of the changes. A folder changes when a name in it does.

    A pickled one is empty: a worker's changes are its own to synchronise.
    """

    def __init__(self, system: FileSystem) -> None:
        self.system = system
        self._places: dict[tuple[str, Parts], None] = {}
        # Device -> a folder there. It stays open: what is lost from then on is reported to it.
        self._devices: dict[int, int] = {}
        self._failure: OSError | None = None

    def __reduce__(self) -> tuple[type[Unsynced], tuple[FileSystem]]:
        return Unsynced, (self.system,)

    def add(self, root: Path, folder: Sequence[str], *names: str) -> None:
        """A folder with changed names, and files in it with changed bytes."""
        if not self._devices:
            self._watch(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        parts = tuple(folder)
        self._places[str(root), parts] = None
        for name in names:
            self._places[str(root), (*parts, name)] = None

    def sync(self) -> None:
        """Make all of it survive a power cut.

        Raises:
            OSError: some of it was lost, now or at an earlier synchronising call. The kernel reports a lost write once only, so
                a later call that succeeds would promise too much.
        """
        if self._failure is not None:
            raise OSError(self._failure.errno, self._failure.strerror)
        if len(self._places) > FEW and self._is_synced_whole():
            self._places.clear()
            return
        for place in list(self._places):
            self._fsync(*place)
        self._places.clear()

    def sync_above(self, root: Path, parts: Sequence[str]) -> None:
        """As `sync`, of the folders from `parts` up to the root only."""
        for depth in range(len(parts), -1, -1):
            place = (str(root), tuple(parts[:depth]))
            if place in self._places:
                self._fsync(*place)
                del self._places[place]

    def fsync(self, handle: int) -> None:
        """Synchronise an open file or folder; a failure is remembered."""
        try:
            self.system.fsync(handle)
        except OSError as error:
            self._failure = error
            raise

    def _fsync(self, root: str, parts: Parts) -> None:
        """One file or folder. What has gone since needs nothing: its folder is listed too."""
        rooted = Rooted(Path(root), self.system)
        try:
            with rooted.folder(parts[:-1]) as folder:
                # `.` for the root itself: the walk has opened it already
                name = parts[-1] if parts else "."
                handle = self.system.open(name, os.O_RDONLY | NO_LINK, dir_fd=folder)
                try:
                    self.fsync(handle)
                finally:
                    self.system.close(handle)
        except FileNotFoundError:
            return

    def _is_synced_whole(self) -> bool:
        """Synchronise every file system that has a changed folder; False where that cannot report what was lost."""
        self._find_devices({(root, parts[:-1]) for root, parts in self._places})
        try:
            for handle in self._devices.values():
                self.system.syncfs(handle)
        except OSError as error:
            if error.errno == errno.ENOSYS:
                return False
            self._failure = error
            raise
        return True

    def _find_devices(self, folders: Iterable[tuple[str, Parts]]) -> None:
        for root, parts in sorted(folders):
            try:
                with Rooted(Path(root), self.system).folder(parts) as folder:
                    if os.fstat(folder).st_dev not in self._devices:
                        self._watch(os.dup(folder))
            except FileNotFoundError:
                continue

    def _watch(self, handle: int) -> None:
        self._devices[os.fstat(handle).st_dev] = handle
        weakref.finalize(self, os.close, handle)
