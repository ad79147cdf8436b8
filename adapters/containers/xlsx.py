"""The cells of a spreadsheet (.xlsx) as text, one row at a time, without a spreadsheet library.

Source of the format: ECMA-376 part 1, SpreadsheetML (§18.3.1.73 row, §18.3.1.4 c, §18.4.8 si) in a zip of part 2. Only
text and numbers are read: no formula is evaluated, no link followed. Hostile files are bounded: parts by their unpacked
size, and a document type (the only way to entities) is refused.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from xml.parsers import expat

from schemas.errors import ConfigError, SourceError
from schemas.regular_file import open_regular

MAX_PART_BYTES = 512 << 20  # 100,000 captions take some 20 MiB
CHUNK_BYTES = 1 << 20
_DAMAGE: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError),
    *(RuntimeError, NotImplementedError),  # encrypted, or of a version that zipfile does not read
    *(expat.ExpatError, ValueError, IndexError),
)
_CELL = re.compile(r"([A-Z]{1,3})\d{1,7}")


def sheet_rows(path: Path, sheet: str) -> Iterator[Mapping[str, str]]:
    """{column letter: text} of every row of the sheet of that name that has a cell with text, in order.

    Raises:
        ConfigError: no such file or sheet, no spreadsheet, or one that is beyond the bounds.
    """
    with _opened(path) as archive:
        shared = list(_texts(archive, "xl/sharedStrings.xml", "si"))
        for row in _rows(archive, _part_of(archive, sheet, path)):
            cells = {c: shared[int(text)] if kind == "s" else text for c, kind, text in row}
            if cells := {c: text for c, text in cells.items() if text.strip()}:
                yield cells


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive; what the libraries raise of a damaged one, in the block too, is a ConfigError."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except SourceError as error:
        raise ConfigError(f"cannot be read: {error.message}", where=str(path)) from error
    except _DAMAGE as error:
        raise ConfigError(f"not a readable spreadsheet: {error}", where=str(path)) from error


def _part_of(archive: zipfile.ZipFile, sheet: str, path: Path) -> str:
    targets = {}
    for name, attributes, _ in _elements(archive, "xl/_rels/workbook.xml.rels"):
        if name == "Relationship":
            targets[attributes.get("Id", "")] = attributes.get("Target", "")
    sheets = dict(_sheets(archive))
    if sheet not in sheets:
        raise ConfigError(f"no sheet {sheet!r}; available: {list(sheets)}", where=str(path))
    target = targets.get(sheets[sheet], "")
    return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"


def _sheets(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for name, attributes, _ in _elements(archive, "xl/workbook.xml"):
        if name == "sheet":
            yield attributes.get("name", ""), attributes.get("r:id", "")


def _texts(archive: zipfile.ZipFile, part: str, element: str) -> Iterator[str]:
    """The text of each `element`, all its runs together."""
    if part in archive.namelist():
        texts: list[str] = []
        for name, _, text in _elements(archive, part):
            if name == "t":
                texts.append(text)
            elif name == element:
                yield "".join(texts)
                texts = []


def _rows(archive: zipfile.ZipFile, part: str) -> Iterator[list[tuple[str, str, str]]]:
    """(column letter, kind of cell, text) of the cells of each row."""
    row: list[tuple[str, str, str]] = []
    value = ""
    for name, attributes, text in _elements(archive, part):
        if name in ("v", "t"):  # t: a text written into the cell itself
            value += text
        elif name == "c":
            match = _CELL.fullmatch(attributes.get("r", ""))
            if match is None:
                raise ValueError(f"a cell without a reference: {attributes}")
            row.append((match[1], attributes.get("t", "n"), value))
            value = ""
        elif name == "row":
            yield row
            row = []


def _elements(archive: zipfile.ZipFile, part: str) -> Iterator[tuple[str, Mapping[str, str], str]]:
    """(name, attributes, text directly in it) of each element of a part, at its END, in order."""
    if part not in archive.namelist():
        raise ValueError(f"no {part} in it")
    stack: list[tuple[str, Mapping[str, str], list[str]]] = []
    done: list[tuple[str, Mapping[str, str], str]] = []

    def start(name: str, attributes: Mapping[str, str]) -> None:
        stack.append((name.rpartition(":")[2], attributes, []))

    def end(_: str) -> None:
        name, attributes, text = stack.pop()
        done.append((name, attributes, "".join(text)))

    def refuse(*_: object) -> None:
        raise ValueError("an XML document type, which is refused")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = lambda text: stack[-1][2].append(text) if stack else None
    parser.StartDoctypeDeclHandler = refuse
    total = 0
    with archive.open(part) as file:
        while data := file.read(CHUNK_BYTES):
            total += len(data)
            if total > MAX_PART_BYTES:
                raise ValueError(f"{part} decompresses to more than {MAX_PART_BYTES} bytes")
            parser.Parse(data)
            yield from done
            done.clear()
    parser.Parse(b"", True)  # noqa: FBT003 - takes no keywords
    yield from done
