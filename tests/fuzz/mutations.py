"""One small damage of a file's bytes, drawn by a generator: what disks, downloads and attackers do."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
ODD_NUMBERS = (b"-1", b"0", b"9223372036854775808", b"1e999", b"NaN", b"4294967296", b"7" * 400)
STRING = re.compile(rb'"[^"\\]{0,60}"')
ODD_STRINGS = (b'""', b'"../../x"', b'"/etc/passwd"', b'"\\u0000"', b'"\\ud800"', b"null", b"[]")
ODD_STRINGS += (b'{"a": 1}', b"true", b'"' + b"a" * 5000 + b'"')


@dataclass(frozen=True)
class Outcome:
    """Of one mutation: whose file was damaged, which one, who looked at it, and what does not hold."""

    source: str  # or the room of a corpus
    file: str
    check: str
    problems: list[str] = field(default_factory=list)


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def splice(data: bytes, rng: random.Random) -> bytes:
    """A chunk is copied over another place."""
    size = rng.randrange(1, min(len(data), 512) + 1)
    source, target = rng.randrange(len(data)), rng.randrange(len(data))
    return data[:target] + data[source : source + size] + data[target + size :]


def delete(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 512) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randrange(1, 256)) + data[start:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    chunk = data[start : start + rng.randrange(1, 4096)]
    return data[:start] + chunk + data[start:]


def edit_length(data: bytes, rng: random.Random) -> bytes:
    """Four or eight bytes become a number that a length field may not have."""
    width = rng.choice((1, 2, 4, 8))
    start = rng.randrange(max(1, min(len(data), rng.choice((64, 4096, len(data))))))
    value = rng.choice((0, 1, (1 << (8 * width)) - 1, 1 << (8 * width - 1), rng.getrandbits(8)))
    order = rng.choice(("little", "big"))
    stored = (value % (1 << (8 * width))).to_bytes(width, order)  # type: ignore[arg-type]
    return data[:start] + stored + data[start + width :]


def edit_number(data: bytes, rng: random.Random) -> bytes:
    return _edited(data, NUMBER, ODD_NUMBERS, rng)


def edit_string(data: bytes, rng: random.Random) -> bytes:
    return _edited(data, STRING, ODD_STRINGS, rng)


def _edited(
    data: bytes, pattern: re.Pattern[bytes], odd: tuple[bytes, ...], rng: random.Random
) -> bytes:
    found = list(pattern.finditer(data[: 1 << 20]))
    if not found:
        return flip_bits(data, rng)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(odd) + data[one.end() :]


BINARY: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(flip_bits, flip_bits, truncate, splice, delete, insert, duplicate),
    *(edit_length, edit_length),
)
TEXT = (*BINARY, edit_number, edit_number, edit_number, edit_string, edit_string, edit_string)
TEXT_SUFFIXES = (".json", ".jsonl", ".yaml", ".csv", ".txt", ".zarray", ".zgroup")


def mutated(data: bytes, name: str, others: list[bytes], rng: random.Random) -> bytes:
    """Changed bytes; one in 20 is another file of the set, one in 20 is nothing."""
    if not data or rng.random() < 0.05:
        return rng.choice([b"", *others])
    changes = TEXT if name.endswith(TEXT_SUFFIXES) else BINARY
    return rng.choice(changes)(data, rng)
