"""Everything that a piece of code changes below a folder, call by call, in the order in which it asked the kernel.

The calls of `os` are watched, not only those of `LocalStorage`: what goes past it is seen too. Native writers (libav, safetensors, `Path.write_text`)
make no such calls; what they wrote is noticed when the file is synchronised, linked, renamed or removed, and at the end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ingest.storage.file_system import FileSystem

Key = tuple[int, int]  # device and inode number


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. `node` and `folder` are numbers of the journal, which the kernel never uses again."""

    what: str  # create, mkdir, link, rename, remove, write, truncate, sync, sync_all, acknowledged, left_out
    folder: int = 0
    name: str = ""
    new_name: str = ""
    node: int = 0
    offset: int = 0
    data: bytes = b""

    @property
    def is_sync(self) -> bool:
        return self.what in ("sync", "sync_all")


@dataclass(kw_only=True)
class Journal:
    """`start` is the folder as it was, durable; `events` what happened since."""

    home: Path
    events: list[Event] = field(default_factory=list)
    folders: set[int] = field(default_factory=set)
    start: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)  # path -> node, bytes
    _nodes: dict[Key, int] = field(default_factory=dict)
    _bytes: dict[int, bytearray] = field(default_factory=dict)
    _last: int = 0

    def __post_init__(self) -> None:
        for folder, _, names in os.walk(self.home):
            number = self._new(Path(folder))
            self.folders.add(number)
            self.start[os.path.relpath(folder, self.home)] = (number, None)
            for name in names:
                path = Path(folder) / name
                if (key := _key(path)) not in self._nodes:
                    self._bytes[self._new(path)] = bytearray(path.read_bytes())
                node = self._nodes[key]
                self.start[str(path.relative_to(self.home))] = (node, bytes(self._bytes[node]))

    def _new(self, path: Path) -> int:
        self._last += 1
        self._nodes[_key(path)] = self._last
        return self._last

    def note(self, what: str) -> None:
        """Something that the code told its user is done."""
        self.events.append(Event(what="acknowledged", name=what))

    # --- what was not seen when it was done -----------------------------------------------------------------------------

    def notice(self, path: Path) -> int | None:
        """The node of a file or folder, with what native code did to it until now; None outside `home`."""
        if not path.is_relative_to(self.home):
            return None
        key = _key(path)
        above = self.notice(path.parent) if path != self.home else None
        node = self._nodes.get(key)
        if path.is_dir():
            if node is None and above is not None:
                node = self._new(path)
                self.folders.add(node)
                self.events.append(Event(what="mkdir", folder=above, name=path.name, node=node))
            return node
        if node is None and above is not None:
            node = self._new(path)
            self._bytes[node] = bytearray()
            self.events.append(Event(what="create", folder=above, name=path.name, node=node))
        if node is not None:
            self._compare(node, path)
        return node

    def _compare(self, node: int, path: Path) -> None:
        now, known = path.read_bytes(), self._bytes[node]
        if now == known:
            return
        if len(now) < len(known):
            self.events.append(Event(what="truncate", node=node, offset=len(now)))
        start = next((i for i, (a, b) in enumerate(zip(now, known, strict=False)) if a != b), len(known))  # fmt: skip
        start = min(start, len(now))
        if now[start:]:
            self.events.append(Event(what="write", node=node, offset=start, data=now[start:]))
        self._bytes[node] = bytearray(now)

    def notice_all(self) -> None:
        for path in sorted(self.home.rglob("*")):
            self.notice(path)

    # --- calls ----------------------------------------------------------------------------------------------------------

    def created(self, path: Path, *, is_folder: bool) -> None:
        above = self.notice(path.parent)
        if above is None:
            return
        node = self._new(path)  # a number that the kernel uses again is another file
        if is_folder:
            self.folders.add(node)
        else:
            self._bytes[node] = bytearray()
        what = "mkdir" if is_folder else "create"
        self.events.append(Event(what=what, folder=above, name=path.name, node=node))

    def named(self, what: str, old: Path, new: Path) -> Callable[[], None]:
        """Before a link or a rename; call what it returns after it."""
        node = self.notice(old)
        above, new_above = self.notice(old.parent), self.notice(new.parent)
        replaced = self._freed_with(new) if what == "rename" and os.path.lexists(new) else None

        def done() -> None:
            self._nodes.pop(replaced or (0, 0), None)
            if node is None or above is None:
                return
            assert new_above is not None
            # POSIX promises of a rename into another folder less than disks do: either name may be lost alone.
            is_move = what == "rename" and new_above != above
            kind = "link" if is_move else what
            event = Event(what=kind, folder=new_above, name=old.name, new_name=new.name, node=node)
            self.events.append(event)
            if is_move:
                self.events.append(Event(what="remove", folder=above, name=old.name))

        return done

    def removed(self, path: Path) -> Callable[[], None]:
        node, above, freed = self.notice(path), self.notice(path.parent), self._freed_with(path)

        def done() -> None:
            self._nodes.pop(freed or (0, 0), None)
            if node is not None and above is not None:
                self.events.append(Event(what="remove", folder=above, name=path.name))

        return done

    @staticmethod
    def _freed_with(path: Path) -> Key | None:
        """The number that the kernel may use again when this name has gone."""
        found = os.stat(path, follow_symlinks=False)
        is_last = path.is_dir() or found.st_nlink == 1
        return (found.st_dev, found.st_ino) if is_last else None

    def wrote(self, handle: int, offset: int, data: bytes) -> None:
        node = self._nodes.get(_key_of(handle))
        if node is None or not data:
            return
        known = self._bytes[node]
        known.extend(bytes(max(0, offset - len(known))))
        known[offset : offset + len(data)] = data
        self.events.append(Event(what="write", node=node, offset=offset, data=data))

    def truncated(self, handle: int, size: int) -> None:
        node = self._nodes.get(_key_of(handle))
        if node is not None:
            del self._bytes[node][size:]
            self._bytes[node].extend(bytes(size - len(self._bytes[node])))
            self.events.append(Event(what="truncate", node=node, offset=size))

    def synced(self, handle: int) -> None:
        path = _path_of(handle)
        node = self.notice(path)
        if node in self.folders:
            for inner in sorted(path.iterdir()):  # names that native code made
                self.notice(inner)
        if node is not None:
            self.events.append(Event(what="sync", node=node))

    def synced_all(self) -> None:
        self.notice_all()
        self.events.append(Event(what="sync_all"))


def _key(path: Path) -> Key:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino


def _key_of(handle: int) -> Key:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino


def _path_of(handle: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{handle}"))


class _Watched:
    """The calls of `os` that change something, told to a journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        names = ("open", "write", "ftruncate", "mkdir", "rmdir", "unlink", "link", "rename")
        self.real = {name: getattr(os, name) for name in names}

    def calls(self) -> dict[str, Any]:
        return {
            "open": self.open,
            "write": self.write,
            "ftruncate": self.ftruncate,
            "mkdir": self.mkdir,
            "rmdir": partial(self.remove, "rmdir"),
            "unlink": partial(self.remove, "unlink"),
            "remove": partial(self.remove, "unlink"),
            "link": partial(self.name, "link"),
            "rename": partial(self.name, "rename"),
            "replace": partial(self.name, "rename"),
            "fsync": self.journal.synced,
            "fdatasync": self.journal.synced,
            "sync": self.journal.synced_all,
        }

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        at = _full(path, dir_fd)
        is_new = bool(flags & os.O_CREAT) and not os.path.lexists(at)
        handle = int(self.real["open"](path, flags, mode, dir_fd=dir_fd))
        if is_new:
            self.journal.created(at, is_folder=False)
        elif flags & (os.O_WRONLY | os.O_RDWR):
            self.journal.notice(at)
        return handle

    def write(self, handle: int, data: Any) -> int:
        done = int(self.real["write"](handle, data))
        with suppress(OSError):  # a pipe has no place
            here = os.lseek(handle, 0, os.SEEK_CUR)
            self.journal.wrote(handle, here - done, bytes(data[:done]))
        return done

    def ftruncate(self, handle: int, size: int) -> None:
        self.real["ftruncate"](handle, size)
        self.journal.truncated(handle, size)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self.real["mkdir"](path, mode, dir_fd=dir_fd)
        self.journal.created(_full(path, dir_fd), is_folder=True)

    def remove(self, call: str, path: Any, *, dir_fd: int | None = None) -> None:
        at = _full(path, dir_fd)
        done = self.journal.removed(at) if os.path.lexists(at) else None
        self.real[call](path, dir_fd=dir_fd)
        if done is not None:
            done()

    def name(
        self,
        call: str,
        old: Any,
        new: Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        **how: Any,
    ) -> None:
        at, to = _full(old, src_dir_fd), _full(new, dst_dir_fd)
        done = self.journal.named(call, at, to) if os.path.lexists(at) else None
        self.real[call](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **how)
        if done is not None:
            done()


def _full(path: Any, dir_fd: int | None) -> Path:
    return Path(os.fspath(path)) if dir_fd is None else _path_of(dir_fd) / os.fspath(path)


@contextmanager
def journal_of(home: Path) -> Iterator[Journal]:
    """Watch what happens below `home`; nothing waits for the disk meanwhile."""
    journal = Journal(home=home)
    with (
        patch.multiple(os, **_Watched(journal).calls()),
        patch.object(FileSystem, "syncfs", lambda self, handle: journal.synced_all()),
    ):
        yield journal
    journal.notice_all()


@contextmanager
def unwatched() -> Iterator[None]:
    """Nothing waits for the disk, and nobody looks."""
    with (
        patch.multiple(os, fsync=lambda handle: None, sync=lambda: None),
        patch.object(FileSystem, "syncfs", lambda self, handle: None),
    ):
        yield
