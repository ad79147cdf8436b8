"""Messages as bytes: msgpack, and arrays as openpi's client writes them. No pickle, and nothing larger than what was sent.

An array is the map {__ndarray__: true, data: bytes, dtype: "<f4", shape: [..]}, a NumPy scalar {__npgeneric__: true, data, dtype}
(openpi, `packages/openpi-client`, msgpack_numpy; starVLA has the same). Keys of these maps are bytes there; text is read too.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError

MAX_ITEMS = (
    20_000  # maps, and elements of lists and maps: a byte of msgpack can become 64 of Python
)
MAX_DIMENSIONS = 8
_DTYPE = re.compile(r"[<>|=]?[biuf][1248]")
_WHERE = "message"
_ARRAY, _SCALAR = "__ndarray__", "__npgeneric__"


def packed(value: Any) -> bytes:
    """Any of dict, list, str, bytes, numbers, None and arrays of numbers.

    Raises:
        TypeError: something else.
    """
    out: bytes = msgpack.packb(value, default=_as_map)
    return out


def unpacked(data: bytes | str) -> dict[str, Any]:
    """One message; arrays are read-only views of `data`.

    Raises:
        ConfigError: no msgpack, no map, too many parts, or an array that is none.
    """
    if isinstance(data, str):
        raise ConfigError("text frame received; expected a binary frame with msgpack", where=_WHERE)
    budget = _Budget()
    try:
        value = msgpack.unpackb(data, object_hook=budget.of_map, list_hook=budget.of_list)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:  # all of msgpack's own are ValueErrors
        raise ConfigError(f"not valid msgpack ({error!r})", where=_WHERE) from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(
            f"a {type(value).__name__}; expected a map with string keys", where=_WHERE
        )
    return value


def _as_map(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "biuf":
        raise TypeError(f"arrays of type {value.dtype} cannot be sent")
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value).tobytes()
        return {
            b"__ndarray__": True,
            b"data": data,
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


class _Budget:
    """Counts what a message turns into while it is read, so that a small hostile one does not fill memory."""

    def __init__(self) -> None:
        self.left = MAX_ITEMS

    def of_list(self, value: list[Any]) -> list[Any]:
        self._take(1 + len(value))
        return value

    def of_map(self, value: dict[Any, Any]) -> Any:
        self._take(1 + len(value))
        named = {
            k.decode(errors="replace") if isinstance(k, bytes) else k: v for k, v in value.items()
        }
        if _ARRAY in named:
            return _array(named)
        return _scalar(named) if _SCALAR in named else value

    def _take(self, num: int) -> None:
        self.left -= num
        if self.left < 0:
            raise ConfigError(f"more than {MAX_ITEMS} values in one message", where=_WHERE)


def _dtype(dtype: Any) -> np.dtype[Any]:
    dtype = dtype.decode(errors="replace") if isinstance(dtype, bytes) else dtype
    if not isinstance(dtype, str) or _DTYPE.fullmatch(dtype) is None:
        raise ConfigError(f"dtype {dtype!r:.80}; expected numbers, such as '<f4'", where=_WHERE)
    try:
        return np.dtype(dtype)
    except TypeError as error:  # "f1"
        raise ConfigError(f"dtype {dtype!r}: {error}", where=_WHERE) from error


def _array(packed: dict[str, Any]) -> npt.NDArray[Any]:
    dtype, data, shape = _dtype(packed.get("dtype")), packed.get("data"), packed.get("shape")
    if not isinstance(data, bytes) or not isinstance(shape, list | tuple):
        raise ConfigError("an array has no data or no shape", where=_WHERE)
    if len(shape) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ConfigError(f"invalid array shape {shape!s:.80}", where=_WHERE)
    if math.prod(shape) * dtype.itemsize != len(data):
        problem = f"{len(data)} bytes for an array of {dtype.str} {shape!s:.80}"
        raise ConfigError(problem, where=_WHERE)
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _scalar(scalar: dict[str, Any]) -> np.generic:
    value = scalar.get("data")
    if not isinstance(value, bool | int | float):
        raise ConfigError(f"a scalar of unsupported type {type(value).__name__}", where=_WHERE)
    try:
        out: np.generic = _dtype(scalar.get("dtype")).type(value)
    except OverflowError as error:
        raise ConfigError(f"a scalar is out of range: {error}", where=_WHERE) from error
    return out
