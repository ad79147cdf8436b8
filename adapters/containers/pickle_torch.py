"""Torch tensors inside a pickle, as NumPy arrays and without torch. GPU tensors hold the same bytes and are read alike.

Forms (source: `pytorch/pytorch:torch/_utils.py`, `torch/storage.py`, `torch/serialization.py:_legacy_save`): a tensor is
`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`, its storage `_load_from_bytes(bytes)`. The bytes are a
stream of five pickles (magic number, protocol, system, the storage as a persistent id, the list of keys) and then, per key,
an int64 count of elements and the elements, little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.containers.pickle_machine import Budget, Machine, Maker, shown
from adapters.containers.pickle_types import buffer, checked_shape
from schemas.geometry import Array

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Promise:
    """A storage whose elements follow after the pickles."""

    dtype: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Storage:
    values: Array  # flat


def _storage_type(name: str) -> Maker:
    def refuse(args: tuple[Any, ...], budget: Budget) -> Any:
        raise budget.unsafe(f"a call of {name}")

    return Maker(name=name, make=refuse)


_STORAGE_TYPES = {
    f"{module}.{name}": _storage_type(name)
    for module in ("torch", "torch.cuda")
    for name in _DTYPES
}


def _promise(saved: Any, budget: Budget) -> _Promise:
    if type(saved) is not tuple or len(saved) != 6 or saved[0] != "storage" or saved[5] is not None:
        raise budget.unsafe("a torch stream that holds something other than one whole storage")
    _, kind, key, _, count, _ = saved
    if not isinstance(kind, Maker) or not isinstance(key, str) or type(count) is not int:
        raise budget.corrupt("a torch storage without type, key or count")
    return _Promise(dtype=np.dtype(_DTYPES[kind.name]), key=key, count=count)


def _load_from_bytes(args: tuple[Any, ...], budget: Budget) -> _Storage:
    (raw,) = args
    data = bytes(buffer(raw, budget))
    budget.spend(len(data))
    position = 0
    values: list[Any] = []
    for _ in range(5):
        machine = Machine(data, _STORAGE_TYPES, budget, start=position, persistent_load=_promise)
        values.append(machine.run())
        position = machine.position
    magic, protocol, system, promise, keys = values
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
        raise budget.corrupt("not a torch.save stream of the kind that a pickled tensor holds")
    if system.get("little_endian") is not True:
        raise budget.corrupt("a torch storage that is not little-endian")
    if not isinstance(promise, _Promise) or keys != [promise.key]:
        raise budget.unsafe("a torch stream that holds something other than one whole storage")
    return _Storage(values=_elements(data, position, promise, budget))


def _elements(data: bytes, position: int, promise: _Promise, budget: Budget) -> Array:
    (count,) = struct.unpack_from("<q", data, position)
    start = position + 8
    if count != promise.count or count < 0 or count * promise.dtype.itemsize != len(data) - start:
        problem = f"a torch storage of {promise.count} elements with {len(data) - start} bytes; download the file again"
        raise budget.corrupt(problem)
    return np.frombuffer(data, dtype=promise.dtype, offset=start, count=count)


def _rebuild_tensor(args: tuple[Any, ...], budget: Budget) -> Array:
    storage, offset, size, stride = args[:4]
    if not isinstance(storage, _Storage):
        raise budget.unsafe(f"a tensor over a {type(storage).__name__}")
    shape, steps = checked_shape(size, budget), checked_shape(stride, budget)
    values = storage.values
    if len(shape) != len(steps) or type(offset) is not int or offset < 0:
        raise budget.corrupt(f"a tensor with size {shape}, stride {steps}, offset {shown(offset)}")
    if 0 in shape:
        return np.zeros(shape, dtype=values.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if last >= len(values):
        raise budget.corrupt(f"a tensor that reaches element {last} of a storage of {len(values)}")
    count = 1
    for n in shape:
        count *= n
    budget.spend(count * values.itemsize)
    byte_steps = tuple(step * values.itemsize for step in steps)
    view = np.lib.stride_tricks.as_strided(values[offset:], shape, byte_steps, writeable=False)
    return np.array(view, order="C")


def _first(args: tuple[Any, ...], budget: Budget) -> Any:
    if not args or not isinstance(args[0], (np.ndarray, tuple)):
        raise budget.unsafe("a torch parameter or size without its content")
    return args[0]


def torch_makers() -> dict[str, Maker]:
    """Makers by the names that torch writes, 0.4 to 2.x."""
    tensor = Maker(name="_rebuild_tensor", make=_rebuild_tensor)
    return {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_parameter": Maker(name="_rebuild_parameter", make=_first),
        "torch.Size": Maker(name="torch.Size", make=_first),
        "torch.storage._load_from_bytes": Maker(name="_load_from_bytes", make=_load_from_bytes),
    }
