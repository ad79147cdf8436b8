"""Checks of catalog columns that hold numbers, durations and paths. A value from a corpus is untrusted: it never sizes an array or leaves the corpus unchecked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.catalog import MOST_FRAMES, TABLES
from schemas.errors import ConfigError
from schemas.paths import OutsideCorpus

MOST_SECONDS = MOST_FRAMES * 100  # of one episode, at a picture every 100 s
_DURATION = "duration_s"
_FRAMES = frozenset(["start", "end", "length", "num_frames", "denominator"])


class DamagedCatalog(ConfigError, ValueError):
    """A row of the catalog does not say what its column is for. `verify` reports it as content, every other command stops."""


def check_numbers(table: str, rows: pa.Table) -> None:
    """Refuse counts, indices and versions below 0, frames beyond MOST_FRAMES, and durations that are none.

    Raises:
        DamagedCatalog: a row has one.
    """
    if _DURATION in rows.column_names:
        _check_durations(table, rows[_DURATION])
    for column in rows.column_names:
        for name, values in _whole(column, rows[column]):
            least, most = (pc.min_max(values)[key].as_py() for key in ("min", "max"))
            limit = MOST_FRAMES if name.rpartition(".")[2] in _FRAMES else None
            if least is not None and (least < 0 or (limit is not None and most > limit)):
                bad = least if least < 0 else most
                expected = "at least 0" if limit is None else f"0 to {limit}"
                problem = f"column {name} contains {bad}; expected {expected}"
                raise DamagedCatalog(
                    problem, remedy="run `eicorpus verify`", where=f"table {table}"
                )


def _check_durations(table: str, values: pa.ChunkedArray) -> None:
    """Comparisons with NaN do not hold; NULL is no duration."""
    holds = pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, float(MOST_SECONDS)))
    if pc.all(holds, min_count=0).as_py() is False:
        bad = values.filter(pc.invert(holds))[0].as_py()
        problem = f"column {_DURATION} contains {bad}; expected 0 to {MOST_SECONDS}"
        raise DamagedCatalog(problem, remedy="run `eicorpus verify`", where=f"table {table}")


def _whole(column: str, values: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """(name, numbers) of a column of integers, of a list of them, or of the fields of a list of structs."""
    if pa.types.is_list(values.type):
        values = pc.list_flatten(values)
    if pa.types.is_struct(values.type):
        for field in values.type:
            if pa.types.is_integer(field.type):
                yield f"{column}.{field.name}", pc.struct_field(values, field.name)
    elif pa.types.is_integer(values.type):
        yield column, values


# Column -> pattern (RE2). A new column whose name ends in one of these words joins by itself.
_PLACE = r"^datasets(/[^/\x00]+)+$"
_NAME = r"^[^/\x00]*$"
_PATTERNS = {"dataset_path": _PLACE, "path": _PLACE, "camera": _NAME, "encoder_id": _NAME}
_LEADS_OUT = r"(^|/)\.{1,2}(/|$)"
_FETCHED = re.compile(
    r"datasets(/[^/\x00]+){2}/(data|videos|latents)(/[^/\x00]+)+|catalog/[a-z_]+/[A-Za-z0-9][A-Za-z0-9_.-]*\.parquet"
)
_OUT = re.compile(_LEADS_OUT)
_NAMED = {"cameras": "name", "files": "path"}  # lists of structs
# What is named here lies in the raw data of the source, and is never opened from the catalog.
_OF_THE_SOURCE = {("episodes", "raw_files")}


def path_columns(table: str) -> list[str]:
    """Columns of a table that become part of a path."""
    return [name for name in TABLES[table].names if name in _PATTERNS or name in _NAMED]


def check_paths(table: str, rows: pa.Table) -> None:
    """Refuse rows whose values would lead out of the corpus when they become a path.

    Raises:
        OutsideCorpus: one would.
    """
    for column in path_columns(table):
        if column in rows.column_names and (table, column) not in _OF_THE_SOURCE:
            for name, values in _texts(column, rows[column]):
                _check(table, name, values)


def check_place(path: str, what: str) -> None:
    """Refuse a path of this kind that is none below `datasets/`.

    Raises:
        OutsideCorpus: it leads elsewhere.
    """
    if not re.search(_PLACE, path) or re.search(_LEADS_OUT, path):
        raise OutsideCorpus(
            f"{path!r} is not a path below datasets/; nothing was changed", where=what
        )


def check_fetched(paths: Iterable[str]) -> None:
    """Refuse paths that are none of data, videos or latents of a dataset, or of a catalog file: such a file may be copied from a bucket.

    Raises:
        OutsideCorpus: one is something else, such as the link of the working copy or a review.
    """
    for path in paths:
        if not _FETCHED.fullmatch(path) or _OUT.search(path):
            raise OutsideCorpus(
                f"{path!r} is not a file that a corpus copies from a bucket",
                remedy="treat this corpus as damaged and do not use it",
            )


def _texts(column: str, values: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """(name, texts) of a column, or of the fields of a list of structs."""
    if not pa.types.is_list(values.type):
        yield column, values
        return
    items = pc.list_flatten(values)
    for field in items.type:
        if field.name in (*_PATTERNS, _NAMED[column]) and pa.types.is_string(field.type):
            yield f"{column}.{field.name}", pc.struct_field(items, field.name)


def _check(table: str, name: str, values: pa.ChunkedArray) -> None:
    last = name.rpartition(".")[2]
    pattern = _PATTERNS.get(last, _NAME)
    is_good = pc.and_(
        pc.match_substring_regex(values, pattern),
        pc.invert(pc.match_substring_regex(values, _LEADS_OUT)),
    )
    if pc.all(is_good, min_count=0).as_py() is not False:  # NULL names nothing
        return
    bad = values.filter(pc.invert(is_good))[0].as_py()
    problem = f"column {name} contains {bad!r}, which is not a path inside the corpus"
    raise OutsideCorpus(
        problem, remedy="treat this corpus as damaged and do not use it", where=f"table {table}"
    )
