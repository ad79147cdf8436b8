"""TFRecord files of tf.train.Example, written without TensorFlow. `adapters/containers/{tfrecord,tf_example}.py` read them.

Framing: tensorflow/tensorflow `core/lib/io/record_writer.h`. Messages: `core/example/feature.proto`; map entries are in the order of names, so the
same features give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from adapters.containers.tf_example import FeatureKind
from adapters.containers.tfrecord import FOOTER, HEADER, masked_crc

Values = npt.NDArray[np.float32] | npt.NDArray[np.int64] | Sequence[bytes]


def record_bytes(example: bytes) -> bytes:
    """A record around an Example."""
    length = len(example).to_bytes(8, "little")
    return b"".join(
        (
            HEADER.pack(len(example), masked_crc(length)),
            example,
            FOOTER.pack(masked_crc(example)),
        )
    )


def example_bytes(features: Mapping[str, Values]) -> bytes:
    """A serialised Example. A float32 array is a float_list, an int64 array an int64_list, all else a bytes_list."""
    entries = (
        _field(1, [_field(1, [name.encode()]), _field(2, [_feature(features[name])])])
        for name in sorted(features)
    )
    return _field(1, entries)


def _feature(values: Values) -> bytes:
    if not isinstance(values, np.ndarray):
        return _field(FeatureKind.BYTES, [_field(1, [value]) for value in values])
    if values.dtype == np.float32:
        packed = np.ascontiguousarray(values, "<f4").tobytes()
        return _field(FeatureKind.FLOAT, [_field(1, [packed])])
    packed = b"".join(_varint(int(value)) for value in values.ravel())
    return _field(FeatureKind.INT64, [_field(1, [packed])])


def _field(number: int, parts: Iterable[bytes]) -> bytes:
    """A length-delimited field."""
    body = b"".join(parts)
    return b"".join((_varint(number << 3 | 2), _varint(len(body)), body))


def _varint(value: int) -> bytes:
    """Base 128, of a negative number its two's complement of 64 bits."""
    left, out = value & 0xFFFFFFFFFFFFFFFF, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)
