"""tf.Example wire bytes: known values by hand, both list styles, and hostile bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.containers.tf_example import FeatureKind, parse_example
from jobs.demo.raw.oxe import example_bytes, feature_bytes, field, varint
from schemas.errors import Code, SourceError

I64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
EDGES = np.array([0, 1, 127, 128, 300, 2**31, 2**63 - 1, -1, -(2**63)])


def entry(name: str, feature: bytes) -> bytes:
    return field(1, field(1, field(1, name.encode()) + field(2, feature)))


def read_all(data: bytes) -> None:
    for found in parse_example(data).values():
        {FeatureKind.BYTES: found.blobs, FeatureKind.FLOAT: found.floats}.get(
            found.kind, found.ints
        )()


def test_a_message_worked_out_by_hand() -> None:
    # Example{features{feature{key "a" value{int64_list{value [1, 300]}}}}}; 300 is 0xAC 0x02 as a varint.
    data = bytes.fromhex("0a0e 0a0c 0a0161 1207 1a05 0a03 01ac02".replace(" ", ""))
    assert parse_example(data)["a"].ints().tolist() == [1, 300]


@pytest.mark.parametrize("is_packed", [True, False])
def test_both_list_styles(*, is_packed: bool) -> None:
    floats = np.array([1.5, -2.25, np.inf], np.float32)
    features = {"f": floats, "i": EDGES, "b": [b"", b"xyz"]}
    found = parse_example(example_bytes(features, is_packed=is_packed))
    assert found["f"].floats().tolist() == floats.tolist()
    assert found["f"].floats().dtype == np.float32
    assert found["i"].ints().tolist() == EDGES.tolist()
    assert [bytes(b) for b in found["b"].blobs()] == [b"", b"xyz"]


@settings(max_examples=60)
@given(st.lists(I64, max_size=40))
def test_packed_varints_equal_one_by_one(values: list[int]) -> None:
    data = example_bytes({"v": np.array(values, dtype=np.int64)})
    assert parse_example(data)["v"].ints().tolist() == values


def test_an_empty_feature_is_an_empty_list_of_any_kind() -> None:
    found = parse_example(example_bytes({"none": None, "no_floats": np.zeros(0, np.float32)}))
    assert found["none"].kind is FeatureKind.EMPTY
    assert found["none"].ints().size == found["none"].floats().size == 0
    assert found["none"].blobs() == []
    assert found["no_floats"].floats().size == 0


def test_unknown_fields_are_skipped() -> None:
    unknown = b"\x48\x05" + b"\x51" + b"8bytes!!" + b"\x5d" + b"4byt" + field(12, b"?")
    inner = feature_bytes(np.array([7])) + unknown
    data = unknown + entry("x", inner) + unknown
    assert parse_example(data)["x"].ints().tolist() == [7]


def test_the_last_kind_of_a_oneof_wins_and_equal_kinds_add_up() -> None:
    one, two = feature_bytes(np.array([1])), feature_bytes(np.array([2]))
    changed = feature_bytes(np.array([0.5], np.float32)) + one + two
    assert parse_example(entry("x", changed))["x"].ints().tolist() == [1, 2]


def test_a_name_given_twice_keeps_its_last_value() -> None:
    data = example_bytes({"x": np.array([1])}) + example_bytes({"x": np.array([2])})
    assert parse_example(data)["x"].ints().tolist() == [2]


def test_values_stay_slices_of_the_record() -> None:
    picture = b"\xff\xd8\xff" + b"p" * 1000
    data = example_bytes({"image": [picture]})
    blob = parse_example(data)["image"].blobs()[0]
    assert isinstance(blob, memoryview)
    assert blob.obj is data


def test_another_kind_than_asked_for_is_corrupt() -> None:
    found = parse_example(example_bytes({"x": np.array([1])}))
    for ask in (found["x"].floats, found["x"].blobs):
        with pytest.raises(SourceError) as caught:
            ask()
        assert caught.value.code is Code.CORRUPT_RECORD


@pytest.mark.parametrize(
    "feature",
    [
        field(3, field(1, b"\x01\x80")),  # packed varint breaks off
        field(3, field(1, b"\x80" * 10 + b"\x01")),  # packed varint of 11 bytes
        field(3, b"\x08\x80"),  # unpacked varint breaks off
        field(3, b"\x08" + b"\xff" * 10 + b"\x01"),  # unpacked varint of 11 bytes
        field(2, field(1, b"abcde")),  # 5 bytes of packed floats
        field(2, b"\x0dab"),  # unpacked float breaks off
        field(1, b"\x0a\x7fshort"),  # byte string longer than its list
        field(3, b"\x0b"),  # wire type 3 (group) is not lawful here
        b"\x1a" + varint(2**62),  # list longer than the record
        b"\x08\x05",  # a number where the list belongs
    ],
)
def test_hostile_bytes_are_a_corrupt_record(feature: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        read_all(entry("x", feature))
    assert caught.value.code is Code.CORRUPT_RECORD


@settings(max_examples=300)
@given(st.integers(0, 200), st.integers(0, 255), st.integers(0, 60))
def test_damage_never_escapes_as_another_error(at: int, byte: int, cut: int) -> None:
    good = example_bytes({"f": np.ones(3, np.float32), "i": EDGES, "b": [b"abc"]})
    data = bytearray(good)
    data[at % len(data)] = byte
    codes = []
    try:
        read_all(bytes(data[: len(data) - cut]))
    except SourceError as error:
        codes.append(error.code)
    assert codes in ([], [Code.CORRUPT_RECORD])


def test_a_name_that_is_no_text() -> None:
    data = field(1, field(1, field(1, b"\xff\xfe") + field(2, b"")))
    with pytest.raises(SourceError, match="UTF-8"):
        parse_example(data)
