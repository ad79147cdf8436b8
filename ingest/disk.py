"""Every lasting change to a corpus goes through a `Disk`, so that a test can cut the power after any one of them.

Local file systems. Durability is per batch: `sync()` makes everything written so far survive a power cut.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

HALF_SUFFIX = ".part"  # a file `.<name>.part` is being written, or was when the power went


class Disk:
    """Plain POSIX operations with the order of durability made explicit."""

    def make_dir(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, data: bytes, *, is_durable: bool = False) -> None:
        """Write a whole file atomically: readers see the old one or the new one.

        `is_durable` also survives a power cut of THIS machine by itself, for workers, whom the driver's `sync` may not
        reach.
        """
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            file.write(data)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)

    @contextmanager
    def writing(self, path: Path, *, is_durable: bool = False) -> Iterator[BufferedRandom]:
        """As `write`, for what memory should not hold at once: the file appears when the block ends, and never if it raises."""
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("w+b") as file:
                yield file
                if is_durable:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            self.remove(part)
            raise
        os.replace(part, path)

    def create(self, path: Path, data: bytes) -> None:
        """Write a file that nobody looks for before a snapshot names it: no rename needed."""
        path.write_bytes(data)

    def append(self, path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    def place(self, source: Path, target: Path) -> None:
        """Make `target` the same file as `source` (hard link; a copy across file systems), replacing what is there."""
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, part)
        os.replace(part, target)

    def publish(self, path: Path, data: bytes) -> bool:
        """Create `path` with `data` only if it does not exist; False when someone was first.

        The file is complete and durable before its name appears: a hard link is the put-if-absent of POSIX.
        """
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        finally:
            part.unlink()
        self._sync_dir(path.parent)
        return True

    def publish_dir(self, path: Path, files: Mapping[str, bytes]) -> bool:
        """Create the folder `path` with all its files only if there is nothing of that name; False when someone was first.

        Every file is complete and durable before the name appears, and the name appears at once: a folder cannot be renamed
        onto one that holds something.
        """
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self.remove_tree(part)
        part.mkdir(parents=True)
        for name, data in files.items():
            self.write(part / name, data, is_durable=True)
        self._sync_dir(part)
        try:
            os.rename(part, path)
        except OSError as error:
            self.remove_tree(part)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        self._sync_dir(path.parent)
        return True

    def truncate(self, path: Path, size: int) -> None:
        os.truncate(path, size)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder; what has already gone is no error."""
        if path.exists():
            shutil.rmtree(path)

    def sync(self) -> None:
        """Flush all file systems: one call for a batch instead of one fsync for each of its files."""
        os.sync()

    @staticmethod
    def _sync_dir(path: Path) -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
