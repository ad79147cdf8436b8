"""JSON of other people as values, within bounds: the only place that calls `json.loads`.

`json.loads` alone raises four kinds of errors (`ValueError`, `RecursionError`, `UnicodeDecodeError`, and a `ValueError` for a
number of more than 4,300 digits), and gives what breaks later: integers over 64 bits, infinity for `1e999`, halves of surrogate
pairs that no file can hold, and nesting on which a recursive reader fails. Here all of them are one `DocumentError`.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import numpy as np

from schemas.document import DocumentError, bounded_int, shortened

MAX_BYTES = 512 << 20
MAX_DEPTH = 64
_NUMBER_TO_CHECK = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}")
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder()
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NO_MARKS = bytes(sorted(set(range(256)) - set(b'[]{}"')))


def parse_json(
    text: str | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    allow_nan: bool = False,
    with_unique_keys: bool = False,
) -> Any:
    """The value of a JSON text. Integers fit 64 bits, numbers are finite, texts can be written as UTF-8.

    Args:
        text: UTF-8 where it is bytes; a byte order mark is passed over.
        allow_nan: NaN and Infinity are read, as writers in Python make them.
        with_unique_keys: a key that is given twice is refused. Otherwise the last one counts, as in every other JSON reader.

    Raises:
        DocumentError: the text is no JSON or beyond these bounds.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > max_bytes:
            raise DocumentError(f"{len(data)} bytes; expected at most {max_bytes}")
        _check_depth(data, max_depth)
        value = json.loads(
            data.decode("utf-8-sig") if data is text else text,
            parse_constant=None if allow_nan else _refuse_constant,
            object_pairs_hook=_unique if with_unique_keys else None,
            **_number_readers(data),
        )
        if _HALF_OF_A_PAIR.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except DocumentError:
        raise
    except UnicodeError as error:
        raise DocumentError(f"no UTF-8 text: {error.reason}") from error  # type: ignore[attr-defined]
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"no JSON: {error}") from error
    return value


def scan_json(text: str, at: int) -> tuple[Any, int]:
    """The value that starts at `text[at]`, and where it ends, for a reader that holds a part of a file. NaN is read.

    Raises:
        DocumentError: the value is beyond the bounds of `parse_json`.
        ValueError: there is no whole value; its rest may not be read yet.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except RecursionError as error:
        raise DocumentError(f"no JSON: {error}") from error
    data = text[at:end].encode("utf-8", "replace")
    if _NUMBER_TO_CHECK.search(data) or _HALF_OF_A_PAIR.search(data):
        return parse_json(text[at:end], allow_nan=True), end
    _check_depth(data, MAX_DEPTH)
    return value, end


def _number_readers(data: bytes) -> dict[str, Any]:
    """Own readers of numbers, which are slow, only where a number needs a check."""
    if not _NUMBER_TO_CHECK.search(data):
        return {}
    return {"parse_int": bounded_int, "parse_float": _finite}


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise DocumentError(f"the number {shortened(digits)} is beyond 64-bit floats")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise DocumentError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"the key {shortened(twice)!r} is given twice")
    return out


def _check_depth(data: bytes, max_depth: int) -> None:
    """A bound before parsing, because the parser and whoever walks the value are recursive."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    unescaped = _ESCAPE.sub(b"", data) if b"\\" in data else data
    marks = np.frombuffer(unescaped.translate(None, _NO_MARKS), np.uint8)
    is_in_string = np.logical_xor.accumulate(marks == ord('"'))
    is_open = ((marks == ord("[")) | (marks == ord("{"))) & ~is_in_string
    is_closed = ((marks == ord("]")) | (marks == ord("}"))) & ~is_in_string
    steps = is_open.astype(np.int8) - is_closed.astype(np.int8)
    depth = int(np.cumsum(steps, dtype=np.int64).max(initial=0))
    if depth > max_depth:
        raise DocumentError(f"{depth} levels of nesting; expected at most {max_depth}")
