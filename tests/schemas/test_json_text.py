"""Every JSON text gives a value that the rest of the project can hold, or one `DocumentError`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.document import DocumentError
from schemas.errors import SourceError
from schemas.json_text import DOCUMENT, parse_json, read_json

HOSTILE = {
    "5,000 digits": b'{"a": ' + b"7" * 5_000 + b"}",
    "5,000 digits of a fraction": b'{"a": 1' + b"0" * 5_000 + b".5}",
    "2^63": b"[9223372036854775808]",
    "-2^63 - 1": b"[-9223372036854775809]",
    "infinity in disguise": b"[1e999]",
    "NaN": b"[NaN]",
    "-Infinity": b'{"a": -Infinity}',
    "nested 100,000 deep": b"[" * 100_000,
    "nested 65 deep": b"[" * 65 + b"]" * 65,
    "nested objects": b'{"a":' * 70 + b"1" + b"}" * 70,
    "nested beside brackets in a text": rb'["]]]]]\"]]]]]", ' * 80 + b"1" + b"]" * 80,
    "half of a surrogate pair": rb'["\ud800"]',
    "no UTF-8": b'["\xff"]',
    "nothing": b"",
    "half": b'{"a": [1, 2',
    "two values": b"1 2",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_is_one_error(text: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 300
    if text.isascii():
        with pytest.raises(DocumentError):
            parse_json(text.decode())


def test_what_is_at_the_bounds_is_read() -> None:
    edge = [2**63 - 1, -(2**63), 1e308, -1e308, 0.1234567890123456789012, 1e-400]
    assert parse_json(json.dumps(edge)) == edge
    assert parse_json(b"[" * 64 + b"]" * 64) is not None
    assert parse_json(b'["' + b"[" * 1000 + b'", "\\"[[[["]') == ["[" * 1000, '"[[[[']
    assert parse_json(rb'["\ud83e\udd16"]') == ["\U0001f916"]
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_limits_are_the_callers() -> None:
    assert str(parse_json(b"[NaN, Infinity]", allow_nan=True)) == "[nan, inf]"
    assert parse_json(b'{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(DocumentError, match="at most 3"):
        parse_json(b"[[1]]", limits=replace(DOCUMENT, max_bytes=3))
    with pytest.raises(DocumentError, match="2 levels"):
        parse_json(b"[[1]]", limits=replace(DOCUMENT, max_depth=1))


def test_elements_are_bounded_before_they_take_memory() -> None:
    """18 MB of these took 539 MB."""
    for text in (b"{},", b"[],", b'"",', b'{"":0},'):
        with pytest.raises(
            DocumentError, match=rf"elements; expected at most {DOCUMENT.max_elements}"
        ):
            parse_json(b"[" + text * 6_000_000 + b"0]")


def test_elements_are_members_of_objects_and_lists_and_not_commas_of_texts() -> None:
    four = replace(DOCUMENT, max_elements=4)
    for text in (b"[1,2,3,4]", b'{"a":[],"b":[]}', b'["%s"]' % (b",[{" * 100), rb'["\",,,,,,"]'):
        parse_json(text, limits=four)
        parse_json(text.decode(), limits=four)
    for text in (b"[1,2,3,4,5]", b'{"a":[],"b":[],"c":0}', b'["a,b",",",0,0,0]', b"[[],[],[]]"):
        with pytest.raises(DocumentError, match="elements; expected at most 4"):
            parse_json(text, limits=four)


def test_a_file_has_the_bound_of_its_document(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[1, 2]")
    assert read_json(path, limits=replace(DOCUMENT, max_bytes=6)) == [1, 2]
    with pytest.raises(SourceError, match="6 bytes; expected at most 5"):
        read_json(path, limits=replace(DOCUMENT, max_bytes=5))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('abc[]{}"\\'), inner),
    max_leaves=20,
)


@given(value=VALUES, ascii_only=st.booleans())
def test_what_json_writes_comes_back(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789eE+-.\\udNaI ').map(str.encode))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    try:
        value = parse_json(data)
    except DocumentError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
