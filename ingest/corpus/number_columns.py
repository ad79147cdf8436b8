"""Whole numbers and durations of the catalog, and what such a value may be. An untrusted number never sizes an allocation before this check."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.catalog import MOST_FRAMES
from schemas.errors import ConfigError

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
                problem = f"column {name} has {bad}, expected {expected}; run eicorpus verify"
                raise DamagedCatalog(problem, where=f"table {table}")


def _check_durations(table: str, values: pa.ChunkedArray) -> None:
    """Comparisons with NaN do not hold; NULL is no duration."""
    holds = pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, float(MOST_SECONDS)))
    if pc.all(holds, min_count=0).as_py() is False:
        bad = values.filter(pc.invert(holds))[0].as_py()
        problem = f"column {_DURATION} has {bad}, expected 0 to {MOST_SECONDS}; run eicorpus verify"
        raise DamagedCatalog(problem, where=f"table {table}")


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
