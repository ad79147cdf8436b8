"""Reviews as files: CSV, JSON lines and Parquet, with the columns of the table `reviews`."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
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
    """What a row without these columns gets. Rows without `at` follow each other by a microsecond."""

    author: str | None
    at: datetime
    snapshot: int


def read_reviews(path: Path, defaults: Defaults) -> list[Review]:
    """The reviews of a file. A row without a review_id gets one from its content, so that the same file again adds nothing.

    The time is part of the content where a row has one. Without, it is how many equal rows came before: high, low, high are three reviews.

    Raises:
        ConfigError: an unknown column, or a row that is no review; the message has its number.
    """
    check_suffix(path)
    try:
        rows = list(_rows(path))
    except (SourceError, ValueError, csv.Error) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(path)) from error
    if len(rows) > MAX_ROWS:
        raise ConfigError(f"{len(rows)} rows; expected at most {MAX_ROWS}", where=str(path))
    out, equal = list[Review](), Counter[str]()
    for number, row in enumerate(rows, start=1):
        try:
            out.append(_review(row, defaults, number, equal))
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error), where=f"{path}, row {number}") from error
    return out


def as_file(suffix: str, rows: Iterable[Review]) -> bytes:
    """The bytes of a file of that type. Texts are not changed, so a CSV is for programs and not for a spreadsheet."""
    rows = list(rows)
    if suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(table_of(Review, rows), sink, compression="zstd")
        return sink.getvalue()
    values = [{**as_dict(each), "at": each.at.isoformat()} for each in rows]
    if suffix == ".jsonl":
        lines = [json.dumps(each, ensure_ascii=False) for each in values]
        return "".join(f"{line}\n" for line in lines).encode()
    out = io.StringIO()
    writer = csv.DictWriter(out, columns_of(Review), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(values)
    return out.getvalue().encode()


def check_suffix(path: Path) -> None:
    """
    Raises:
        ConfigError: no such type of file.
    """
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


def _review(row: Mapping[str, Any], defaults: Defaults, number: int, equal: Counter[str]) -> Review:
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
    has_time = bool(fields["at"])
    at = fields["at"] or defaults.at + timedelta(microseconds=number)
    fields["at"] = utc_time(at if isinstance(at, str) else at.isoformat())
    fields["review_id"] = fields["review_id"] or _id_of(fields, equal, has_time=has_time)
    return Review(**fields)


def _id_of(fields: Mapping[str, Any], equal: Counter[str], *, has_time: bool) -> str:
    names = ("uid", "start", "end", "kind", "value", "author", "supersedes")
    content = [fields[name] for name in names]
    if has_time:
        content.append(fields["at"].isoformat())
    else:
        key = json.dumps(content)
        content += [equal[key]] if equal[key] else []
        equal[key] += 1
    return str(uuid.uuid5(_NAMESPACE, json.dumps(content)))
