"""The pickle virtual machine, our own: it can build plain values, and only makers that the caller lists are ever called.

Python's unpickler imports what the data names, sets attributes on what it finds, resizes its memo to any index, and hashes
tuples nested to any depth (a crash of the interpreter). None of that exists here: a global is a key into a table of `Maker`s,
a state goes to the `Pending` value that its own maker returned, and keys are plain. Opcodes: CPython `Lib/pickletools.py`.
Python 2's byte strings come out as `str` (latin-1), which is how numpy's Python-2 pickles are read.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from schemas.errors import Code, SourceError

MAX_OPS = 20_000_000  # about half a minute, and at most some 2 GB of small objects
MAX_DIGITS = 400  # of a number written as text
MAX_KEY_ITEMS, MAX_KEY_DEPTH = 64, 4


class Budget:
    """Bytes that makers may still allocate: a memoised value can be used a million times for two bytes each."""

    def __init__(self, limit: int, where: str) -> None:
        self.where, self._left = where, limit

    def spend(self, count: int) -> None:
        """Take `count` bytes. Raises SourceError(TOO_LARGE) when the pickle makes far more than it holds."""
        self._left -= count
        if self._left < 0:
            problem = "the pickle makes far more data than it holds; it is not read"
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


class Machine:
    """Runs one pickle of `data`, from `start`. After `run`, `position` is the byte after its STOP.

    Raises (all methods) SourceError: UNSAFE_CONTENT for a global, an opcode or a key outside the allow-list; TRUNCATED when
    the bytes end early; CORRUPT_RECORD when they are not a pickle; TOO_LARGE beyond `MAX_OPS`.
    """

    def __init__(
        self,
        data: bytes,
        makers: Mapping[str, Maker],
        budget: Budget,
        *,
        start: int = 0,
        persistent_load: PersistentLoad | None = None,
    ) -> None:
        self.position = start
        self._data, self._makers, self._budget = data, makers, budget
        self._persistent_load = persistent_load
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value before STOP."""
        at = self.position
        try:
            for _ in range(MAX_OPS):
                at = self.position
                opcode = self._take(1)
                if opcode == b".":
                    return self._stack.pop()
                self._operation(opcode)(self)
        except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
            problem = f"not a whole pickle: {type(error).__name__} at byte {at}; fetch it again"
            raise self._budget.corrupt(problem) from error
        problem = f"more than {MAX_OPS} pickle operations"
        raise SourceError(Code.TOO_LARGE, problem, where=self._budget.where)

    def _operation(self, opcode: bytes) -> Callable[[Machine], None]:
        known = _OPERATIONS.get(opcode)
        if known is not None:
            return known
        if opcode in _REFUSED:
            problem = f"pickle operation {_REFUSED[opcode]} is refused: plain data does not need it"
            raise self._budget.unsafe(problem)
        problem = (
            f"byte {opcode!r} at {self.position - 1} is no pickle operation; fetch the file again"
        )
        raise self._budget.corrupt(problem)

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self._data):
            problem = f"the pickle ends inside a value, at byte {len(self._data)}; fetch it again"
            raise SourceError(Code.TRUNCATED, problem, where=self._budget.where)
        part = self._data[self.position : end]
        self.position = end
        return part

    def _number(self, form: str) -> int:
        (value,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return int(value)

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self.position)
        if end < 0:
            self._take(len(self._data) + 1)
        line = self._take(end - self.position)
        self.position += 1
        return line

    def _short_line(self) -> bytes:
        line = self._line()
        if len(line) > MAX_DIGITS:
            raise self._budget.corrupt(f"a number or name of {len(line)} characters")
        return line

    # -- stack and memo ------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _tuple(self, count: int) -> None:
        items = (
            tuple(self._stack[len(self._stack) - count :]) if len(self._stack) >= count else None
        )
        if items is None:
            raise IndexError(count)
        del self._stack[len(self._stack) - count :]
        self.push(items)

    def _put(self, key: int) -> None:
        value = self._stack[-1]
        if isinstance(value, Pending):
            value.memo_keys.append(key)
        self._memo[key] = value

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    # -- containers ----------------------------------------------------------------------------------------------

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise self._budget.unsafe(f"items are appended to a {type(target).__name__}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise self._budget.unsafe(f"items are set on a {type(target).__name__}")
        if len(items) % 2:
            raise ValueError("a key without value")
        for at in range(0, len(items), 2):
            check_key(items[at], self._budget)
            target[items[at]] = items[at + 1]

    def _new_dict(self) -> None:
        items = self._pop_mark()
        self.push({})
        self._set_items(items)

    def _add_items(self) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if type(target) is not set:
            raise self._budget.unsafe(f"items are added to a {type(target).__name__}")
        target.update(checked_keys(items, self._budget))

    # -- globals -------------------------------------------------------------------------------------------------

    def _global(self, module: Any, name: Any) -> None:
        qualified_name = f"{shown(module)}.{shown(name)}"
        maker = self._makers.get(qualified_name)
        if maker is None or type(module) is not str or type(name) is not str:
            problem = f"the pickle asks for {qualified_name}, which is not on the list of plain data types"
            raise self._budget.unsafe(problem)
        self.push(maker)

    def _global_by_line(self) -> None:
        module, name = self._short_line().decode("utf-8"), self._short_line().decode("utf-8")
        self._global(module, name)

    def _global_by_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._global(module, name)

    def _reduce(self) -> None:
        args, maker = self._stack.pop(), self._stack.pop()
        if not isinstance(maker, Maker) or type(args) is not tuple:
            raise self._budget.unsafe(f"a call of a {type(maker).__name__}")
        self.push(maker.make(args, self._budget))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack.pop()
        if not isinstance(target, Pending):
            raise self._budget.unsafe(f"a state for a {type(target).__name__}, which has none")
        built = target.build(state)
        for key in target.memo_keys:
            if self._memo.get(key) is target:
                self._memo[key] = built
        self.push(built)

    def _persistent(self) -> None:
        if self._persistent_load is None:
            raise self._budget.unsafe("a reference to an object outside the pickle")
        self.push(self._persistent_load(self._stack.pop(), self._budget))

    # -- texts ---------------------------------------------------------------------------------------------------

    def _quoted(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
            raise ValueError("a string without quotes")
        self.push(codecs.escape_decode(line[1:-1])[0].decode("latin-1"))

    def _text(self, length: int) -> None:
        self.push(self._take(length).decode("utf-8", "surrogatepass"))

    def _int_line(self) -> None:
        line = self._short_line()
        self.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line))

    def _long(self, length: int) -> None:
        if length > MAX_DIGITS:
            raise self._budget.corrupt(f"an integer of {length} bytes")
        self.push(int.from_bytes(self._take(length), "little", signed=True))

    def _frame(self) -> None:
        if self._number("<Q") > len(self._data) - self.position:
            self._take(len(self._data) + 1)

    def _protocol(self) -> None:
        version = self._take(1)[0]
        if version > 5:
            raise ValueError(f"pickle protocol {version}")


def shown(value: Any) -> str:
    """`value` for a message; one that is nested is not spelt out, because that can overflow the stack."""
    return str(value)[:200] if isinstance(value, (str, int)) else type(value).__name__


def check_key(key: Any, budget: Budget, depth: int = 0) -> None:
    """Let only plain, shallow keys be hashed; hashing a tuple nested a million deep ends the process."""
    if key is None or isinstance(key, (str, bytes, int, float, np.generic)):
        return
    if type(key) is not tuple or len(key) > MAX_KEY_ITEMS or depth >= MAX_KEY_DEPTH:
        raise budget.unsafe(f"a {type(key).__name__} as a key; plain keys were expected")
    for item in key:
        check_key(item, budget, depth + 1)


def checked_keys(items: list[Any] | tuple[Any, ...], budget: Budget) -> list[Any]:
    """`items`, each of which may be hashed."""
    for item in items:
        check_key(item, budget)
    return list(items)


def _take_number(form: str) -> Callable[[Machine], None]:
    return lambda machine: machine.push(machine._number(form))


def _literal(*, value: Any) -> Callable[[Machine], None]:
    return lambda machine: machine.push(value)


_OPERATIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine._protocol,
    b"\x95": Machine._frame,
    b"N": _literal(value=None),
    b"\x88": _literal(value=True),
    b"\x89": _literal(value=False),
    b"I": Machine._int_line,
    b"L": lambda m: m.push(int(m._short_line().removesuffix(b"L"))),
    b"F": lambda m: m.push(float(m._short_line())),
    b"J": _take_number("<i"),
    b"K": _take_number("<B"),
    b"M": _take_number("<H"),
    b"\x8a": lambda m: m._long(m._number("<B")),
    b"\x8b": lambda m: m._long(m._number("<i")),
    b"G": lambda m: m.push(struct.unpack(">d", m._take(8))[0]),
    b"S": Machine._quoted,
    b"T": lambda m: m.push(m._take(m._number("<i")).decode("latin-1")),
    b"U": lambda m: m.push(m._take(m._number("<B")).decode("latin-1")),
    b"V": lambda m: m.push(m._line().decode("raw-unicode-escape")),
    b"X": lambda m: m._text(m._number("<I")),
    b"\x8c": lambda m: m._text(m._number("<B")),
    b"\x8d": lambda m: m._text(m._number("<Q")),
    b"B": lambda m: m.push(m._take(m._number("<I"))),
    b"C": lambda m: m.push(m._take(m._number("<B"))),
    b"\x8e": lambda m: m.push(m._take(m._number("<Q"))),
    b"\x96": lambda m: m.push(bytearray(m._take(m._number("<Q")))),
    b"(": Machine._mark,
    b"0": Machine._pop,
    b"1": lambda m: m._pop_mark().clear(),
    b"2": lambda m: m.push(m._stack[-1]),
    b")": _literal(value=()),
    b"]": lambda m: m.push([]),
    b"}": lambda m: m.push({}),
    b"\x8f": lambda m: m.push(set()),
    b"t": lambda m: m.push(tuple(m._pop_mark())),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"l": lambda m: m.push(m._pop_mark()),
    b"d": Machine._new_dict,
    b"a": lambda m: m._append([m._stack.pop()]),
    b"e": lambda m: m._append(m._pop_mark()),
    b"s": lambda m: m._set_items([m._stack.pop(), m._stack.pop()][::-1]),
    b"u": lambda m: m._set_items(m._pop_mark()),
    b"\x90": Machine._add_items,
    b"\x91": lambda m: m.push(frozenset(checked_keys(m._pop_mark(), m._budget))),
    b"g": lambda m: m.push(m._memo[int(m._short_line())]),
    b"h": lambda m: m.push(m._memo[m._number("<B")]),
    b"j": lambda m: m.push(m._memo[m._number("<I")]),
    b"p": lambda m: m._put(int(m._short_line())),
    b"q": lambda m: m._put(m._number("<B")),
    b"r": lambda m: m._put(m._number("<I")),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"c": Machine._global_by_line,
    b"\x93": Machine._global_by_stack,
    b"R": Machine._reduce,
    b"\x81": Machine._reduce,
    b"b": Machine._build,
    b"Q": Machine._persistent,
}

_REFUSED = {
    b"P": "PERSID",
    b"i": "INST",
    b"o": "OBJ",
    b"\x92": "NEWOBJ_EX",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}
