"""Reviews as files: CSV, JSON lines and Parquet, with the columns of the table `reviews`."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from schemas.catalog_rows import as_dict, columns_of, table_of
from schemas.errors import ConfigError, SourceError
from schemas.json_text import parse_json
from schemas.parquet_file import read_schema, read_table
from schemas.regular_file import read_regular
from schemas.review import Review, utc_time

SUFFIXES = (".csv", ".jsonl", ".parquet")
MAX_BYTES = 256 << 20
MAX_ROWS = 200_000
_NUMBERS = ("start", "end", "snapshot")
_NAMESPACE = uuid.UUID("5f0f7a52-7d3e-4c37-9a0e-3f7f8a6a1b55")  # of review_ids made from a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a row without these columns gets."""

    author: str | None
    at: datetime
    snapshot: int


def read_reviews(path: Path, defaults: Defaults) -> list[Review]:
    """The reviews of a file. A row without a review_id gets one from its content, so that the same file again adds nothing.

    Raises:
        ConfigError: an unknown column, or a row that is no review; the message has its number.
    """
    _check_suffix(path)
    try:
        rows = list(_rows(path))
    except (SourceError, ValueError, csv.Error) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    if len(rows) > MAX_ROWS:
        raise ConfigError(f"{len(rows)} rows; expected at most {MAX_ROWS}", where=str(path))
    out = []
    for number, row in enumerate(rows, start=1):
        try:
            out.append(_review(row, defaults))
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error), where=f"{path}, row {number}") from error
    return out


def write_reviews(path: Path, rows: Iterable[Review]) -> None:
    """Write them as they are: texts are not changed, so a CSV is for programs and not for a spreadsheet.

    Raises:
        ConfigError: the file cannot be written.
    """
    _check_suffix(path)
    rows = list(rows)
    try:
        if path.suffix == ".parquet":
            pq.write_table(table_of(Review, rows), path, compression="zstd")
        else:
            path.write_text(_text(path.suffix, rows), encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _text(suffix: str, rows: list[Review]) -> str:
    values = [{**as_dict(each), "at": each.at.isoformat()} for each in rows]
    if suffix == ".jsonl":
        return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in values)
    out = io.StringIO()
    writer = csv.DictWriter(out, columns_of(Review), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(values)
    return out.getvalue()


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"file type {path.suffix!r}; expected {', '.join(SUFFIXES)}", where=str(path)
        )


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix == ".parquet":
        names = read_schema(path).names
        table = read_table(path, names, most_rows=MAX_ROWS + 1)
        yield from table.to_pylist()
        return
    text = read_regular(path, max_bytes=MAX_BYTES).decode()
    if path.suffix == ".csv":
        for row in csv.DictReader(io.StringIO(text, newline=""), strict=True):
            yield {name: value or None for name, value in row.items()}
        return
    for line in text.split("\n"):
        if line.strip():
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError("a line is not a JSON object")
            yield row


def _review(row: Mapping[str, Any], defaults: Defaults) -> Review:
    names = columns_of(Review)
    if unknown := sorted(str(name) for name in row if name not in names):
        raise ValueError(f"column {unknown[0]!r}; expected some of {', '.join(names)}")
    fields: dict[str, Any] = {name: row.get(name) for name in names}
    for name in _NUMBERS:
        if isinstance(fields[name], str):
            fields[name] = int(fields[name])
    fields["value"] = fields["value"] or ""
    fields["author"] = fields["author"] or defaults.author
    if fields["snapshot"] is None:
        fields["snapshot"] = defaults.snapshot
    at = fields["at"] or defaults.at
    fields["at"] = utc_time(at if isinstance(at, str) else at.isoformat())
    fields["review_id"] = fields["review_id"] or _id_of(fields)
    return Review(**fields)


def _id_of(fields: Mapping[str, Any]) -> str:
    names = ("uid", "start", "end", "kind", "value", "author", "supersedes")
    return str(uuid.uuid5(_NAMESPACE, json.dumps([fields[name] for name in names])))
