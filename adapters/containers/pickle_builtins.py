"""Builtin and collection types that a pickle makes by a call: sets, bytes, complex numbers, ordered and default dicts."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from adapters.containers.pickle_machine import Budget, Maker, check_key, checked_keys
from adapters.containers.pickle_numpy import buffer

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
