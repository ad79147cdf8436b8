"""Python's own unpickler, narrowed: it builds plain values, and only makers that the caller lists are ever called.

As it stands, `pickle.Unpickler` imports what the data names, sets attributes on it, resizes its memo to any index, and hashes tuples nested to any
depth, which ends the process. Here the pure-Python one runs with fewer operations: a global is a key into a table of `Maker`s, a
state goes to the `Pending` value that its own maker returned, and keys are plain. Opcodes: CPython `Lib/pickletools.py`.
Python 2's byte strings come out as `str` (latin-1), which is how numpy's Python-2 pickles are read.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np

from schemas.errors import Code, SourceError

MAX_OPS = 20_000_000  # about half a minute, and at most some 2 GB of small objects
MAX_KEY_ITEMS, MAX_KEY_DEPTH = 64, 4
MAX_INTEGER_BITS = 3200  # Python refuses to print an integer of more than 4300 digits


class Budget:
    """Bytes that makers may still allocate: a memoised value can be used a million times for two bytes each."""

    def __init__(self, limit: int, where: str) -> None:
        self.where, self._left = where, limit

    def spend(self, count: int) -> None:
        """Take `count` bytes. Raises SourceError(TOO_LARGE) when the pickle makes far more than it holds."""
        self._left -= count
        if self._left < 0:
            problem = (
                "the pickle would expand to far more data than the file contains, so it is refused"
            )
            raise SourceError(Code.TOO_LARGE, problem, where=self.where)

    def unsafe(self, problem: str) -> SourceError:
        return SourceError(Code.UNSAFE_CONTENT, problem, where=self.where)

    def corrupt(self, problem: str) -> SourceError:
        return SourceError(Code.CORRUPT_RECORD, problem, where=self.where)


Make = Callable[[tuple[Any, ...], Budget], Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Maker:
    """What a global stands for: `make` gets the arguments of REDUCE or NEWOBJ. It is never a real class or function."""

    name: str
    make: Make


@dataclass(slots=True, kw_only=True, eq=False)
class Pending:
    """A value that is whole only after BUILD: `build` gets the state, and its result takes this one's place."""

    name: str
    build: Callable[[Any], Any]
    memo_keys: list[int] = field(default_factory=list)


PersistentLoad = Callable[[Any, Budget], Any]


class _PickleSource(BytesIO):
    """The bytes of a pickle; a value that goes on after their end is TRUNCATED."""

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(data)
        self._where = where

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        return part if size is None or len(part) >= size else self._cut()

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        return line if line.endswith(b"\n") else self._cut()

    def _cut(self) -> bytes:
        problem = f"the pickle ends inside a value, at byte {self.tell()}; download it again"
        raise SourceError(Code.TRUNCATED, problem, where=self._where)


class _Memo(dict[int, Any]):
    """Where each value was put, so that BUILD can replace it there."""

    def __setitem__(self, key: int, value: Any) -> None:
        if isinstance(value, Pending):
            value.memo_keys.append(key)
        super().__setitem__(key, value)


class Machine(pickle._Unpickler):
    """Runs one pickle of `data`, from `start`. After `run`, `position` is the byte after its STOP.

    Raises (all methods) SourceError: UNSAFE_CONTENT for a global, an opcode or a key outside the allow-list; TRUNCATED when
    the bytes end early; CORRUPT_RECORD when they are not a pickle; TOO_LARGE beyond `MAX_OPS`.
    """

    # Of the base class, whose stub leaves them out.
    stack: list[Any]
    append: Callable[[Any], None]  # to the stack; another one after each MARK
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(
        self,
        data: bytes,
        makers: Mapping[str, Maker],
        budget: Budget,
        *,
        start: int = 0,
        persistent_load: PersistentLoad | None = None,
    ) -> None:
        self._source = _PickleSource(data, budget.where)
        self._source.seek(start)
        super().__init__(self._source, encoding="latin-1")
        self.memo: dict[int, Any] = _Memo()
        counts = len(data) > MAX_OPS
        operations = _CountedOperations(budget) if counts else _Operations(budget)
        self.dispatch = operations  # type: ignore[misc]  # `load` looks it up on the instance
        self._makers, self.budget, self._load_from = makers, budget, persistent_load

    @property
    def position(self) -> int:
        return self._source.tell()

    def run(self) -> Any:
        """The value before STOP."""
        try:
            return self.load()
        except _DAMAGE as error:
            problem = f"not a whole pickle: {type(error).__name__} before byte {self.position}; download it again"
            raise self.budget.corrupt(problem) from error

    def find_class(self, module: str, name: str) -> Maker:
        """The maker that stands for a global; `pickle` calls this for GLOBAL and STACK_GLOBAL."""
        qualified_name = f"{module}.{name}"
        if qualified_name not in self._makers:
            problem = f"the pickle loads {qualified_name[:200]}, which is not an allowed data type"
            raise self.budget.unsafe(problem)
        return self._makers[qualified_name]

    def persistent_load(self, pid: Any) -> Any:
        if self._load_from is None:
            raise self.budget.unsafe("a reference to an object outside the pickle")
        return self._load_from(pid, self.budget)

    # -- operations that do less, or check more, than Python's ---------------------------------------------------

    def _reduce(self) -> None:
        args, maker = self.stack.pop(), self.stack.pop()
        if not isinstance(maker, Maker) or type(args) is not tuple:
            raise self.budget.unsafe(f"a call of a {type(maker).__name__}")
        self.append(maker.make(args, self.budget))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Pending):
            raise self.budget.unsafe(f"a state for a {type(target).__name__}, which has none")
        built = target.build(state)
        for key in target.memo_keys:
            if self.memo.get(key) is target:
                self.memo[key] = built
        self.append(built)

    def _extend(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key without value")
        keys = checked_keys(items[::2], self.budget)
        self._top(dict).update(zip(keys, items[1::2], strict=True))

    def _new_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _top(self, kind: type[Any]) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise self.budget.unsafe(f"items for a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def _members(self) -> list[Any]:
        return checked_keys(self.pop_mark(), self.budget)

    def _new_frozenset(self) -> None:
        members = self._members()  # before `append`, which it replaces
        self.append(frozenset(members))

    def _add_members(self) -> None:
        members = self._members()
        self._top(set).update(members)


_DAMAGE = (
    *(ArithmeticError, AssertionError, EOFError, LookupError, TypeError, ValueError),
    *(struct.error, pickle.UnpicklingError),
)


class _Operations(dict[int, Callable[[Any], None]]):
    """The operations that plain data needs, and no others."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(_ALLOWED)
        self.budget = budget

    def __missing__(self, opcode: int) -> Callable[[Any], None]:
        if opcode in Machine.dispatch:
            problem = (
                f"pickle operation {chr(opcode)!r} is refused, because plain data does not need it"
            )
            raise self.budget.unsafe(problem)
        raise self.budget.corrupt(
            f"byte {opcode:#x} is no pickle operation; download the file again"
        )


class _CountedOperations(_Operations):
    """For a pickle of more bytes than `MAX_OPS`; a shorter one cannot have as many operations."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self._left = MAX_OPS

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self._left -= 1
        if self._left < 0:
            problem = f"more than {MAX_OPS} pickle operations"
            raise SourceError(Code.TOO_LARGE, problem, where=self.budget.where)
        return super().__getitem__(opcode)


def _bounded_integer(opcode: int) -> Callable[[Any], None]:
    """Python's operation for an integer of any length; a message could not show a longer one."""
    operation = pickle._Unpickler.dispatch[opcode]

    def run(machine: Any) -> None:
        operation(machine)
        if machine.stack[-1].bit_length() > MAX_INTEGER_BITS:
            raise machine.budget.corrupt(f"an integer of more than {MAX_INTEGER_BITS} bits")

    return run


# What Python's unpickler does of itself: constants, numbers, texts, bytes, tuples, the stack and the memo.
_AS_PYTHON = (
    b"\x80\x95N\x88\x89ILFJKM\x8a\x8bGSTUVX\x8c\x8dBC\x8e(012)]}\x8ft\x85\x86\x87lghjpqr\x94c\x93Q."
)
_ALLOWED: dict[int, Callable[[Any], None]] = {
    **{opcode: pickle._Unpickler.dispatch[opcode] for opcode in _AS_PYTHON},
    **{opcode: _bounded_integer(opcode) for opcode in b"IL\x8b"},  # INT, LONG, LONG4
    ord("R"): Machine._reduce,
    0x81: Machine._reduce,  # NEWOBJ
    ord("b"): Machine._build,
    ord("a"): lambda m: m._extend([m.stack.pop()]),
    ord("e"): lambda m: m._extend(m.pop_mark()),
    ord("s"): lambda m: m._set_items([m.stack.pop(), m.stack.pop()][::-1]),
    ord("u"): lambda m: m._set_items(m.pop_mark()),
    ord("d"): Machine._new_dict,
    0x90: lambda m: m._add_members(),  # ADDITEMS
    0x91: lambda m: m._new_frozenset(),  # FROZENSET
    0x96: lambda m: m.append(bytearray(m.read(struct.unpack("<Q", m.read(8))[0]))),  # BYTEARRAY8
}


def shown(value: Any) -> str:
    """`value` for a message; one that is nested is not spelt out, because that can overflow the stack."""
    return str(value)[:200] if isinstance(value, (str, int)) else type(value).__name__


def check_key(key: Any, budget: Budget, depth: int = 0) -> None:
    """Let only plain, shallow keys be hashed; hashing a tuple nested a million deep ends the process."""
    if key is None or isinstance(key, (str, bytes, int, float, np.generic)):
        return
    if type(key) is not tuple or len(key) > MAX_KEY_ITEMS or depth >= MAX_KEY_DEPTH:
        raise budget.unsafe(f"found a {type(key).__name__} as a key; expected plain keys")
    for item in key:
        check_key(item, budget, depth + 1)


def checked_keys(items: Sequence[Any], budget: Budget) -> list[Any]:
    """`items`, each of which may be hashed."""
    for item in items:
        check_key(item, budget)
    return list(items)
