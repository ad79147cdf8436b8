"""Tar shards: where each member is, and the samples of WebDataset.

Where each member of a tar shard lies, by walking its headers: nothing is taken out, nothing is read whole.

Source of the format: POSIX.1-2017 pax and ustar (IEEE Std 1003.1, "pax", "ustar Interchange Format"), GNU tar's
long names (type L) and base-256 numbers. Hostile members are named, never followed: links and devices, sparse
members (a few bytes that unfold into terabytes), names that lead out of the folder. A compressed tar is refused: its
members could only be reached by unpacking everything before them.

WebDataset shards: files of one sample lie next to each other in a tar and share the name up to the first dot.

Source: webdataset/webdataset:webdataset/tariterators.py `base_plus_ext` (code).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from schemas.errors import Code, SourceError, system_error_text
from schemas.regular_file import open_regular

# -- tar shard -----------------------------------------------------------------------------------------------------

BLOCK = 512
MAX_MEMBERS = 1_000_000
MAX_EXTENSION_BYTES = 1 << 20  # a pax or long-name record beyond this names no file
LONGEST_NAME = 500
_REGULAR, _FOLDER = b"0\0", b"5"
_PAX_LOCAL, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK = b"x", b"g", b"L", b"K"
_KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"S": "a sparse file"}
_RECORD = re.compile(rb"(\d{1,8}) ([^=\n]{1,200})=")


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember:
    """A regular file: its name in the archive and the bytes [start, end) of the shard that hold it.

    `problem` (code, message) marks what must not be read; a shard that breaks off ends with one such member.
    """

    name: str
    start: int = 0
    end: int = 0
    problem: tuple[str, str] | None = None

    @property
    def byte_range(self) -> tuple[int, int]:
        return self.start, self.end


@dataclass(slots=True)
class _Extension:
    """What pax and GNU records say about the NEXT member."""

    name: str | None = None
    size: int | None = None
    is_sparse: bool = False


@dataclass(slots=True)
class _Walk:
    file: BinaryIO
    size: int
    at: int = 0
    seen: set[str] = field(default_factory=set)

    def block(self) -> bytes:
        self.file.seek(self.at)
        return self.file.read(BLOCK)


def tar_members(path: Path) -> Iterator[TarMember]:
    """Every regular member in file order; folders are passed over.

    Whatever whole members lie before a cut are yielded, then one named "" with problem `truncated`; likewise
    `corrupt_record` where a header does not add up, `unsafe_content` where there are too many members.

    Raises:
        SourceError: MISSING_FILE, UNREADABLE, or UNKNOWN_LAYOUT when it is no uncompressed tar at all.
    """
    try:
        with open_regular(path, in_parts=True) as file:
            walk = _Walk(file=file, size=file.seek(0, os.SEEK_END))
            first = walk.block()
            if any(first) and not _is_sound(first):
                problem = "not an uncompressed tar file: it has no tar header"
                raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=path.name)
            yield from _members(walk)
    except OSError as error:
        raise SourceError(
            Code.UNREADABLE,
            f"cannot be read: {system_error_text(error, path.name)}",
            where=path.name,
        ) from error


def _members(walk: _Walk) -> Iterator[TarMember]:
    extension = _Extension()
    for _ in range(MAX_MEMBERS):
        header = walk.block()
        if len(header) == BLOCK and not any(header):
            return  # the end mark
        if len(header) < BLOCK:
            yield _stop(
                Code.TRUNCATED, f"the shard is truncated at byte {walk.size}; download it again"
            )
            return
        size = _number(header[124:136]) if _is_sound(header) else None
        if size is None:
            yield _stop(Code.CORRUPT_RECORD, f"the header at byte {walk.at} has a wrong checksum")
            return
        kind, start = header[156:157], walk.at + BLOCK
        is_extension = kind in _PAX_LOCAL + _PAX_GLOBAL + _GNU_LONG_NAME + _GNU_LONG_LINK
        if not is_extension and extension.size is not None:
            size = extension.size
        if start + size > walk.size:
            name = _name(header, extension)[:LONGEST_NAME]
            yield _stop(
                Code.TRUNCATED, f"the shard is truncated within {name!r}; download it again"
            )
            return
        walk.at = start + -(-size // BLOCK) * BLOCK
        if is_extension:
            if size > MAX_EXTENSION_BYTES:
                problem = f"a name record of {size} bytes at byte {start}"
                yield _stop(Code.UNSAFE_CONTENT, problem)
                return
            walk.file.seek(start)
            _extend(extension, kind, walk.file.read(size))
        else:
            if kind != _FOLDER:
                name = _name(header, extension)
                yield _member(walk, name, start, size, _why_unsafe(kind, extension))
            extension = _Extension()
    yield _stop(Code.UNSAFE_CONTENT, f"more than {MAX_MEMBERS} members")


def _member(walk: _Walk, name: str, start: int, size: int, why: str | None) -> TarMember:
    """One member with what is wrong with it; its own name twice is refused, because tar means "the last one counts"."""
    problem, short = None, name[:LONGEST_NAME]
    if why is not None:
        problem = (Code.UNSAFE_CONTENT.value, f"{short!r} is {why}; expected only regular files")
    elif _is_path_unsafe(name):
        problem = (Code.UNSAFE_PATH.value, f"{short!r} is not a path within the shard")
    elif name in walk.seen:
        problem = (Code.UNSAFE_CONTENT.value, f"{short!r} is in the shard twice")
    walk.seen.add(name)
    if problem:
        return TarMember(name=short, problem=problem)
    return TarMember(name=name, start=start, end=start + size)


def _stop(code: Code, message: str) -> TarMember:
    return TarMember(name="", problem=(code.value, message))


def _why_unsafe(kind: bytes, extension: _Extension) -> str | None:
    if extension.is_sparse:
        return _KINDS[b"S"]
    return None if kind in _REGULAR else _KINDS.get(kind, f"of the special kind {kind!r}")


def _is_path_unsafe(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    is_odd = any(ord(c) < 32 for c in name) or len(name) > LONGEST_NAME
    return not name or name[0] in "/\\" or ".." in parts or is_odd or name[1:2] == ":"


def _name(header: bytes, extension: _Extension) -> str:
    """The member's name: a record before it wins over the header, whose ustar prefix comes first."""
    if extension.name is not None:
        return _clean(extension.name)
    name, prefix = _text(header[:100]), _text(header[345:500])
    if header[257:263] == b"ustar\0" and prefix:
        name = f"{prefix}/{name}"
    return _clean(name)


def _clean(name: str) -> str:
    return name.removeprefix("./")


def _text(field_bytes: bytes) -> str:
    return field_bytes.split(b"\0", 1)[0].decode("utf-8", "replace")


def _is_sound(header: bytes) -> bool:
    """The header's checksum: the sum of its bytes, its own 8 counted as spaces."""
    if len(header) < BLOCK:
        return False
    stated = _number(header[148:156])
    return stated == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _number(field_bytes: bytes) -> int | None:
    """Octal text, or GNU base 256; None for anything else and for negative numbers."""
    if field_bytes[0] == 0x80:
        return int.from_bytes(field_bytes[1:], "big")
    digits = field_bytes.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        return None
    return int(digits or b"0", 8)


def _extend(extension: _Extension, kind: bytes, data: bytes) -> None:
    if kind == _GNU_LONG_NAME:
        extension.name = _text(data)
    if kind != _PAX_LOCAL:
        return  # a global record could rename or resize everything: its keys are not used
    at = 0
    while match := _RECORD.match(data, at):
        end = at + int(match[1])
        if end <= match.end() or end > len(data):
            return
        key, value = match[2], data[match.end() : end - 1]
        if key == b"path":
            extension.name = value.decode("utf-8", "replace")
        elif key == b"size" and re.fullmatch(rb"\d{1,18}", value):
            extension.size = int(value)
        elif key.startswith(b"GNU.sparse"):
            extension.is_sparse = True
        at = end


# -- webdataset ----------------------------------------------------------------------------------------------------

_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The members of one sample by lower-case extension, or one member that cannot be used."""

    key: str
    files: Mapping[str, TarMember] = field(default_factory=dict)
    problem: tuple[str, str] | None = None


def samples(shard: Path) -> Iterator[Sample]:
    """Every sample in order of its first member; then every unusable member, each as a sample of its own.

    A shard that breaks off gives its whole members, then one sample named "" with problem `truncated`; one that is no
    tar gives only that sample, with the code of `tar_members`.
    """
    members: dict[str, dict[str, TarMember]] = {}
    broken: list[TarMember] = []
    try:
        for member in tar_members(shard):
            match = _NAME.fullmatch(member.name)
            if member.problem:
                broken.append(member)
            elif match:
                members.setdefault(match[1], {})[match[2].lower()] = member
    except SourceError as error:
        broken.append(TarMember(name="", problem=(error.code.value, error.message)))
    for key, files in members.items():
        yield Sample(key=key, files=files)
    for member in broken:
        yield Sample(key=member.name, problem=member.problem)
