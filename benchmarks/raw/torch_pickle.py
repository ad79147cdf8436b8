"""Pickles with torch tensors in them, byte for byte in torch's own form, written without torch.

A tensor is `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`; its storage is
`torch.storage._load_from_bytes(stream)`, where the stream is what `torch.save` wrote before it wrote zip files: magic number,
protocol, a word about the system, the storage as a persistent id, the list of keys, then the count and the elements.
`tests/adapters/test_taco.py` has torch read what is written here.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {
    "protocol_version": PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}
HEAD = b"".join(pickle.dumps(value, protocol=2) for value in (MAGIC, PROTOCOL, SYSTEM))
STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}
KEY = "94348783281712"  # an address in memory; any text will do


class Tensor:
    """Numbers that are to be pickled as a tensor; `device` is where the writer had it."""

    def __init__(self, values: Any, dtype: str = "f4", device: str = "cpu") -> None:
        self.values, self.device = np.ascontiguousarray(values, dtype=dtype), device


def dumps(value: Any, protocol: int = 2) -> bytes:
    """The pickle of plain containers, arrays and `Tensor`s."""
    out = io.BytesIO()
    _Pickler(out, protocol).dump(value)
    return out.getvalue()


def _stream(tensor: Tensor) -> bytes:
    """The storage of a tensor as `torch.save` wrote it until 1.5, and as it pickles one to this day."""
    kind, count = STORAGES[tensor.values.dtype.str[1:]], tensor.values.size
    words = b"".join(_text(word) for word in (KEY, tensor.device))
    storage = b"\x80\x02(" + _text("storage") + f"ctorch\n{kind}\n".encode() + words
    storage += b"J" + struct.pack("<i", count) + b"NtQ."
    keys = pickle.dumps([KEY], protocol=2)
    return HEAD + storage + keys + struct.pack("<q", count) + tensor.values.tobytes()


def _text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


class _Pickler(
    pickle._Pickler
):  # the one in Python: its C twin cannot write a global that is not importable
    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_tensor(self, tensor: Tensor) -> None:
        shape = tensor.values.shape
        strides = tuple(n // tensor.values.itemsize for n in tensor.values.strides)
        self.write(b"ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\n")
        self.save((_stream(tensor),))
        self.write(b"R")
        for part in (0, shape, strides, False, OrderedDict()):
            self.save(part)
        self.write(b"tR")

    dispatch[Tensor] = save_tensor
