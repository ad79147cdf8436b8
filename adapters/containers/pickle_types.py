"""What a pickle may make by a call: NumPy's types, builtin types and collections.

NumPy arrays, scalars and dtypes inside a pickle, built from checked parts; numpy's own `__setstate__` is not called.

Forms (source: numpy `_core/src/multiarray/methods.c:array_reduce_ex`, `descriptor.c:arraydescr_reduce`): an array is
`_reconstruct(ndarray, (0,), b"b")` with the state `(1, shape, dtype, is_fortran, bytes or list)`, from protocol 5 on also
`_frombuffer(buffer, dtype, shape, order[, axis_order])`; a scalar is `scalar(dtype, bytes)`; a dtype is `dtype("f8", ...)` with the
state `(3, "<", None, None, None, itemsize, alignment, flags)`. Modules are numpy 1's (`numpy.core`) and 2's (`numpy._core`).

Builtin and collection types that a pickle makes by a call: sets, bytes, complex numbers, ordered and default dicts.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from typing import Any

import numpy as np

from adapters.containers.pickle_machine import (
    Budget,
    Maker,
    Pending,
    check_key,
    checked_keys,
    shown,
)
from schemas.geometry import Array

# -- pickle numpy --------------------------------------------------------------------------------------------------

# Numbers, booleans, fixed-width text and objects. No structured types, dates, long doubles or raw memory (V).
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU][1-9]\d{0,7}|O[48]?|[?bBhHiIlLqQefdFDO]")
MAX_DIMENSIONS = 32


def buffer(value: Any, budget: Budget) -> bytes | bytearray:
    """The bytes of `value`: Python 2's strings arrive as latin-1 text."""
    if isinstance(value, str):
        budget.spend(len(value))
        return value.encode("latin-1")
    if isinstance(value, (bytes, bytearray)):
        return value
    raise budget.unsafe(f"found a {type(value).__name__}; expected bytes")


def _sizes(value: Any) -> str:
    is_short = isinstance(value, (tuple, list)) and len(value) <= MAX_DIMENSIONS
    return f"({', '.join(shown(size) for size in value)})" if is_short else type(value).__name__


def checked_shape(value: Any, budget: Budget) -> tuple[int, ...]:
    """Sizes of the axes: at most 32 whole numbers, none negative."""
    is_plain = isinstance(value, (tuple, list)) and len(value) <= MAX_DIMENSIONS
    if not is_plain or not all(type(size) is int and 0 <= size < 1 << 40 for size in value):
        raise budget.corrupt(f"array shape {_sizes(value)}")
    return tuple(value)


def _dtype(args: tuple[Any, ...], budget: Budget) -> Pending:
    name = args[0].decode("latin-1") if isinstance(args[0], bytes) else args[0]
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise budget.unsafe(f"numpy dtype {shown(name)!r}: only numbers, text and objects are read")

    def build(state: Any) -> np.dtype[Any]:
        if type(state) is not tuple or len(state) < 5 or state[2:5] != (None, None, None):
            raise budget.unsafe(f"numpy dtype {name} with fields or a sub-array")
        order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise budget.corrupt(f"byte order {shown(order)!r}")
        dtype: np.dtype[Any] = np.dtype("O" if name[0] == "O" else name)
        if dtype.hasobject or order in ("|", "="):
            return dtype
        return dtype.newbyteorder("<" if order == "<" else ">")

    return Pending(name="numpy.dtype", build=build)


def _want_dtype(value: Any, budget: Budget) -> np.dtype[Any]:
    if not isinstance(value, np.dtype) or value.itemsize == 0:
        raise budget.corrupt(f"found a {type(value).__name__}; expected a numpy dtype")
    return value


def _from_buffer(
    raw: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str, budget: Budget
) -> Array:
    if dtype.hasobject:
        raise budget.unsafe("an object array stored as raw memory")
    data = buffer(raw, budget)
    if len(data) != math.prod(shape) * dtype.itemsize:
        problem = f"{len(data)} bytes for an array {shape} of {dtype}; download the file again"
        raise budget.corrupt(problem)
    if not data:
        return np.zeros(shape, dtype=dtype)
    array: Array = np.frombuffer(data, dtype=dtype).reshape(
        shape, order="F" if order == "F" else "C"
    )
    return array


def _from_objects(items: Any, shape: tuple[int, ...], order: str, budget: Budget) -> Array:
    if type(items) is not list:
        raise budget.unsafe("an object array stored as raw memory")
    if len(items) != math.prod(shape):
        raise budget.corrupt(f"an array of objects {shape} without that many objects")
    budget.spend(8 * len(items))
    flat = np.empty(len(items), dtype=object)
    for at, item in enumerate(items):
        flat[at] = item
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(args: tuple[Any, ...], budget: Budget) -> Pending:
    if not args or not isinstance(args[0], Maker) or args[0].name != "numpy.ndarray":
        raise budget.unsafe("numpy's _reconstruct of something other than numpy.ndarray")

    def build(state: Any) -> Array:
        if type(state) is not tuple or len(state) not in (4, 5):
            raise budget.corrupt("a numpy array without its state")
        shape, dtype, is_fortran, raw = state[-4:]
        order = "F" if is_fortran else "C"
        checked, kind = checked_shape(shape, budget), _want_dtype(dtype, budget)
        if kind.hasobject:
            return _from_objects(raw, checked, order, budget)
        return _from_buffer(raw, kind, checked, order, budget)

    return Pending(name="numpy.ndarray", build=build)


def _frombuffer(args: tuple[Any, ...], budget: Budget) -> Array:
    raw, dtype, shape, order = args[:4]
    checked, kind = checked_shape(shape, budget), _want_dtype(dtype, budget)
    if order not in ("C", "F", "K"):
        raise budget.corrupt(f"array order {shown(order)!r}")
    array = _from_buffer(raw, kind, checked, order, budget)
    axes = args[4] if order == "K" and len(args) > 4 else None
    return array if axes is None else array.transpose(checked_shape(axes, budget))


def _scalar(args: tuple[Any, ...], budget: Budget) -> Any:
    kind = _want_dtype(args[0], budget)
    return _from_buffer(args[1], kind, (1,), "C", budget)[0]


def _no_call(name: str) -> Maker:
    def refuse(args: tuple[Any, ...], budget: Budget) -> Any:
        raise budget.unsafe(f"a call of {name}")

    return Maker(name=name, make=refuse)


def numpy_makers() -> dict[str, Maker]:
    """Makers by the names that numpy 1 and numpy 2 write."""
    makers = {
        "numpy.ndarray": _no_call("numpy.ndarray"),
        "numpy.dtype": Maker(name="numpy.dtype", make=_dtype),
    }
    for core in ("numpy.core", "numpy._core"):
        makers[f"{core}.multiarray._reconstruct"] = Maker(name="_reconstruct", make=_reconstruct)
        makers[f"{core}.multiarray.scalar"] = Maker(name="scalar", make=_scalar)
        makers[f"{core}.numeric._frombuffer"] = Maker(name="_frombuffer", make=_frombuffer)
    return makers


# -- pickle builtins -----------------------------------------------------------------------------------------------

_BYTES_PER_ITEM = 64  # of a dict or set that a maker fills


def _pairs(args: tuple[Any, ...], budget: Budget) -> list[tuple[Any, Any]]:
    """Items of a mapping that is given as a list of pairs, as Python 2 wrote OrderedDict."""
    items = args[0] if args else []
    if len(args) > 1 or type(items) is not list:
        raise budget.unsafe("a mapping made from something other than a list of pairs")
    budget.spend(_BYTES_PER_ITEM * len(items))
    for pair in items:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise budget.corrupt("a mapping made from something other than a list of pairs")
        check_key(pair[0], budget)
    return [(pair[0], pair[1]) for pair in items]


def _ordered_dict(args: tuple[Any, ...], budget: Budget) -> Any:
    return OrderedDict(_pairs(args, budget))


def _default_dict(args: tuple[Any, ...], budget: Budget) -> Any:
    if len(args) > 1 or (args and args[0] is not None and not isinstance(args[0], Maker)):
        raise budget.unsafe("a defaultdict with unusual arguments")
    return {}


def _members(args: tuple[Any, ...], budget: Budget) -> list[Any]:
    items = args[0] if args else []
    if len(args) > 1 or type(items) not in (list, tuple):
        raise budget.unsafe("a set made from something other than a list")
    budget.spend(_BYTES_PER_ITEM * len(items))
    return checked_keys(items, budget)


def _set(args: tuple[Any, ...], budget: Budget) -> Any:
    return set(_members(args, budget))


def _frozenset(args: tuple[Any, ...], budget: Budget) -> Any:
    return frozenset(_members(args, budget))


def _encode(args: tuple[Any, ...], budget: Budget) -> Any:
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        raise budget.unsafe("_codecs.encode with something other than text and latin1")
    return buffer(args[0], budget)


def _bytes(args: tuple[Any, ...], budget: Budget) -> Any:
    if len(args) == 2:  # protocol 2 and Python 3: bytes(text, "latin-1")
        return _encode(args, budget)
    if args and type(args[0]) not in (bytes, bytearray):
        raise budget.unsafe("bytes made from something other than bytes")
    budget.spend(len(args[0]) if args else 0)
    return bytes(args[0]) if args else b""


def _bytearray(args: tuple[Any, ...], budget: Budget) -> Any:
    return bytearray(_bytes(args, budget))


def _complex(args: tuple[Any, ...], budget: Budget) -> Any:
    if len(args) != 2 or not all(type(part) is float for part in args):
        raise budget.corrupt("a complex number without its two parts")
    return complex(*args)


def _reconstructor(args: tuple[Any, ...], budget: Budget) -> Any:
    """`copyreg._reconstructor(cls, object, None)`: how protocols 0 and 1 make an object without arguments."""
    if len(args) != 3 or not isinstance(args[0], Maker) or args[2] is not None:
        raise budget.unsafe("copyreg._reconstructor with unusual arguments")
    return args[0].make((), budget)


def _empty(kind: type[Any]) -> Maker:
    """A builtin type as a defaultdict names it; called, it gives the empty value only."""

    def make(args: tuple[Any, ...], budget: Budget) -> Any:
        if args:
            raise budget.unsafe(f"a call of builtins.{kind.__name__}")
        return kind()

    return Maker(name=f"builtins.{kind.__name__}", make=make)


def builtin_makers() -> dict[str, Maker]:
    """Makers by the names that Python 2 and Python 3 write."""
    makers = {
        "collections.OrderedDict": Maker(name="collections.OrderedDict", make=_ordered_dict),
        "collections.defaultdict": Maker(name="collections.defaultdict", make=_default_dict),
        "_codecs.encode": Maker(name="_codecs.encode", make=_encode),
        "copy_reg._reconstructor": Maker(name="_reconstructor", make=_reconstructor),
        "copyreg._reconstructor": Maker(name="_reconstructor", make=_reconstructor),
    }
    calls = {
        "set": _set,
        "frozenset": _frozenset,
        "bytes": _bytes,
        "bytearray": _bytearray,
        "complex": _complex,
    }
    for module in ("builtins", "__builtin__"):
        for name, make in calls.items():
            makers[f"{module}.{name}"] = Maker(name=name, make=make)
        for kind in (list, dict, tuple, str, int, float, bool):
            makers[f"{module}.{kind.__name__}"] = _empty(kind)
    return makers
