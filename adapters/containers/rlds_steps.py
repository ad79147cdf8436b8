"""The steps of one RLDS episode, decoded leaf by leaf out of its tf.Example.

Encodings (code: tensorflow/datasets:tensorflow_datasets/core/{example_serializer,example_parser}.py and
core/features/{tensor_feature,image_feature}.py; kuka's zlib and the float32 PNG from format page section 3.3): a leaf of
`steps` is one flat list for the whole episode; Sequences inside steps are ragged; tensors may be stored as raw or
zlib-compressed little-endian bytes; bool and integers are int64 lists, uint64 bit-cast; float64 is stored as float32.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from adapters.containers.images import image_header
from adapters.containers.rlds import Leaf
from adapters.containers.tf_example import FeatureKind, TfFeature
from schemas.errors import Code, SourceError

MAX_TENSOR_BYTES = 256 << 20
STEPS = "steps/"
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Steps:
    """Keys are relative to `steps/`, e.g. `observation/state`; T is `num_steps`."""

    features: Mapping[str, TfFeature]
    leaves: Mapping[str, Leaf]
    num_steps: int

    def has(self, key: str) -> bool:
        """Whether the episode really holds that leaf (optional features may be missing)."""
        full = STEPS + key
        return full in self.leaves and any(
            name in self.features for name in (full, f"{full}/ragged_flat_values", f"{full}/value")
        )

    def leaf(self, key: str) -> Leaf:
        """What features.json says of it. Raises SourceError MISSING_CHANNEL."""
        if STEPS + key not in self.leaves:
            near = [k.removeprefix(STEPS) for k in self.leaves if k.startswith(STEPS)]
            problem = f"not in features.json; it has {', '.join(sorted(near)[:30])}"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=key)
        return self.leaves[STEPS + key]

    def numbers(self, key: str) -> Array:
        """[T, *shape] in the declared dtype.

        Raises:
            SourceError: MISSING_CHANNEL, SHAPE_MISMATCH (also for a leaf whose steps differ in size), CORRUPT_RECORD.
        """
        leaf = self.leaf(key)
        name = STEPS + key
        if leaf.rank > 1 or f"{name}/value" in self.features:
            return _stack(self.lists(key), key)
        feature = self._feature(name)
        if leaf.encoding in ("bytes", "zlib"):
            return np.stack(
                [_unpack(blob, leaf, leaf.shape, key) for blob in self._blobs(name, key)]
            )
        return _reshape(_flat(feature, leaf), (self.num_steps, *leaf.shape), key)

    def lists(self, key: str) -> list[Array]:
        """One array per step of a ragged leaf (`ragged_flat_values`) or of one with a dynamic shape (`/shape`, `/value`).

        Raises:
            SourceError: MISSING_CHANNEL, SHAPE_MISMATCH, CORRUPT_RECORD.
        """
        leaf, name = self.leaf(key), STEPS + key
        if f"{name}/value" in self.features:
            return self._dynamic(leaf, name, key)
        flat = _flat(self._feature(f"{name}/ragged_flat_values"), leaf)
        rows = _reshape(flat, (None, *leaf.shape), key)
        counts = self._row_counts(leaf, name, key)
        is_bounded = counts.max(initial=0) <= len(rows)  # so that the sum cannot wrap around
        if len(counts) != self.num_steps or not is_bounded or counts.sum() != len(rows):
            problem = f"{len(counts)} rows summing to {counts.sum()}, {len(rows)} values, T {self.num_steps}"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=key)
        return np.split(rows, np.cumsum(counts)[:-1])

    def _row_counts(self, leaf: Leaf, name: str, key: str) -> npt.NDArray[np.int64]:
        """Values per step: the row lengths of every deeper level added up."""
        levels = [
            self._feature(f"{name}/ragged_row_lengths_{i}").ints() for i in range(leaf.rank - 1)
        ]
        if not levels:
            raise SourceError(
                Code.SHAPE_MISMATCH, "ragged values in a leaf that is not ragged", where=key
            )
        counts = levels[-1]
        for outer in reversed(levels[:-1]):
            is_bounded = outer.min(initial=0) >= 0 and outer.max(initial=0) <= len(counts)
            if not is_bounded or outer.sum() != len(counts):
                raise SourceError(Code.SHAPE_MISMATCH, "ragged row lengths disagree", where=key)
            ends = np.concatenate([[0], np.cumsum(counts)])
            at = np.concatenate([[0], np.cumsum(outer)])
            counts = ends[at[1:]] - ends[at[:-1]]
        if counts.min(initial=0) < 0:
            raise SourceError(Code.SHAPE_MISMATCH, "negative ragged row length", where=key)
        return counts

    def _dynamic(self, leaf: Leaf, name: str, key: str) -> list[Array]:
        ndim = max(len(leaf.shape), 1)
        shapes = _reshape(self._feature(f"{name}/shape").ints(), (self.num_steps, ndim), key)
        if shapes.min(initial=0) < 0:
            raise SourceError(Code.SHAPE_MISMATCH, "a dimension is negative", where=key)
        value = self._feature(f"{name}/value")
        if value.kind is FeatureKind.BYTES:
            blobs = self._blobs(f"{name}/value", key)
            return [
                _unpack(b, leaf, tuple(map(int, s)), key)
                for b, s in zip(blobs, shapes, strict=True)
            ]
        flat = _flat(value, leaf)
        sizes = [prod(map(int, s)) for s in shapes]
        if sum(sizes) != len(flat):
            problem = f"the shapes need {sum(sizes)} values; the record has {len(flat)}"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=key)
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(tuple(map(int, s))) for part, s in zip(parts, shapes, strict=True)]

    def texts(self, key: str) -> list[str]:
        """T strings. Raises SourceError MISSING_CHANNEL, FRAME_COUNT, or BAD_ANNOTATION when one is not UTF-8."""
        self.leaf(key)
        try:
            return [bytes(blob).decode() for blob in self._blobs(STEPS + key, key)]
        except UnicodeDecodeError as error:
            raise SourceError(
                Code.BAD_ANNOTATION, f"text is not UTF-8: {error}", where=key
            ) from error

    def images(self, key: str) -> tuple[bytes, ...]:
        """T compressed pictures (JPEG or PNG), copied out of the record and still compressed.

        Raises:
            SourceError: MISSING_CHANNEL, FRAME_COUNT, CORRUPT_IMAGE (the declared format is not believed: the magic
                bytes are read), TOO_LARGE.
        """
        self.leaf(key)
        blobs = self._blobs(STEPS + key, key)
        for step, blob in enumerate(blobs):
            image_header(blob, f"{key} step {step}")
        return tuple(bytes(blob) for blob in blobs)

    def depth(self, key: str) -> Array:
        """[T, H, W] of a depth picture: float32 hidden in the four channels of a PNG, or uint16 (the scale is the set's).

        Raises:
            SourceError: as `images`, and CORRUPT_IMAGE when a picture does not decode to that.
        """
        is_float = self.leaf(key).dtype == "float32"
        return _stack([_depth(data, key, is_float=is_float) for data in self.images(key)], key)

    def _feature(self, name: str) -> TfFeature:
        if name not in self.features:
            problem = "declared in features.json but not in this record"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=name)
        return self.features[name]

    def _blobs(self, name: str, key: str) -> list[memoryview]:
        blobs = self._feature(name).blobs()
        if len(blobs) != self.num_steps:
            problem = f"{len(blobs)} entries for {self.num_steps} steps"
            raise SourceError(Code.FRAME_COUNT, problem, where=key)
        return blobs


def steps_of(features: Mapping[str, TfFeature], leaves: Mapping[str, Leaf]) -> Steps:
    """The steps of a parsed record; T comes from a scalar leaf such as `steps/is_first`.

    Raises:
        SourceError: UNKNOWN_LAYOUT without any scalar leaf, EMPTY_EPISODE, SHAPE_MISMATCH when scalars disagree on T.
    """
    preferred = [f"{STEPS}{name}" for name in ("is_first", "is_last", "is_terminal", "reward")]
    scalars = [
        leaf.key
        for leaf in leaves.values()
        if leaf.key.startswith(STEPS)
        and leaf.rank == 1
        and leaf.is_number
        and leaf.shape == ()
        and leaf.encoding == "none"
        and leaf.key in features
    ]
    if not scalars:
        problem = "no scalar leaf such as steps/is_first, so the number of steps T is unknown"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where="steps")
    chosen = [key for key in preferred if key in scalars] or sorted(scalars)
    counts = {key: _flat(features[key], leaves[key]).size for key in chosen}
    if len(set(counts.values())) > 1:
        raise SourceError(
            Code.SHAPE_MISMATCH, f"scalar leaves have different numbers of steps: {counts}"
        )
    if counts[chosen[0]] == 0:
        raise SourceError(Code.EMPTY_EPISODE, "no steps", where=chosen[0])
    return Steps(features, leaves, counts[chosen[0]])


def _flat(feature: TfFeature, leaf: Leaf) -> Array:
    """The flat values in the declared dtype."""
    if feature.kind is FeatureKind.FLOAT:
        dtype = "float64" if leaf.dtype == "float64" else "float32"
        return feature.floats().astype(dtype)
    values = feature.ints()
    if leaf.dtype == "bool":
        return np.not_equal(values, 0)
    if leaf.dtype == "uint64":
        return values.view(np.uint64)
    return values.astype(_dtype(leaf)) if feature.kind is FeatureKind.INT64 else values


def _dtype(leaf: Leaf) -> np.dtype[Any]:
    try:
        dtype = np.dtype(leaf.dtype)
    except TypeError as error:
        raise SourceError(
            Code.UNKNOWN_LAYOUT,
            f"dtype {leaf.dtype!r} is not supported; expected a boolean, integer or float type",
            where=leaf.key,
        ) from error
    if dtype.kind not in "biuf":
        raise SourceError(
            Code.UNKNOWN_LAYOUT,
            f"dtype {leaf.dtype!r} is not supported; expected a boolean, integer or float type",
            where=leaf.key,
        )
    return dtype.newbyteorder("<")


def _reshape(flat: Array, shape: tuple[int | None, ...], key: str) -> Array:
    known = prod(d for d in shape if d is not None)
    free = sum(d is None for d in shape)
    if (
        free > 1
        or (free == 0 and flat.size != known)
        or (free and (not known or flat.size % known))
    ):
        problem = f"{flat.size} values do not fill shape {shape}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=key)
    return flat.reshape([-1 if d is None else d for d in shape])


def _unpack(blob: memoryview, leaf: Leaf, shape: tuple[int | None, ...], key: str) -> Array:
    """One tensor stored as raw or zlib-compressed little-endian bytes; inflating stops at the expected size."""
    dtype = _dtype(leaf)
    expected = prod(d for d in shape if d is not None) * dtype.itemsize
    is_open = any(d is None for d in shape)
    limit = MAX_TENSOR_BYTES if is_open else expected
    if limit > MAX_TENSOR_BYTES:
        raise SourceError(
            Code.TOO_LARGE, f"a tensor has more than {limit} bytes per step", where=key
        )
    data = bytes(blob) if leaf.encoding != "zlib" else _inflate(blob, limit, key)
    if len(data) > limit or (not is_open and len(data) != expected) or len(data) % dtype.itemsize:
        problem = f"{len(data)} bytes for shape {shape} of {dtype}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=key)
    return _reshape(np.frombuffer(data, dtype), shape, key)


def _inflate(blob: memoryview, limit: int, key: str) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(blob, limit + 1)
    except zlib.error as error:
        raise SourceError(Code.CORRUPT_RECORD, f"zlib: {error}", where=key) from error
    if len(data) > limit:
        raise SourceError(Code.TOO_LARGE, f"decompresses to more than {limit} bytes", where=key)
    if not inflater.eof:
        raise SourceError(Code.CORRUPT_RECORD, "the zlib stream is truncated", where=key)
    return data


def _depth(data: bytes, key: str, *, is_float: bool) -> Array:
    picture: Array | None
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise SourceError(Code.CORRUPT_IMAGE, f"does not decode: {error}", where=key) from error
    expected = (3, "uint8") if is_float else (2, "uint16")
    if picture is None or (picture.ndim, picture.dtype.name) != expected:
        raise SourceError(Code.CORRUPT_IMAGE, "not a depth image of the declared format", where=key)
    if not is_float:
        return picture
    if picture.shape[2] != 4:
        problem = f"{picture.shape[2]} channels, expected the 4 bytes of a float32"
        raise SourceError(Code.CORRUPT_IMAGE, problem, where=key)
    rgba = np.ascontiguousarray(picture[..., [2, 1, 0, 3]])  # OpenCV hands over blue first
    return rgba.view("<f4")[..., 0]


def _stack(parts: list[Array], key: str) -> Array:
    if len({part.shape for part in parts}) > 1:
        problem = f"images of different sizes: {sorted({p.shape for p in parts})[:5]}"
        raise SourceError(Code.SHAPE_MISMATCH, problem, where=key)
    return np.stack(parts)
