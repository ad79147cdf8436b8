"""Hostile scenarios times commands: the runs, a sample of them, and what one run does wrong."""

from __future__ import annotations

import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest.corpus import snapshot
from ingest.storage.local import FileSystem
from tests.hostile.commands import PATIENCE_S, WORDS, StillRunningError, run
from tests.hostile.corpora import (
    Scenario,
    World,
    bombs,
    columns,
    holds_secret,
    json_fields,
    make_world,
    remove_tree,
    rooms,
    state,
)

KINDS = {"rooms": rooms, "json": json_fields, "columns": columns, "bombs": bombs}
GIB = 1 << 30
ROOM_BYTES = 4 * GIB  # address space that a command may add; beyond it an allocation fails
# Resident memory that a command, or one mutation of the fuzzer, may add: the largest array that a container's reader allows
# (512 MiB, whatever a file says of its size) and one copy of it.
PEAK_BYTES = 1 * GIB


@contextmanager
def hostile_world(folder: Path) -> Iterator[tuple[World, str]]:
    """The world, and the uid of an episode of its corpus; the folder goes with the block, because its owner would remove it by `shutil.rmtree`."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("fsync", "syncfs"):  # survival of a power cut is not tested here
            patched.setattr(FileSystem, name, lambda self, handle: None)
        try:
            made = make_world(folder)
            rows = snapshot.load(made.sound).read(made.sound, "episodes").to_pylist()
            yield made, str(rows[0]["uid"])
        finally:
            for each in folder.iterdir():
                remove_tree(each)


@dataclass(frozen=True)
class Case:
    """One run: a scenario and a command."""

    scenario: Scenario
    command: str


def cases(made: World, kind: str, *, every: bool = False) -> list[Case]:
    """Each scenario with one command in turn, or with every command."""
    names = list(WORDS)
    return [
        Case(scenario, name)
        for number, scenario in enumerate(KINDS[kind](made))
        for name in (names if every else [names[number % len(names)]])
    ]


def sampled(made: World, kind: str, count: int, seed: int) -> list[Case]:
    """Some of all scenarios times commands."""
    every = cases(made, kind, every=True)
    return random.Random(seed).sample(every, min(count, len(every)))


def status_bytes(field: str) -> int:
    """Of this process, as the kernel counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


@dataclass
class Memory:
    """Resident memory that a block added at its peak."""

    peak_bytes: int = 0


@contextmanager
def bounded_memory() -> Iterator[Memory]:
    """An allocation beyond ROOM_BYTES fails in the block, in this process and its children, and does not fill the machine."""
    memory = Memory()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    room = status_bytes("VmData") + ROOM_BYTES
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    resident = status_bytes("VmRSS")
    hard = before[1]
    resource.setrlimit(resource.RLIMIT_DATA, (room if hard < 0 else min(room, hard), hard))
    try:
        yield memory
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        memory.peak_bytes = status_bytes("VmHWM") - resident


def spoil(made: World, scenario: Scenario) -> None:
    """The corpus anew, with this wrong; links are removed and not followed."""
    if made.corpus.is_symlink():
        made.corpus.unlink()
    remove_tree(made.corpus)
    remove_tree(made.out)
    made.out.with_suffix(".html").unlink(missing_ok=True)
    shutil.copytree(made.sound, made.corpus)
    scenario.spoil(made)


def problems(made: World, scenario: Scenario, name: str, uid: str) -> Iterator[str]:
    """What a command does wrong on a spoiled corpus."""
    spoil(made, scenario)
    outside = made.victim, made.raw, made.sound, made.run
    before = [state(each) for each in outside]
    with bounded_memory() as memory:
        try:
            ended = run(name, made, uid)
        except StillRunningError:
            yield f"{scenario.name} | {name}: still running after {PATIENCE_S} s"
            return
    if [state(each) for each in outside] != before:
        yield f"{scenario.name} | {name}: changed something outside"
    for path in holds_secret(made):
        yield f"{scenario.name} | {name}: took something in: {path}"
    if memory.peak_bytes > PEAK_BYTES:
        yield f"{scenario.name} | {name}: {memory.peak_bytes / GIB:.1f} GiB of memory"
    if ended.exit_code not in (0, 1, 2):
        yield f"{scenario.name} | {name}: exit {ended.exit_code}: {ended.error!r}"
