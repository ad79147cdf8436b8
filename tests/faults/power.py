"""What a cut of the power may leave of a journal: the states that POSIX allows after its first n events.

Of a file, what was written since its last fsync is kept, dropped, torn or read as zeros; of a folder, each name that was added, replaced or
removed since its last fsync is there or not, whatever came later. A rename is whole or did not happen. Journalling file systems promise
more (an order); nothing here relies on it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.faults.journal import Event, Journal

SAVED_AT_NS = 1_700_000_000_000_000_000  # of every file that is laid out again

SECTOR = 512


@dataclass(kw_only=True)
class _File:
    durable: bytes
    pending: list[Event] = field(default_factory=list)

    def after(self, events: list[Event]) -> bytes:
        data = bytearray(self.durable)
        for event in events:
            if event.what == "truncate":
                del data[event.offset :]
                data.extend(bytes(event.offset - len(data)))
            else:
                data.extend(bytes(max(0, event.offset - len(data))))
                data[event.offset : event.offset + len(event.data)] = event.data
        return bytes(data)


@dataclass(kw_only=True)
class _Folder:
    durable: dict[str, int] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)

    def after(self, events: list[Event]) -> dict[str, int]:
        names = dict(self.durable)
        for event in events:
            if event.what == "remove":
                names.pop(event.name, None)
            elif event.what == "link":
                names[event.new_name] = event.node
            elif event.what == "rename":
                names.pop(event.name, None)
                names[event.new_name] = event.node
            else:
                names[event.name] = event.node
        return names


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What a cut does: which pending events of a folder stay, and what a file with pending writes holds."""

    name: str
    names: Callable[[list[Event]], list[Event]]
    data: Callable[[_File], bytes]


def _all_data(file: _File) -> bytes:
    return file.after(file.pending)


def _zeros(file: _File) -> bytes:
    """The new size, and nothing of what was written to make it."""
    whole = _all_data(file)
    kept = file.durable[: len(whole)]
    return kept + bytes(len(whole) - len(kept))


def _data_but(lost: _File, file: _File) -> bytes:
    return file.durable if file is lost else _all_data(file)


def _names_but(lost: _Folder, events: list[Event]) -> list[Event]:
    return [] if events is lost.pending else events


def _but(lost: Event, events: list[Event]) -> list[Event]:
    return [event for event in events if event is not lost]


KEPT = Fate(name="kept", names=lambda events: events, data=_all_data)
FATES = (
    KEPT,
    Fate(name="dropped", names=lambda events: [], data=lambda file: file.durable),
    Fate(name="names_only", names=lambda events: events, data=lambda file: file.durable),
    Fate(name="zeros", names=lambda events: events, data=_zeros),
    Fate(name="last_name_only", names=lambda events: events[-1:], data=_all_data),
)


def by_chance(seed: int) -> Fate:
    """Each name and each file for itself."""
    chance = random.Random(seed)

    def names(events: list[Event]) -> list[Event]:
        share = chance.choice((0.2, 0.5, 0.8))
        return [event for event in events if chance.random() < share]

    def data(file: _File) -> bytes:
        whole = _all_data(file)
        start = min(event.offset for event in file.pending)  # before it all is as it was
        torn = chance.randrange(start, len(whole) + 1)
        holed = whole[:start] + _holed(whole[start:], chance)
        return chance.choice((whole, file.durable, _zeros(file), whole[:torn], holed))

    return Fate(name=f"chance_{seed}", names=names, data=data)


def _holed(whole: bytes, chance: random.Random) -> bytes:
    """Some sectors have reached the disk and others have not."""
    sectors = [whole[i : i + SECTOR] for i in range(0, len(whole), SECTOR)]
    return b"".join(s if chance.random() < 0.5 else bytes(len(s)) for s in sectors)


Tree = Mapping[str, bytes | None]  # path -> bytes, None for a folder


class Disk:
    """The state of a journal after so many events, and what a cut may make of it."""

    def __init__(self, journal: Journal) -> None:
        self.acknowledged: list[str] = []
        self.nodes: dict[int, _File | _Folder] = {}
        self.root = journal.start["."][0]
        for path, (node, data) in journal.start.items():
            self.nodes[node] = _Folder() if data is None else _File(durable=data)
            if path != ".":
                above = self.nodes[journal.start[str(Path(path).parent)][0]]
                assert isinstance(above, _Folder)
                above.durable[Path(path).name] = node

    def do(self, event: Event) -> None:
        if event.what == "acknowledged":
            self.acknowledged.append(event.name)
        elif event.is_sync:
            for node in [event.node] if event.what == "sync" else list(self.nodes):
                self._settle(self.nodes[node])
        elif event.what == "left_out":
            pass
        elif event.what in ("write", "truncate"):
            self.nodes[event.node].pending.append(event)
        else:
            if event.what in ("create", "mkdir"):
                is_file = event.what == "create"
                self.nodes[event.node] = _File(durable=b"") if is_file else _Folder()
            self.nodes[event.folder].pending.append(event)

    @staticmethod
    def _settle(node: _File | _Folder) -> None:
        if isinstance(node, _File):
            node.durable = node.after(node.pending)
        else:
            node.durable = node.after(node.pending)
        node.pending = []

    def fates_of_one(self) -> Iterator[Fate]:
        """All is on the disk but one thing: the bytes of a file, the names of a folder, one name. What must not outlive it shows."""
        for node in self.nodes.values():
            if not node.pending:
                continue
            if isinstance(node, _File):
                yield Fate(name="one_file_lost", names=list, data=partial(_data_but, node))
                continue
            yield Fate(name="one_folder_lost", names=partial(_names_but, node), data=_all_data)
            for event in node.pending:
                yield Fate(name="one_name_lost", names=partial(_but, event), data=_all_data)

    def cut(self, fate: Fate) -> Tree:
        """The tree that is there when the power is back."""
        contents: dict[int, bytes] = {}
        return dict(self._walk("", self.root, fate, contents))

    def _walk(
        self, path: str, number: int, fate: Fate, contents: dict[int, bytes]
    ) -> Iterator[tuple[str, bytes | None]]:
        folder = self.nodes[number]
        assert isinstance(folder, _Folder)
        for name, node in sorted(folder.after(fate.names(folder.pending)).items()):
            inner, found = f"{path}{name}", self.nodes[node]
            if isinstance(found, _File):
                if node not in contents:
                    contents[node] = fate.data(found) if found.pending else found.durable
                yield inner, contents[node]
            else:
                yield inner, None
                yield from self._walk(f"{inner}/", node, fate, contents)


def materialise(tree: Tree, home: Path) -> None:
    """Write a tree into a new folder."""
    home.mkdir(parents=True)
    for path, data in tree.items():
        if data is None:
            (home / path).mkdir()
        else:
            (home / path).write_bytes(data)
            os.utime(home / path, ns=(SAVED_AT_NS, SAVED_AT_NS))
