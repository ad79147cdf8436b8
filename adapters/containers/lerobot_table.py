"""The rows of one LeRobot episode, from its own file (v2.x) or out of a shared one (v3.0), and their clock.

Columns come as scalars, `fixed_size_list` (LeRobot), `list<double>` (pandas) or nested lists (Hugging Face Array2D);
all of them become [N, width]. Only the asked-for columns are opened. Binary in place of numbers is refused: some sets pickle their
columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from adapters.containers.lerobot_meta import open_parquet
from schemas.errors import Code, SourceError

MAX_ROWS = 1_000_000  # 9 hours at 30 Hz: not one demonstration
MAX_WIDTH = 8192  # elements in one row of a column; depth pictures stored as numbers are wider
MAX_VALUES = (
    1 << 27
)  # of one column in one row group, so that run-length bombs are refused before allocation
MAX_BYTES = 1 << 30  # of one episode in memory
BATCH_ROWS = 2048


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableRows:
    """The rows of one episode in stored order. `unopened` are columns of the file that were left alone."""

    where: str
    table: pa.Table
    unopened: tuple[str, ...] = ()

    @property
    def num_rows(self) -> int:
        return int(self.table.num_rows)

    def has(self, name: str) -> bool:
        return name in self.table.column_names

    def matrix(self, name: str) -> npt.NDArray[np.float64]:
        """Column `name` as [N, width] float64, nested lists flattened row by row.

        Raises:
            SourceError: MISSING_CHANNEL, SHAPE_MISMATCH (ragged), NOT_FINITE (null), UNSAFE_CONTENT (binary).
        """
        flat = self._flat(name)
        values = np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float64)
        return values.reshape(self.num_rows, -1)

    def integers(self, name: str) -> npt.NDArray[np.int64]:
        """Column `name` as [N] int64; a list of one integer per row counts as an integer.

        Raises:
            SourceError: as `matrix`, or SHAPE_MISMATCH when it is not one whole number a row.
        """
        values = self.matrix(name)
        if values.shape[1] != 1 or np.any(values != np.round(values)):
            problem = f"shape {values.shape}; expected one integer per row"
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=self._at(name))
        return values[:, 0].astype(np.int64)

    def pictures(self, name: str) -> tuple[bytes, ...]:
        """Encoded pictures of an `image` column (struct of bytes and path).

        Raises:
            SourceError: MISSING_CHANNEL, UNKNOWN_LAYOUT, or CORRUPT_IMAGE (a row without bytes).
        """
        column = self._column(name)
        if not pa.types.is_struct(column.type) or column.type.get_field_index("bytes") < 0:
            problem = f"{column.type}; expected struct<bytes, path>"
            raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=self._at(name))
        images = pc.struct_field(column, "bytes").to_pylist()
        if any(not image for image in images):
            problem = "a row has only an image path and no image bytes; paths are not followed"
            raise SourceError(Code.CORRUPT_IMAGE, problem, where=self._at(name))
        return tuple(images)

    def _at(self, name: str) -> str:
        return f"{self.where}:{name}"

    def _column(self, name: str) -> pa.Array:
        if not self.has(name):
            problem = f"no column {name!r} in {sorted(self.table.column_names)}"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=self.where)
        column = self.table.column(name)
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)

    def _flat(self, name: str) -> pa.Array:
        array = self._column(name)
        where = self._at(name)
        while True:
            if isinstance(array, pa.ExtensionArray):
                array = array.storage
            if array.null_count:
                raise SourceError(Code.NOT_FINITE, f"{array.null_count} nulls", where=where)
            if not _is_list(array.type):
                break
            if not pa.types.is_fixed_size_list(array.type):
                widths = pc.min_max(pc.list_value_length(array)).as_py()
                if widths["min"] != widths["max"]:
                    problem = f"rows have {widths['min']} to {widths['max']} elements; expected the same width in all rows"
                    raise SourceError(Code.SHAPE_MISMATCH, problem, where=where)
            array = array.flatten()
        if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
            problem = "binary data instead of numbers, possibly a pickle; it is not opened"
            raise SourceError(Code.UNSAFE_CONTENT, problem, where=where)
        if not any(is_kind(array.type) for is_kind in _NUMBERS):
            raise SourceError(
                Code.SHAPE_MISMATCH, f"{array.type} is not a numeric type", where=where
            )
        if len(array) > self.num_rows * MAX_WIDTH or len(array) % max(self.num_rows, 1):
            problem = f"{len(array)} elements in {self.num_rows} rows; expected at most {MAX_WIDTH} per row"
            raise SourceError(Code.TOO_LARGE, problem, where=where)
        return array


def read_rows(
    path: Path,
    columns: Iterable[str],
    *,
    where: str,
    episode: int | None,
    if_integers: Iterable[str] = (),
    if_numbers: Iterable[str] = (),
) -> TableRows:
    """The rows of one episode, of those of `columns` that the file has. No other column is opened.

    Args:
        path: a Parquet file inside the root.
        where: how errors name it.
        episode: in a shared file, the episode_index to pick (positions are not trusted); None for a file of one.
        if_integers, if_numbers: further columns, opened only where the file stores integers, or numbers, in them.

    Raises:
        SourceError: MISSING_FILE, TRUNCATED, UNREADABLE, TOO_LARGE, TOO_LONG, EMPTY_EPISODE, MISSING_CHANNEL (a
            shared file without episode_index), CORRUPT_RECORD (several episodes in the file of one).
    """
    with open_parquet(path, where) as file:
        schema = file.schema_arrow
        names = set(schema.names)
        if episode is not None and "episode_index" not in names:
            problem = f"no episode_index in {sorted(names)}"
            raise SourceError(Code.MISSING_CHANNEL, problem, where=where)
        safe = [n for n in if_integers if n in names and _holds(schema, n, pa.types.is_integer)]
        safe += [n for n in if_numbers if n in names and _holds(schema, n, *_NUMBERS)]
        read_columns = [n for n in dict.fromkeys([*columns, *safe, "episode_index"]) if n in names]
        groups = _groups(file, read_columns, where, episode)
        try:
            table = _gather(file, groups, read_columns, where, episode)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SourceError(
                Code.UNREADABLE, f"cannot be decoded: {error}", where=where
            ) from error
    unopened = tuple(sorted(names - set(read_columns)))
    rows = TableRows(where=where, table=table, unopened=unopened)
    if rows.num_rows == 0:
        raise SourceError(Code.EMPTY_EPISODE, "the file has no rows of this episode", where=where)
    if episode is None and rows.has("episode_index"):
        present = np.unique(rows.integers("episode_index"))
        if len(present) > 1:
            message = f"the file of one episode has rows of episodes {present[:5].tolist()}"
            raise SourceError(Code.CORRUPT_RECORD, message, where=where)
    return rows


_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)


def _holds(schema: pa.Schema, name: str, *kinds: Callable[[pa.DataType], bool]) -> bool:
    """Whether a column stores values of one of these kinds, in lists or not."""
    stored = schema.field(name).type
    while True:
        if isinstance(stored, pa.ExtensionType):
            stored = stored.storage_type
        if not _is_list(stored):
            return any(is_kind(stored) for is_kind in kinds)
        stored = stored.value_type


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _groups(file: pq.ParquetFile, columns: list[str], where: str, episode: int | None) -> list[int]:
    """Row groups that can hold the episode by their statistics, each checked against the size bounds."""
    out = []
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = [group.column(i) for i in range(group.num_columns)]
        for chunk in chunks:
            if chunk.path_in_schema.split(".list.")[0] in columns and chunk.num_values > MAX_VALUES:
                problem = f"{chunk.num_values} values of {chunk.path_in_schema} in one row group"
                raise SourceError(Code.TOO_LARGE, problem, where=where)
        ids = next((c for c in chunks if c.path_in_schema == "episode_index"), None)
        stats = ids.statistics if ids is not None else None
        if (
            episode is None
            or stats is None
            or not stats.has_min_max
            or stats.min <= episode <= stats.max
        ):
            out.append(number)
    return out


def _gather(
    file: pq.ParquetFile, groups: list[int], columns: list[str], where: str, episode: int | None
) -> pa.Table:
    kept: list[pa.Table] = []
    num_rows = num_bytes = 0
    # By place and not by name: for the name "a" Arrow decodes a column "a.b" too.
    leaves = _leaves(file.schema_arrow, columns)
    batches = (
        file.reader.iter_batches(BATCH_ROWS, row_groups=groups, column_indices=leaves)
        if groups
        else ()
    )
    for batch in batches:
        table = pa.Table.from_batches([batch]).select(columns)
        if episode is not None:
            table = table.filter(pc.equal(table["episode_index"], episode))
        num_rows += table.num_rows
        num_bytes += table.nbytes
        if num_rows > MAX_ROWS:
            raise SourceError(Code.TOO_LONG, f"more than {MAX_ROWS} rows", where=where)
        if num_bytes > MAX_BYTES:
            raise SourceError(Code.TOO_LARGE, f"more than {MAX_BYTES} bytes of rows", where=where)
        kept.append(table)
    return pa.concat_tables(kept) if kept else file.schema_arrow.empty_table().select(columns)


def _leaves(schema: pa.Schema, columns: list[str]) -> list[int]:
    """Places of the Parquet columns that make up the top-level `columns`."""
    out: list[int] = []
    start = 0
    for field in schema:
        end = start + _num_leaves(field.type)
        if field.name in columns:
            out += range(start, end)
        start = end
    return out


def _num_leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.ExtensionType):
        return _num_leaves(kind.storage_type)
    if pa.types.is_nested(kind):
        return sum(_num_leaves(kind.field(i).type) for i in range(kind.num_fields))
    return 1
