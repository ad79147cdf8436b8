"""TFRecord files without TensorFlow: a walk over the headers, and one record at a time with both checksums.

Framing (doc: tensorflow/tensorflow:tensorflow/core/lib/io/record_writer.h; checked on 25 real Bridge episodes):
`uint64 length | uint32 masked crc32c(length) | length bytes | uint32 masked crc32c(bytes)`, little endian, one
record after the other, not compressed.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from schemas.errors import Code, SourceError, system_error_text
from schemas.regular_file import open_regular

HEADER = struct.Struct("<QI")
FOOTER = struct.Struct("<I")
# A protocol buffer message cannot be longer (doc: protobuf encoding guide), so neither can an honest record.
MAX_RECORD_BYTES = (1 << 31) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Where one record starts (its header) and how many payload bytes it has; `problem` is (code, message).

    A record with a problem and `is_rest` set stands for everything from its offset to the end of the file.
    """

    offset: int
    num_bytes: int
    problem: tuple[Code, str] | None = None
    is_rest: bool = False


def masked_crc(data: bytes | memoryview) -> int:
    """CRC-32C rotated right by 15 bits plus a constant, as TFRecord stores it."""
    crc = int(google_crc32c.value(bytes(data)))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def walk(path: Path) -> Iterator[Record]:
    """Every record of a file from its 12-byte headers alone; no payload is read, nothing is allocated by length.

    Ends with one record `is_rest` when the file breaks off (TRUNCATED) or a length cannot be trusted (WRONG_CRC:
    without it there is no way to find the next record).

    Raises:
        SourceError: MISSING_FILE or UNREADABLE.
    """
    try:
        with open_regular(path) as file:
            yield from _headers(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE,
            f"cannot be read: {system_error_text(error, path.name)}",
            where=path.name,
        ) from error


def _headers(file: BinaryIO, size: int) -> Iterator[Record]:
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(HEADER.size)
        problem = _header_problem(header, offset, size)
        if problem is not None:
            yield Record(offset=offset, num_bytes=size - offset, problem=problem, is_rest=True)
            return
        num_bytes = int(HEADER.unpack(header)[0])
        too_large = None
        if num_bytes > MAX_RECORD_BYTES:
            message = f"a record of {num_bytes} bytes at byte {offset}; expected at most {MAX_RECORD_BYTES}"
            too_large = Code.TOO_LARGE, message
        yield Record(offset=offset, num_bytes=num_bytes, problem=too_large)
        offset += HEADER.size + num_bytes + FOOTER.size


def _header_problem(header: bytes, offset: int, size: int) -> tuple[Code, str] | None:
    if len(header) < HEADER.size:
        return Code.TRUNCATED, f"the file ends inside a record header at byte {offset}"
    num_bytes, crc = HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        message = (
            f"the length at byte {offset} has a wrong checksum, so later records cannot be located"
        )
        return Code.WRONG_CRC, message
    end = offset + HEADER.size + num_bytes + FOOTER.size
    if end > size:
        message = f"the record at byte {offset} needs a file of {end} bytes; it has {size}"
        return Code.TRUNCATED, message
    return None


def read_record(path: Path, offset: int, num_bytes: int) -> bytes:
    """The payload of the record whose header is at `offset`, both checksums checked.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, TRUNCATED, WRONG_CRC, TOO_LARGE, or CORRUPT_RECORD when the file has
            another length there than `num_bytes` (it was changed after discovery).
    """
    where = f"{path.name}@{offset}"
    try:
        with open_regular(path, where=where) as file:
            file.seek(offset)
            size = os.fstat(file.fileno()).st_size
            return _payload(file, size, offset, num_bytes, where)
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE, f"cannot be read: {system_error_text(error, where)}", where=where
        ) from error


def _payload(file: BinaryIO, size: int, offset: int, num_bytes: int, where: str) -> bytes:
    header = file.read(HEADER.size)
    problem = _header_problem(header, offset, size)
    if problem is not None:
        raise SourceError(*problem, where=where)
    stored = int(HEADER.unpack(header)[0])
    if stored != num_bytes:
        message = f"a record of {stored} bytes, but {num_bytes} at discovery: the file was changed"
        raise SourceError(Code.CORRUPT_RECORD, message, where=where)
    if stored > MAX_RECORD_BYTES:
        message = f"a record of {stored} bytes; expected at most {MAX_RECORD_BYTES}"
        raise SourceError(Code.TOO_LARGE, message, where=where)
    data = file.read(num_bytes)
    footer = file.read(FOOTER.size)
    if len(data) + len(footer) != num_bytes + FOOTER.size:
        raise SourceError(Code.TRUNCATED, "the file ends inside the record", where=where)
    if masked_crc(data) != FOOTER.unpack(footer)[0]:
        message = "the payload has a wrong checksum; download this shard again"
        raise SourceError(Code.WRONG_CRC, message, where=where)
    return data
