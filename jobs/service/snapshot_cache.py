"""The cache of one snapshot, open: its columns as memory maps, its texts, and rows of single episodes by SQL.

Memory maps and open files outlive the removal of the folder, so a request that began on an older snapshot ends on it.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingest.catalog.views import without_progress_bar
from ingest.curation.duplicates.similar import CoarseVectors
from jobs.service.cache_build import COLUMNS, DETAIL, SIMILAR, TEXTS
from jobs.service.cache_key import CacheKey
from schemas.errors import ConfigError, SourceError
from schemas.json_text import JsonLimits, read_json

Rows = npt.NDArray[np.int32]
FILE_LIMITS = JsonLimits(max_bytes=1 << 28, max_elements=1 << 22)
DETAIL_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": "1",
    "memory_limit": "512MB",
    "enable_external_access": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeColumn:
    """A value of every episode and the order of the episodes by it.

    values: float64 with NaN for unknown, or codes into `texts` with -1 for unknown; None for a column of texts, whose values are `shown`.
    """

    name: str
    kind: Literal["number", "coded", "text"]
    unit: str
    texts: tuple[str, ...]
    values: npt.NDArray[Any] | None
    order: Rows
    num_valid: int
    shown: pa.StringArray | None = None

    def value(self, row: int) -> float | str | None:
        return self.values_of(np.array([row]))[0]

    def values_of(self, rows: npt.NDArray[np.integer]) -> list[float | str | None]:
        """What the episodes have; None for unknown. All rows at once: a page asks for 3,000 values, and one by one they were 4/5 of its time."""
        if self.values is None:
            assert self.shown is not None
            return [self.shown[row].as_py() for row in rows]
        values = self.values[rows].tolist()
        if self.kind == "coded":
            return [self.texts[code] if code >= 0 else None for code in values]
        return [None if value != value else value for value in values]  # NaN is not itself


class SnapshotCache:
    """For any number of threads."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ConfigError: it is not whole.
        """
        self.folder = folder
        try:
            self.key = CacheKey(**read_json(folder / "key.json", limits=FILE_LIMITS))
            about = read_json(folder / COLUMNS, limits=FILE_LIMITS)
            self.texts = pa.ipc.open_file(pa.memory_map(str(folder / TEXTS))).read_all()
            self.outcomes: Sequence[Mapping[str, Any]] = about["outcomes"]
            self.explained: Mapping[str, tuple[float, float]] = about["explained"]
            columns = [self._column(place, **facts) for place, facts in enumerate(about["columns"])]
            self.coarse_vectors = self._coarse_vectors()
            self._database = duckdb.connect(
                str(folder / DETAIL), read_only=True, config=DETAIL_CONFIG
            )
        except (
            OSError,
            EOFError,
            ValueError,
            TypeError,
            KeyError,
            SourceError,
            duckdb.Error,
        ) as error:
            raise ConfigError(
                f"the cache is damaged ({type(error).__name__})",
                remedy="delete the folder; it is built again",
                where=str(folder),
            ) from error
        self.columns = {column.name: column for column in columns}
        self._lock = threading.Lock()

    @property
    def num_episodes(self) -> int:
        return int(self.texts.num_rows)

    @property
    def snapshot(self) -> int:
        return self.key.snapshot

    @cached_property
    def hours(self) -> npt.NDArray[np.float64]:
        values = self.columns["hours"].values
        assert values is not None
        return np.asarray(np.nan_to_num(values), dtype=np.float64)

    @cached_property
    def search_texts(self) -> pl.Series:
        """What a search looks through, without a copy. Polars finds a word in a fifth of the time of Arrow."""
        return pl.Series(self.texts["search"])

    def _column(
        self,
        place: int,
        name: str,
        kind: Literal["number", "coded", "text"],
        unit: str,
        texts: Sequence[str],
    ) -> EpisodeColumn:
        order = np.load(self.folder / f"order-{place}.npy", mmap_mode="r", allow_pickle=False)
        shown, values = None, None
        if kind == "text":
            shown = self.texts[name].combine_chunks()
            num_valid = len(shown) - shown.null_count
        else:
            path = self.folder / f"values-{place}.npy"
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            is_known = values >= 0 if kind == "coded" else ~np.isnan(values)
            num_valid = int(np.count_nonzero(is_known))
        return EpisodeColumn(
            name=name,
            kind=kind,
            unit=unit,
            texts=tuple(texts),
            values=values,
            order=order,
            num_valid=num_valid,
            shown=shown,
        )

    def _coarse_vectors(self) -> CoarseVectors:
        """What similar episodes are found by, as memory maps."""
        names = [field.name for field in fields(CoarseVectors)]
        paths = {name: self.folder / SIMILAR.format(name) for name in names}
        return CoarseVectors(
            **{
                name: np.load(path, mmap_mode="r", allow_pickle=False)
                for name, path in paths.items()
            }
        )

    @cached_property
    def uids(self) -> pa.StringArray:
        """Ascending."""
        uids = self.texts["uid"]
        return uids.chunk(0) if uids.num_chunks == 1 else uids.combine_chunks()

    def place_of(self, uid: str) -> int:
        """The first row whose uid is not before `uid`."""
        return bisect_left(_Texts(self.uids), uid)

    def row_of(self, uid: str) -> int | None:
        """The row of an episode; None where the snapshot does not have it."""
        row = self.place_of(uid)
        return row if row < self.num_episodes and self.uids[row].as_py() == uid else None

    def ask(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[dict[str, Any]]:
        """Rows of one of our own queries."""
        with self._lock:
            cursor = without_progress_bar(self._database.cursor())
        with cursor:
            return list(cursor.sql(sql, params=parameters or None).to_arrow_table().to_pylist())

    def rows_of(self, table: str, row: int) -> list[dict[str, Any]]:
        """The rows of one episode in a table, without the row number."""
        return self.ask(f"SELECT * EXCLUDE (episode) FROM {table} WHERE episode = ?", [row])

    def episode(self, row: int) -> dict[str, Any]:
        """The episode's row of the catalog."""
        return self.rows_of("episodes", row)[0]


class _Texts(Sequence[str]):
    """An Arrow column for `bisect`."""

    def __init__(self, column: pa.StringArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, row: Any) -> Any:
        return self._column[row].as_py()
