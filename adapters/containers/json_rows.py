"""Annotation files of third parties: large JSON files one member at a time, rows as typed values.

Read a huge JSON file one member at a time.

Annotation files of video sets hold hundreds of MiB in one object (Ego4D's narration.json: 9,645 videos). Parsed
whole they would need several GiB; here only one member is in memory.

Rows of third-party annotation files as typed values.

One malformed row must not cost its neighbours, so rows are checked one by one: one that does not fit becomes a `Broken`,
never nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.document import DocumentError
from schemas.errors import ConfigError, SourceError, system_error_text
from schemas.invalid import invalid
from schemas.json_text import scan_json
from schemas.regular_file import open_regular

# -- json stream ---------------------------------------------------------------------------------------------------

CHUNK_CHARS = 1 << 20
LONGEST_MEMBER_CHARS = 256 << 20  # a member beyond this is no annotation


def members(
    path: Path, *, inside: Collection[str] = ("videos",)
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (where, value) for each member of the top-level object or list of `path`, in file order.

    `where` is the keys from the top, list positions as text. A top-level member whose key is in `inside` is not
    yielded itself: its own members are, so that {"version": 1, "videos": [a, b]} gives
    (("version",), 1), (("videos", "0"), a), (("videos", "1"), b).

    Raises:
        ConfigError: the file cannot be read or is no JSON, with the member at which it breaks off.
    """
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8") as file:
            reader = _JsonReader(file, path.name)
            yield from _members(reader, (), frozenset(inside))
            reader.expect("", ())
    except SourceError as error:
        raise ConfigError(f"cannot be read: {error.message}", where=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read as UTF-8 text: {system_error_text(error, str(path))}",
            remedy="download it again",
            where=str(path),
        ) from error


def _members(
    reader: _JsonReader, prefix: tuple[str, ...], inside: frozenset[str]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    is_object = reader.peek() == "{"
    reader.expect("{" if is_object else "[", prefix)
    close = "}" if is_object else "]"
    count = 0
    while reader.peek() != close:
        if count:
            reader.expect(",", (*prefix, str(count)))
        key = str(reader.value((*prefix, str(count)))) if is_object else str(count)
        if is_object:
            reader.expect(":", (*prefix, key))
        where = (*prefix, key)
        if not prefix and key in inside and reader.peek() in ("{", "["):
            yield from _members(reader, where, inside)
        else:
            yield where, reader.value(where)
        count += 1
    reader.expect(close, prefix)


class _JsonReader:
    """A text buffer that grows until the value at its front is whole."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._text = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._grow(())

    def expect(self, character: str, where: tuple[str, ...]) -> None:
        """Consume that character; the empty one stands for the end of the file."""
        actual = self.peek()
        if actual != character:
            raise self._broken(f"found {actual!r}, expected {character!r}", where)
        self._at += len(character)

    def value(self, where: tuple[str, ...]) -> Any:
        """Consume one JSON value."""
        self.peek()
        while True:
            try:
                value, end = scan_json(self._text, self._at)
            except ValueError as error:
                # Either broken, or the rest of it is still in the file.
                if self._ended or isinstance(error, DocumentError):
                    raise self._broken(str(error), where) from error
            else:
                if end < len(self._text) or self._ended:  # a number may go on in the next chunk
                    self._at = end
                    return value
            self._grow(where)

    def _grow(self, where: tuple[str, ...]) -> None:
        """Read on; as much again as is kept, so that retries cost no more than one more pass."""
        kept = self._text[self._at :]
        if len(kept) > LONGEST_MEMBER_CHARS:
            raise self._broken(
                f"one JSON member is longer than {LONGEST_MEMBER_CHARS} characters", where
            )
        more = self._file.read(max(CHUNK_CHARS, len(kept)))
        self._ended = not more
        self._text, self._at = kept + more, 0

    def _broken(self, problem: str, where: tuple[str, ...]) -> ConfigError:
        at = f"{self._name}:{'/'.join(where)[:200]}"
        return ConfigError(
            f"incomplete JSON: {problem}", remedy="download the file again", where=at
        )


# -- json rows -----------------------------------------------------------------------------------------------------

# int | float, not float: the files mix both, and that is counted as one of their faults. The longest real video has
# 7,224 s; the bound (11 days) keeps hostile numbers from becoming millions of windows.
Seconds = Annotated[int | float, Field(ge=-1e6, le=1e6)]
# Ids become episode ids, texts become instructions: bounded, because they come from outside.
LONGEST_UID = 200
Uid = Annotated[str, Field(min_length=1, max_length=LONGEST_UID)]
Text = Annotated[str, Field(max_length=20_000)]


class JsonRow(BaseModel):
    """Keys that are not named are ignored: releases add some."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that does not fit its model, and why."""

    why: str


Model = TypeVar("Model", bound=JsonRow)


def parse(model: type[Model], raw: Any) -> Model | Broken:
    """`raw` as that model, or what is wrong with it."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        return Broken(invalid(error, model))


def parse_rows(model: type[Model], raw: Iterable[Any] | None) -> list[Model | Broken]:
    return [parse(model, item) for item in raw or ()]
