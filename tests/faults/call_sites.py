"""Every statement of `ingest/` and `training/` that makes something durable, found in the source, and the product without one of them.

A statement is removed for real: the command runs, and at that one place the call does nothing. What a later `sync` makes durable instead
is therefore in the journal.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ingest.storage.file_system import FileSystem
from ingest.storage.local import LocalStorage
from ingest.storage.unsynced import Unsynced
from training import durable

ROOT = Path(__file__).parents[2]
ROOMS = ("ingest", "training")
CALLS = frozenset({"sync", "sync_above", "adopt", "fsync", "syncfs", "fdatasync"})
FUNCTIONS = frozenset({"make_durable", "make_folder", "write_durably"})  # of training.durable
SYSTEM = "ingest/storage/file_system.py"  # the calls themselves


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class CallSite:
    """One call; `number` counts those of a function, from 0."""

    file: str  # relative to the repository
    function: str
    number: int
    first_line: int
    last_line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.function}:{self.number}"

    def is_at(self, file: str, line: int) -> bool:
        return file == str(ROOT / self.file) and self.first_line <= line <= self.last_line


@cache
def call_sites() -> tuple[CallSite, ...]:
    """All of them, in the order of the source."""
    found: list[CallSite] = []
    for path in source_files():
        name = path.relative_to(ROOT).as_posix()
        if name != SYSTEM:
            found += _of(name, ast.parse(path.read_text()))
    return tuple(found)


def source_files() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def _of(file: str, tree: ast.Module) -> Iterator[CallSite]:
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    for function in functions:
        calls = [node for node in _own(function) if isinstance(node, ast.Call) and _is_lasting(node)]  # fmt: skip
        for number, call in enumerate(sorted(calls, key=lambda each: each.lineno)):
            yield CallSite(
                file=file,
                function=function.name,
                number=number,
                first_line=call.lineno,
                last_line=call.end_lineno or call.lineno,
            )


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What is in a function and not in one inside it."""
    for inner in ast.iter_child_nodes(node):
        if not isinstance(inner, ast.FunctionDef):
            yield inner
            yield from _own(inner)


def _is_lasting(call: ast.Call) -> bool:
    is_method = isinstance(call.func, ast.Attribute) and call.func.attr in CALLS
    is_function = isinstance(call.func, ast.Name) and call.func.id in FUNCTIONS
    is_asked = any(
        word.arg == "is_durable" and isinstance(word.value, ast.Constant) and word.value.value
        for word in call.keywords
    )
    return is_method or is_function or is_asked


WATCHED: tuple[tuple[Any, str], ...] = (
    (LocalStorage, "sync"),
    (LocalStorage, "adopt"),
    (LocalStorage, "write"),
    (LocalStorage, "put"),
    (LocalStorage, "atomic_writer"),
    (Unsynced, "sync"),
    (Unsynced, "sync_above"),
    (Unsynced, "fsync"),
    (FileSystem, "fsync"),
    (FileSystem, "syncfs"),
    (os, "fsync"),
    (os, "fdatasync"),
)


@contextmanager
def asked_at(answer: Callable[[CallSite], bool]) -> Iterator[None]:
    """Ask at each call of a site whether it is left out; of a function that also does something else, that is still done."""

    def asking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **how: Any) -> Any:
            caller = sys._getframe(1)
            site = _site_at(caller.f_code.co_filename, caller.f_lineno)
            if site is None or not answer(site):
                return real(*given, **how)
            if "is_durable" in how:
                return real(*given, **{**how, "is_durable": False})
            if real.__name__ not in FUNCTIONS - {"make_durable"}:
                return None
            with patch.object(durable, "make_durable", lambda path: None):
                return real(*given, **how)

        return call

    watched = [*WATCHED, *_imported_functions()]
    changed = [(owner, name, asking(getattr(owner, name))) for owner, name in watched]
    patches = [patch.object(owner, name, new) for owner, name, new in changed]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()


def _imported_functions() -> Iterator[tuple[Any, str]]:
    """A function is called by its name in the module that imports it."""
    for name in FUNCTIONS:
        real = getattr(durable, name)
        for at, module in list(sys.modules.items()):
            if at.startswith("training.") and vars(module).get(name) is real:
                yield module, name


def _site_at(file: str, line: int) -> CallSite | None:
    if not file.startswith(tuple(f"{ROOT / room}/" for room in ROOMS)):
        return None
    return next((site for site in call_sites() if site.is_at(file, line)), None)
