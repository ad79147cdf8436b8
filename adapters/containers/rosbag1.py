"""ROS 1 bags (format 2.0) by the library `rosbags`, with the message definitions that every bag carries itself.

Format: ROS wiki, Bags/Format/2.0 (doc). A bag that was never closed, or was cut off, has no index at the place its header
names. Definitions become generated code inside `rosbags`, so only lines of plain identifiers reach it; chunks are unpacked
with a bound, which the library has not.
"""

from __future__ import annotations

import bz2
import os
import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from schemas.errors import Code, ConfigError, SourceError
from schemas.regular_file import open_regular

MAX_CHUNK_BYTES = 256 << 20  # recorders write chunks of about 1 MiB
MAX_DEFINITION_CHARS = 1 << 18
MAGIC = b"#ROSBAG V2.0\n"
_FIELD = re.compile(
    r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)?(\[[0-9]{0,6}\])? [A-Za-z][A-Za-z0-9_]*"
)
_CONSTANT = re.compile(r"[a-z0-9]+ +[A-Za-z][A-Za-z0-9_]* *=.*")
_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/msg)?/[A-Za-z][A-Za-z0-9_]*")
_RULE = "=" * 80
# What damaged or hostile bytes make the library and its generated decoders raise, beside its own errors.
_DAMAGE = (
    AssertionError,
    AttributeError,
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


class Bag:
    """An open bag: `topics` (name -> ROS type, those with messages), `start_ns` and `end_ns` of its record clock."""

    def __init__(self, reader: Any, where: str) -> None:
        self._reader, self._where = reader, where
        self._stores: dict[int, Any] = {}
        connections = [c for c in reader.connections if c.msgcount]
        self.topics: dict[str, str] = {
            c.topic: c.msgtype.replace("/msg/", "/") for c in connections
        }
        self.start_ns: int = reader.start_time
        self.end_ns: int = (
            reader.end_time - 1
        )  # the library gives the instant after the last message

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """(topic, record time in ns since 1970, message) of those topics, in order of time; one chunk is in memory.

        Raises:
            SourceError: CORRUPT_RECORD, TOO_LARGE (a chunk), UNKNOWN_LAYOUT (a definition that is none).
        """
        chosen = [c for c in self._reader.connections if c.topic in topics]
        if not chosen:  # the library takes an empty list for all
            return
        damage: tuple[type[Exception], ...] = (*_DAMAGE, *_library_errors())
        try:
            for connection, t_ns, raw in self._reader.messages(chosen):
                store = self._store(connection)
                yield connection.topic, t_ns, store.deserialize_ros1(raw, connection.msgtype)
        except damage as error:
            problem = f"a message does not decode: {type(error).__name__}: {error}"
            raise SourceError(Code.CORRUPT_RECORD, problem[:300], where=self._where) from error

    def _store(self, connection: Any) -> Any:
        """The types of one connection; each has its own store, so that two versions of a message can be side by side."""
        if connection.id not in self._stores:
            where = f"{self._where}:{connection.topic}"
            if not _TYPE.fullmatch(connection.msgtype):
                problem = f"message type {connection.msgtype[:80]!r}"
                raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
            text = _plain_definition(connection.msgdef.data, where)
            self._stores[connection.id] = _store_of(text, connection.msgtype)
        return self._stores[connection.id]


@lru_cache(maxsize=64)  # every bag of a set brings the same texts, and reading one takes 10 ms
def _store_of(text: str, msgtype: str) -> Any:
    types = import_module("rosbags.typesys")
    store = types.get_typestore(types.Stores.EMPTY)
    store.register(types.get_types_from_msg(text, msgtype))
    return store


@contextmanager
def open_bag(path: Path, where: str) -> Iterator[Bag]:
    """Open a bag.

    Raises:
        SourceError: TRUNCATED, UNREADABLE (no bag), UNKNOWN_VERSION, CORRUPT_RECORD, TOO_LARGE (a chunk).
        ConfigError: rosbags is not installed.
    """
    library = rosbags()
    damage: tuple[type[Exception], ...] = (*_DAMAGE, *_library_errors())
    _check_head(path, where)
    reader = library.Reader(path)
    try:
        reader.open()
        _bound_chunks(reader, where)
        bag = Bag(reader, where)
    except damage as error:
        if reader.bio is not None:
            reader.close()
        problem = f"the index is damaged or truncated: {type(error).__name__}: {error}; download the bag again"
        raise SourceError(Code.CORRUPT_RECORD, problem[:300], where=where) from error
    try:
        yield bag
    finally:
        reader.close()


def rosbags() -> Any:
    """The library's module for ROS 1.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module("rosbags.rosbag1")
    except ImportError as error:
        todo = "pip install 'eicorpus[ros]'"
        raise ConfigError(f"reading ROS bags needs rosbags ({error})", remedy=todo) from error


def _library_errors() -> tuple[type[Exception], ...]:
    serde, base = import_module("rosbags.serde"), import_module("rosbags.typesys.base")
    return rosbags().ReaderError, serde.SerdeError, base.TypesysError


def _check_head(path: Path, where: str) -> None:
    """The magic, and an index where the header says that it is."""
    with open_regular(path, where=where) as file:
        magic, head = file.read(len(MAGIC)), file.read(4096)
        size = os.fstat(file.fileno()).st_size
    if magic != MAGIC:
        code = Code.UNKNOWN_VERSION if magic.startswith(b"#ROSBAG V") else Code.UNREADABLE
        raise SourceError(code, f"starts with {magic!r}; expected {MAGIC!r}", where=where)
    at = head.find(b"index_pos=")
    index_at = int.from_bytes(head[at + 10 : at + 18], "little") if at >= 0 else 0
    if not 0 < index_at < size:
        problem = (
            f"no index at byte {index_at} of {size}: the recording or download was interrupted"
        )
        raise SourceError(
            Code.TRUNCATED, f"{problem}; download it again, or reindex it", where=where
        )


def _plain_definition(text: str, where: str) -> str:
    """The definition's fields and types alone, without comments and constants.

    Raises:
        SourceError: UNKNOWN_LAYOUT, a line is neither.
    """
    kept = []
    for line in text[:MAX_DEFINITION_CHARS].splitlines():
        words = " ".join(line.split("#")[0].split())
        if not words or _CONSTANT.fullmatch(words):
            continue
        is_type = words.startswith("MSG: ") and _TYPE.fullmatch(words[5:])
        if not (is_type or words == _RULE or _FIELD.fullmatch(words)):
            problem = f"{line[:80]!r} is not a valid line of a message definition"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
        kept.append(words)
    return "\n".join(kept) + "\n"


def _bound_chunks(reader: Any, where: str) -> None:
    """Replace the library's unbounded decompressors."""
    named = import_module("rosbags.rosbag1.reader").decompressors
    for at, chunk in reader.chunks.items():
        name = next(n for n, unpack in named.items() if unpack is chunk.decompressor)
        if chunk.datasize > MAX_CHUNK_BYTES:
            problem = f"a chunk of {chunk.datasize} bytes; expected at most {MAX_CHUNK_BYTES}"
            raise SourceError(Code.TOO_LARGE, problem, where=where)
        if name != "none":
            reader.chunks[at] = chunk._replace(decompressor=_Unpack(name, where))


class _Unpack:
    """Unpacks one chunk of a bag within `MAX_CHUNK_BYTES`."""

    def __init__(self, name: str, where: str) -> None:
        self._name, self._where = name, where

    def __call__(self, data: bytes) -> bytes:
        try:
            if self._name == "bz2":
                unpacker: Any = bz2.BZ2Decompressor()
            else:
                unpacker = import_module("lz4.frame").LZ4FrameDecompressor()
            out: bytes = unpacker.decompress(data, max_length=MAX_CHUNK_BYTES)
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            problem = f"a {self._name} chunk does not decompress: {error}"
            raise SourceError(Code.CORRUPT_RECORD, problem, where=self._where) from error
        if not unpacker.eof:
            is_bomb = len(out) >= MAX_CHUNK_BYTES
            problem = f"a {self._name} chunk decompresses to more than {len(out)} bytes"
            code = Code.TOO_LARGE if is_bomb else Code.CORRUPT_RECORD
            raise SourceError(code, problem, where=self._where)
        return out
