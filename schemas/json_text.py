"""Untrusted JSON as values, within bounds. This module alone calls `json.loads`."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from schemas.document import DocumentError, bounded_int, shortened
from schemas.errors import Code
from schemas.regular_file import read_regular

_NUMBER_TO_CHECK = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}")
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder()
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NO_MARKS = bytes(sorted(set(range(256)) - set(b'[]{},"')))


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLimits:
    """How much a text may ask for. Each kind of document has its own, beside what writes it.

    An element is a member of an object or of a list. One takes up to 120 bytes of memory, however few it has in the text:
    18 MB of `{},{},...` take 540 MB.
    """

    max_bytes: int
    max_elements: int
    max_depth: int = 64


# Of a file of raw data, a column of a catalog, an answer of a server.
DOCUMENT = JsonLimits(max_bytes=64 << 20, max_elements=1 << 20)
# Of a value in the middle of a file, whose reader bounds the text that it holds.
_MEMBER = JsonLimits(max_bytes=1 << 30, max_elements=1 << 24)


def parse_json(text: str | bytes, *, limits: JsonLimits = DOCUMENT, allow_nan: bool = False) -> Any:
    """The value of a JSON text. Integers fit 64 bits, numbers are finite, texts can be written as UTF-8.

    Of a key that is given twice the last one counts, as in every other JSON reader.

    Args:
        text: UTF-8 where it is bytes; a byte order mark is passed over.
        allow_nan: NaN and Infinity are read, as writers in Python make them.

    Raises:
        DocumentError: the text is no JSON or beyond these bounds.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > limits.max_bytes:
            raise DocumentError(f"{len(data)} bytes; expected at most {limits.max_bytes}")
        _check_size(data, limits)
        value = json.loads(
            data.decode("utf-8-sig") if data is text else text,
            parse_constant=None if allow_nan else _refuse_constant,
            **_number_readers(data),
        )
        if _HALF_OF_A_PAIR.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except DocumentError:
        raise
    except UnicodeError as error:
        raise DocumentError(f"not UTF-8 text: {error.reason}") from error  # type: ignore[attr-defined]
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"not valid JSON: {error}") from error
    return value


def read_json(
    path: Path,
    *,
    limits: JsonLimits,
    where: str = "",
    missing: Code = Code.MISSING_FILE,
    allow_nan: bool = False,
) -> Any:
    """The value of a JSON file.

    Raises:
        DocumentError: as `parse_json`.
        SourceError, TransientError: as `schemas.regular_file.read_regular`.
    """
    data = read_regular(path, max_bytes=limits.max_bytes, where=where, missing=missing)
    try:
        return parse_json(data, limits=limits, allow_nan=allow_nan)
    except MemoryError as error:
        error.add_note(f"reading {path}")
        raise


def scan_json(text: str, at: int) -> tuple[Any, int]:
    """The value that starts at `text[at]`, and where it ends, for a reader that holds a part of a file. NaN is read.

    Raises:
        DocumentError: the value is nested too deep, or holds what `parse_json` refuses.
        ValueError: there is no whole value; its rest may not be read yet.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise DocumentError(f"not valid JSON: {error}") from error
    data = text[at:end].encode("utf-8", "replace")
    if _NUMBER_TO_CHECK.search(data) or _HALF_OF_A_PAIR.search(data):
        return parse_json(text[at:end], limits=_MEMBER, allow_nan=True), end
    _check_size(data, _MEMBER)
    return value, end


def _number_readers(data: bytes) -> dict[str, Any]:
    """Own readers of numbers, which are slow, only where a number needs a check."""
    if not _NUMBER_TO_CHECK.search(data):
        return {}
    return {"parse_int": bounded_int, "parse_float": _finite}


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise DocumentError(f"the number {shortened(digits)} exceeds the range of 64-bit floats")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise DocumentError(f"{name} is not a JSON number")


def _check_size(data: bytes, limits: JsonLimits) -> None:
    """Bounds before parsing: elements take memory, and the parser and readers of the value are recursive."""
    num_open = data.count(b"[") + data.count(b"{")
    # Each element has a comma or a bracket of its own; marks inside of texts are told apart only where it matters.
    may_be_many = (
        len(data) > limits.max_elements and num_open + data.count(b",") > limits.max_elements
    )
    if num_open <= limits.max_depth and not may_be_many:
        return
    unescaped = _ESCAPE.sub(b"", data) if b"\\" in data else data
    no_marks = _NO_MARKS if may_be_many else _NO_MARKS + b","
    marks = np.frombuffer(unescaped.translate(None, no_marks), np.uint8)
    is_in_text = np.logical_xor.accumulate(marks == ord('"'))
    is_open = ((marks == ord("[")) | (marks == ord("{"))) & ~is_in_text
    if may_be_many:
        num_elements = np.count_nonzero(is_open | ((marks == ord(",")) & ~is_in_text))
        if num_elements > limits.max_elements:
            raise DocumentError(f"{num_elements} elements; expected at most {limits.max_elements}")
    is_closed = ((marks == ord("]")) | (marks == ord("}"))) & ~is_in_text
    steps = is_open.astype(np.int8) - is_closed.astype(np.int8)
    depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    if depth > limits.max_depth:
        raise DocumentError(f"{depth} levels of nesting; expected at most {limits.max_depth}")
