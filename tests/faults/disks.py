"""Disks that fail on purpose, for the tests that try every moment at which one can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any

from ingest.storage.local import FileSystem, LocalStorage


class PowerCut(BaseException):
    """Not an Exception: no handler of the pipeline may survive it, as none survives a real one."""


class QuickSystem(FileSystem):
    """Says nothing to the kernel about durability: nobody pulls this machine's plug."""

    def fsync(self, handle: int) -> None:
        pass

    def syncfs(self, handle: int) -> None:
        pass


class QuickDisk(LocalStorage):
    """A storage that does not wait for the disk."""

    def __init__(self) -> None:
        super().__init__(system=QuickSystem())


class Count:
    """Operations done, and how many may be; the same for a storage under all its roots."""

    def __init__(self, allowed: int) -> None:
        self.allowed, self.done = allowed, 0


class CuttingDisk(QuickDisk):
    """Does `allowed` operations, half of the next one, and then nothing ever again.

    Faithful to a kill: after the cut even clean-up code changes nothing any more. The cut itself is this class and not the
    machine, so nothing has to reach the platter.
    """

    def __init__(self, allowed: int) -> None:
        super().__init__()
        self.count = Count(allowed)

    @property
    def allowed(self) -> int:
        return self.count.allowed

    @property
    def done(self) -> int:
        return self.count.done

    def _count(self, torn: Callable[[], Any] | None = None) -> None:
        if self.done == self.allowed and torn is not None:
            torn()
        if self.done >= self.allowed:
            self.count.done = self.allowed + 1
            raise PowerCut
        self.count.done += 1

    def write(self, path: Path, data: bytes, **how: bool) -> None:
        part = path.with_name(f".{path.name}.part")
        self._count(lambda: part.write_bytes(data[: len(data) // 2]))
        super().write(path, data, **how)

    @contextmanager
    def atomic_writer(self, path: Path, **how: bool) -> Iterator[BufferedRandom]:
        part = path.with_name(f".{path.name}.part")
        self._count(lambda: part.write_bytes(b"torn"))
        with super().atomic_writer(path, **how) as file:
            yield file

    def write_new(self, path: Path, data: bytes) -> None:
        self._count(lambda: path.write_bytes(data[: len(data) // 2]))
        super().write_new(path, data)

    def append(self, path: Path, data: bytes) -> None:
        self._count(lambda: LocalStorage().append(path, data[: len(data) // 2]))
        super().append(path, data)

    def put_if_absent(self, path: Path, data: bytes) -> bool:
        part = path.with_name(f".{path.name}.0.part")
        self._count(lambda: part.write_bytes(data[: len(data) // 2]))
        return super().put_if_absent(path, data)

    def put_dir_if_absent(self, path: Path, files: Mapping[str, bytes]) -> bool:
        self._count()  # before its name appears; the files in it are counted one by one
        return super().put_dir_if_absent(path, files)

    def remove_tree(self, path: Path) -> None:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.exists() else []
        self._count(lambda: files and files[0].unlink())
        super().remove_tree(path)

    def make_dir(self, path: Path) -> None:
        self._count()
        super().make_dir(path)

    def hard_link_or_copy(self, source: Path, target: Path) -> None:
        self._count()
        super().hard_link_or_copy(source, target)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def sync(self) -> None:
        self._count()
