"""Pickles from outside, and the numbers in them.

Pickles from outside: plain containers, NumPy arrays and scalars, torch tensors (as NumPy arrays).

Nothing that a pickle names is imported or called: names are looked up in a fixed table of our own makers (`pickle_machine.py`),
anything else is refused. Memory is bounded by the length of the file: at most `GROWTH` times it, plus a little.
`collections.defaultdict` becomes a plain `dict`: a missing key is an error, as it should be in data.

Numbers from a pickle of a source: type and count are checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from adapters.containers.pickle_machine import Budget, Machine, Maker
from adapters.containers.pickle_torch import torch_makers
from adapters.containers.pickle_types import builtin_makers, numpy_makers
from schemas.errors import Code, SourceError
from schemas.geometry import Array
from schemas.regular_file import read_regular

# -- restricted pickle ---------------------------------------------------------------------------------------------

MIB = 1 << 20
MAX_PICKLE_BYTES = 512 * MIB
GROWTH, HEADROOM_BYTES = 4, 16 * MIB
MAX_DEPTH = 64  # of containers in containers
# numpy reads the header as a Python literal, and tries again as Python 2's: each parser has its own way to fail.
_HEADER_ERRORS = (
    KeyError,
    ValueError,
    TypeError,
    SyntaxError,
    TokenError,
    RecursionError,
    MemoryError,
)


def loads(
    data: bytes,
    *,
    where: str,
    extra: Mapping[str, Maker] | None = None,
    max_bytes: int = MAX_PICKLE_BYTES,
) -> Any:
    """The value that is pickled in `data` (protocols 0 to 5, Python 2's byte strings as latin-1 text).

    Args:
        data: the pickle; what follows its end is ignored, as Python's own reader does.
        where: names the file in errors.
        extra: makers of further types, by "module.name".
        max_bytes: the longest pickle that is read.

    Raises:
        SourceError: UNSAFE_CONTENT naming the global or operation that is not plain data; TRUNCATED, CORRUPT_RECORD for
            bytes that are no whole pickle; TOO_LARGE for one that is too long, or that makes far more than it holds.
    """
    if len(data) > max_bytes:
        problem = f"a pickle of {len(data)} bytes; expected at most {max_bytes}"
        raise SourceError(Code.TOO_LARGE, problem, where=where)
    budget = Budget(GROWTH * len(data) + HEADROOM_BYTES, where)
    value = Machine(data, {**_MAKERS, **(extra or {})}, budget).run()
    _check_plain(value, budget)
    return value


def load_pickle_file(
    path: Path, *, extra: Mapping[str, Maker] | None = None, max_bytes: int = MAX_PICKLE_BYTES
) -> Any:
    """The value pickled in a file. Raises as `loads`, and SourceError MISSING_FILE or UNREADABLE."""
    return loads(_read(path, max_bytes), where=path.name, extra=extra, max_bytes=max_bytes)


def load_npy_object(path: Path, *, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """The one object that `numpy.save` pickled into a .npy file: dtype object, shape ().

    Raises:
        SourceError: as `load_pickle_file`; CORRUPT_RECORD when the file is no .npy, UNKNOWN_LAYOUT when it holds numbers
            or many objects.
    """
    data = _read(path, max_bytes)
    start = _npy_data_start(path, data)
    array = loads(data[start:], where=path.name, max_bytes=max_bytes)
    if not isinstance(array, np.ndarray) or array.shape != () or array.dtype != object:
        problem = (
            f"the pickle contains a {type(array).__name__}; expected a numpy array of one object"
        )
        raise SourceError(Code.CORRUPT_RECORD, problem, where=path.name)
    return array[()]


def _npy_data_start(path: Path, data: bytes) -> int:
    stream = BytesIO(data[: 64 * 1024])
    try:
        version = npy_format.read_magic(stream)
        read = {
            (1, 0): npy_format.read_array_header_1_0,
            (2, 0): npy_format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(stream)
    except _HEADER_ERRORS as error:
        problem = f"not a .npy file: {str(error)[:200]}; download it again"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=path.name) from error
    if shape != () or dtype != np.dtype(object):
        problem = (
            f"an array {shape} of {dtype}; expected one pickled object (dtype object, shape ())"
        )
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=path.name)
    return stream.tell()


def _read(path: Path, max_bytes: int) -> bytes:
    return read_regular(path, max_bytes=max_bytes)


_MAKERS: Mapping[str, Maker] = {**builtin_makers(), **numpy_makers(), **torch_makers()}


_LEAVES = (str, int, float, bytes, bytearray, complex, np.generic, np.dtype)


def _check_plain(value: Any, budget: Budget) -> None:
    """Refuse what is left unbuilt, holds itself, or is nested so deep that a reader of it would overflow."""
    heights: dict[int, int] = {}
    open_ids: set[int] = set()
    todo: list[tuple[Any, bool]] = [(value, False)]
    while todo:
        node, is_done = todo.pop()
        if _is_leaf(node) or (id(node) in heights and not is_done):
            continue
        children = _children(node, budget)
        if is_done:
            open_ids.discard(id(node))
            heights[id(node)] = 1 + max((heights.get(id(c), 0) for c in children), default=0)
            if heights[id(node)] > MAX_DEPTH:
                raise budget.unsafe(f"containers are nested more than {MAX_DEPTH} levels deep")
            continue
        if id(node) in open_ids:
            raise budget.unsafe("a container contains itself")
        open_ids.add(id(node))
        todo.append((node, True))
        todo.extend((child, False) for child in children)


def _is_leaf(node: Any) -> bool:
    return (
        node is None
        or isinstance(node, _LEAVES)
        or (isinstance(node, np.ndarray) and not node.dtype.hasobject)
    )


def _children(node: Any, budget: Budget) -> list[Any]:
    inner: Iterable[Any]
    if isinstance(node, dict):
        inner = node.values()
    elif isinstance(node, (list, tuple)):
        inner = node
    elif isinstance(node, (set, frozenset)):
        inner = ()  # members are keys: plain and shallow already
    elif isinstance(node, np.ndarray):
        inner = node.ravel().tolist()
    else:
        name = getattr(node, "name", type(node).__name__)
        raise budget.unsafe(f"a value of type {name}; expected plain data")
    return [child for child in inner if not _is_leaf(child)]


# -- pickled numbers -----------------------------------------------------------------------------------------------


def numbers(value: Any, shape: tuple[int, ...], where: str) -> Array:
    """A pickled array or tensor as float64 of `shape`; extra axes of length 1 are taken off, NaN is let through.

    Raises:
        SourceError: CORRUPT_RECORD for what is no array of numbers, SHAPE_MISMATCH.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        problem = f"the file contains {_kind(value)}; expected a numeric array"
        raise SourceError(Code.CORRUPT_RECORD, problem, where=where)
    if [n for n in value.shape if n != 1] != [n for n in shape if n != 1]:
        problem = f"the array has shape {list(value.shape)}; expected {list(shape)}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
    assert value.size == math.prod(shape)
    return np.asarray(value, dtype=np.float64).reshape(shape)


def mapping(value: Any, where: str) -> dict[Any, Any]:
    """A pickled dict.

    Raises:
        SourceError: UNKNOWN_LAYOUT.
    """
    if not isinstance(value, dict):
        raise SourceError(
            Code.UNKNOWN_LAYOUT, f"the file contains {_kind(value)}; expected a dict", where=where
        )
    return value


def _kind(value: Any) -> str:
    return (
        f"an array of {value.dtype}"
        if isinstance(value, np.ndarray)
        else f"a {type(value).__name__}"
    )
