"""Whole numbers of the catalog, and what such a value may be. An untrusted number never sizes an allocation before this check."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigError

MOST_FRAMES = 1 << 26  # of one episode: 25 days at 30 Hz
_FRAMES = frozenset(["start", "end", "length", "num_frames", "denominator"])


class DamagedCatalog(ConfigError, ValueError):
    """A row of the catalog does not say what its column is for. `verify` reports it as content, every other command stops."""


def check_numbers(table: str, rows: pa.Table) -> None:
    """Refuse counts, indices and versions below 0, and frames beyond MOST_FRAMES.

    Raises:
        DamagedCatalog: a row has one.
    """
    for column in rows.column_names:
        for name, values in _whole(column, rows[column]):
            least, most = (pc.min_max(values)[key].as_py() for key in ("min", "max"))
            limit = MOST_FRAMES if name.rpartition(".")[2] in _FRAMES else None
            if least is not None and (least < 0 or (limit is not None and most > limit)):
                bad = least if least < 0 else most
                expected = "at least 0" if limit is None else f"0 to {limit}"
                found = f"column {name} has {bad}, expected {expected}; run eicorpus verify"
                raise DamagedCatalog(found, where=f"table {table}")


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
