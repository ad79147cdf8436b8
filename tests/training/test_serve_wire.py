"""Messages as openpi's client writes them, and those that somebody wrote to do harm."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from schemas.errors import ConfigError
from training.policy.observation import Observation
from training.server import messages
from training.server.client import message_of
from training.server.wire import MAX_ITEMS, packed, unpacked


def array(**changed: Any) -> bytes:
    """A message with one array, by hand: what openpi's msgpack_numpy makes of np.float32([[1, 2]])."""
    said = {
        b"__ndarray__": True,
        b"data": b"\x00\x00\x80?\x00\x00\x00@",
        b"dtype": "<f4",
        b"shape": [1, 2],
    } | {key.encode(): value for key, value in changed.items()}
    out: bytes = msgpack.packb({"x": said})
    return out


def test_an_array_of_openpi_is_read() -> None:
    found = unpacked(array())["x"]
    assert found.dtype == np.float32
    assert found.tolist() == [[1.0, 2.0]]


def test_what_is_written_is_what_openpi_reads() -> None:
    """The same bytes as its client makes, key by key."""
    assert packed({"x": np.array([[1, 2]], np.float32)}) == array()


def test_text_keys_and_other_byte_orders_are_read() -> None:
    said = {"__ndarray__": True, "data": b"?\x80\x00\x00", "dtype": ">f4", "shape": [1]}
    found = unpacked(msgpack.packb({"x": said}))["x"]
    assert found.tolist() == [1.0]
    assert found.dtype.isnative


@pytest.mark.parametrize(
    "value",
    [np.zeros((0, 3), np.uint8), np.array(2.5), np.ones((2, 3, 4), bool), np.arange(3)[::-1]],
)
def test_arrays_come_back(value: np.ndarray) -> None:
    found = unpacked(packed({"a": {"b": [value, None, "ü", 3]}}))["a"]["b"]
    np.testing.assert_array_equal(found[0], value)
    assert found[0].dtype == value.dtype
    assert found[1:] == [None, "ü", 3]
    scalar = unpacked(packed({"s": np.float32(0.5)}))["s"]
    assert scalar == 0.5
    assert isinstance(scalar, np.float32)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dtype": "|O"}, "dtype"),
        ({"dtype": "object"}, "dtype"),
        ({"dtype": "<c8"}, "dtype"),
        ({"dtype": "<M8[s]"}, "dtype"),
        ({"dtype": "f4,f4"}, "dtype"),
        ({"dtype": "f1"}, "dtype"),
        ({"dtype": 7}, "dtype"),
        ({"shape": [1 << 40, 1 << 40]}, "8 bytes"),
        ({"shape": [-1, -2]}, "shape"),
        ({"shape": [True, 2]}, "shape"),
        ({"shape": [1.0, 2.0]}, "shape"),
        ({"shape": [1] * 40}, "shape"),
        ({"shape": [3]}, "8 bytes"),
        ({"shape": None}, "shape"),
        ({"data": "text"}, "data"),
        ({"data": b"\x00" * 7}, "7 bytes"),
    ],
)
def test_an_array_that_is_none_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        unpacked(array(**changed))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x93\x01\x02\x03",
        msgpack.packb([1]),
        msgpack.packb({1: 2}),
        msgpack.packb({b"a": 2}),
        msgpack.packb({"a": 1}) + b"\x00",
        b"\x81\xa1a\xa1\xff",
        "text",
        b"\x91" * 100_000,
        msgpack.packb({"s": {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}}),
        msgpack.packb({"s": {b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}}),
        b"\x81\x91\x01\x02",
    ],
)
def test_what_is_no_message_is_refused(data: bytes | str) -> None:
    with pytest.raises(ConfigError):
        unpacked(data)


@pytest.mark.parametrize("inner", [{}, [], [None] * 4])
def test_a_small_message_cannot_fill_memory(inner: Any) -> None:
    bomb = msgpack.packb({"x": [[inner] * 1000] * 1000})
    tracemalloc.start()
    with pytest.raises(ConfigError, match=f"{MAX_ITEMS}"):
        unpacked(bomb)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(unpacked(data), dict)


NAMES = ("prompt", "embodiment", "type", "request_id", "payload", "verbose", "observation/front", "observation/images/", "observation/latents/front", "observation/history", "observation/state")  # fmt: skip
NAMED = st.sampled_from([*NAMES, *(name.encode() for name in NAMES)])
ARRAYS = st.sampled_from(["u1", "i8", "?", "<f2", "f4", ">f8"]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3))
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3) | st.binary(max_size=3) | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMED, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow])  # of a busy machine
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_a_message_is_an_observation_or_refused(said: dict[str, Any]) -> None:
    """And the refusal itself can be sent."""
    request: dict[str, Any] = {}
    try:
        request = unpacked(packed(said))
        messages.kind_of(request)
        messages.observation_of({"embodiment": "arm", **request}, ("arm", "hand"))
    except ConfigError as error:
        packed(messages.refused(request, str(error)))


def test_stored_pictures_are_said_to_be_stored() -> None:
    """Else the server would reduce them again."""
    shown = Observation(
        text="go",
        embodiment="arm",
        pictures={"front": np.zeros((1, 4, 4, 3), np.uint8)},
        is_stored=True,
    )
    message = unpacked(packed(message_of(shown)))
    assert messages.observation_of(message, ("arm",)).is_stored
    assert not messages.observation_of(message | {"is_stored": False}, ("arm",)).is_stored
    with pytest.raises(ConfigError, match="is_stored is a str; expected true or false"):
        messages.observation_of(message | {"is_stored": "yes"}, ("arm",))


def test_only_numbers_travel() -> None:
    for value in (np.array(["a"]), np.array([object()]), np.array([1j]), object()):
        with pytest.raises(TypeError):
            packed({"x": value})
