"""tf.train.Example from its wire bytes, without TensorFlow or protobuf.

Messages (doc: tensorflow/tensorflow:tensorflow/core/example/feature.proto):
`Example{1: Features{1: map<string, Feature>}}`, `Feature` is one of 1 bytes_list, 2 float_list, 3 int64_list, each with
its values in field 1. Lists may be packed or not; a Feature with none of the three is an empty list; unknown fields
are skipped. Values stay slices of the record until they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from schemas.errors import Code, SourceError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {_FIXED64: 8, _FIXED32: 4}


class FeatureKind(IntEnum):
    """Which list a Feature holds; the value is its field number."""

    EMPTY = 0
    BYTES = 1
    FLOAT = 2
    INT64 = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TfFeature:
    """One named list, still encoded: `bodies` are the list messages (more than one is lawful: they add up)."""

    name: str
    kind: FeatureKind
    bodies: tuple[memoryview, ...] = ()

    def blobs(self) -> list[memoryview]:
        """The byte strings, as slices of the record.

        Raises:
            SourceError: CORRUPT_RECORD, for another kind of list too.
        """
        self._must_be(FeatureKind.BYTES)
        return [
            value
            for body in self.bodies
            for field, value in _fields(body, self.name)
            if field == 1 and isinstance(value, memoryview)
        ]

    def floats(self) -> npt.NDArray[np.float32]:
        """The float32 values [N]. Raises SourceError CORRUPT_RECORD."""
        self._must_be(FeatureKind.FLOAT)
        parts = [_floats(body, self.name) for body in self.bodies]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def ints(self) -> npt.NDArray[np.int64]:
        """The int64 values [N]. Raises SourceError CORRUPT_RECORD."""
        self._must_be(FeatureKind.INT64)
        parts = [_ints(body, self.name) for body in self.bodies]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _must_be(self, kind: FeatureKind) -> None:
        if self.kind not in (kind, FeatureKind.EMPTY):
            problem = f"a {self.kind.name.lower()} list, expected {kind.name.lower()}"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=self.name)


def parse_example(data: bytes) -> dict[str, TfFeature]:
    """The features of a serialised Example by name; a name given twice keeps its last value, as protobuf does.

    Raises:
        SourceError: CORRUPT_RECORD when the bytes are no Example.
    """
    out: dict[str, TfFeature] = {}
    for field, features in _fields(memoryview(data), "Example"):
        if field != 1:
            continue
        for entry_field, entry in _fields(_message(features, "Example"), "Features"):
            if entry_field == 1:
                feature = _map_entry(_message(entry, "Features"))
                out[feature.name] = feature
    return out


def _map_entry(body: memoryview) -> TfFeature:
    name, feature = "", memoryview(b"")
    for field, value in _fields(body, "Features"):
        if field == 1:
            name = _text(_message(value, "Features"))
        elif field == 2:
            feature = _message(value, name)
    kind = FeatureKind.EMPTY
    bodies: list[memoryview] = []
    for field, value in _fields(feature, name):
        if field not in (1, 2, 3):
            continue
        if FeatureKind(field) is not kind:  # a oneof: the last kind wins
            kind, bodies = FeatureKind(field), []
        bodies.append(_message(value, name))
    return TfFeature(name=name, kind=kind, bodies=tuple(bodies))


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise _corrupt("a feature name is not UTF-8", "Features") from error


def _message(value: memoryview | int, where: str) -> memoryview:
    if isinstance(value, int):
        raise _corrupt("a number where a message was expected", where)
    return value


def _corrupt(problem: str, where: str) -> SourceError:
    return SourceError(Code.CORRUPT_RECORD, f"{problem}; not a valid tf.Example", where=where)


def _varint(buffer: memoryview, at: int, where: str) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at + i >= len(buffer):
            raise _corrupt(f"a varint is truncated at byte {at}", where)
        byte = buffer[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + i + 1
    raise _corrupt(f"a varint longer than 10 bytes at byte {at}", where)


def _fields(buffer: memoryview, where: str) -> Iterator[tuple[int, memoryview | int]]:
    """(field number, value) of a message; a value is a slice of the buffer, or an int for a varint."""
    at = 0
    while at < len(buffer):
        tag, at = _varint(buffer, at, where)
        wire = tag & 7
        if wire == _VARINT:
            number, at = _varint(buffer, at, where)
            yield tag >> 3, number
            continue
        if wire == _BYTES:
            size, at = _varint(buffer, at, where)
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
        else:
            raise _corrupt(f"wire type {wire} at byte {at}", where)
        if at + size > len(buffer):
            raise _corrupt(f"a field of {size} bytes at byte {at} of {len(buffer)}", where)
        yield tag >> 3, buffer[at : at + size]
        at += size


def _floats(body: memoryview, where: str) -> npt.NDArray[np.float32]:
    parts = []
    for field, value in _fields(body, where):
        if field != 1:
            continue
        blob = _message(value, where)
        if len(blob) % 4:
            raise _corrupt(f"{len(blob)} bytes of packed floats", where)
        parts.append(np.frombuffer(blob, "<f4"))
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)


def _ints(body: memoryview, where: str) -> npt.NDArray[np.int64]:
    parts = []
    for field, value in _fields(body, where):
        if field != 1:
            continue
        if isinstance(value, int):
            parts.append(np.array([value], np.uint64).view(np.int64))
        else:
            parts.append(_packed_varints(value, where))
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _packed_varints(blob: memoryview, where: str) -> npt.NDArray[np.int64]:
    """All varints of a packed field at once: shift every 7-bit group into place, then OR the groups of each number."""
    groups = np.frombuffer(blob, np.uint8)
    is_end = groups < 0x80
    if is_end.all():  # numbers below 128, the common case: flags and bool lists
        return groups.astype(np.int64)
    if not is_end[-1]:
        raise _corrupt("a varint is truncated at the end of a packed list", where)
    ends = np.flatnonzero(is_end)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise _corrupt("a varint longer than 10 bytes in a packed list", where)
    shift = (np.arange(len(groups)) - np.repeat(starts, lengths)) * 7
    shifted = (groups & 0x7F).astype(np.uint64) << shift.astype(np.uint64)
    return np.bitwise_or.reduceat(shifted, starts).view(np.int64)
