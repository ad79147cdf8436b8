"""The catalog for readers: SQL over exactly one snapshot of a corpus, read-only.

DuckDB in memory with one view per table of `schemas/catalog.py`, over the parts that the snapshot names and nothing
else; no database file is the truth. Three views are derived: `verdicts` is the latest verdict of each uid (all of
them are in `verdicts_all`), `quarantine` those that are quarantined, `tasks` one row per episode and task text.

User SQL is hostile. `ingest/query_guard.py` lets only reading queries through; behind it DuckDB itself is locked down
(external access off but for the corpus folders that consumers read, no extensions, no Python variables, configuration
locked). DuckDB 2.0.0 also refuses links that leave those folders; 1.4.4 follows them (both tried).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from ingest import query_guard
from ingest.catalog_views import DERIVED, HISTORIES, Limits, connect, create_views, lock_down
from ingest.snapshot import Part, Snapshot, load
from schemas.catalog import TABLES
from schemas.errors import ConfigError, InvariantError

BATCH_ROWS = 100_000
POLL_S = 0.1
HINT = 'see what there is: eicorpus query "SHOW TABLES" or "DESCRIBE episodes"; docs/query.md'


class Catalog:
    """One snapshot of a corpus as tables. For one thread at a time; open one per thread."""

    def __init__(self, corpus: Path, snapshot: Snapshot, limits: Limits) -> None:
        self._limits = limits
        self._parts = {
            name: [str(_part_path(corpus, part)) for part in snapshot.parts(name)]
            for name in TABLES
        }
        self.corpus = corpus
        self.snapshot = snapshot.number
        self._connection = connect(limits)
        try:
            create_views(self._connection, self._parts)
            lock_down(self._connection, corpus)
        except duckdb.Error as error:
            self._connection.close()
            raise ConfigError(f"the catalog cannot be read: {error}", where=str(corpus)) from error

    @staticmethod
    def open(
        corpus: Path | str, *, snapshot: int | None = None, limits: Limits | None = None
    ) -> Catalog:
        """The latest snapshot of a corpus, or the one asked for; empty tables when nothing was committed yet.

        Raises:
            ConfigError: no such folder or snapshot, a part that is missing, cut short or outside the catalog.
        """
        root = Path(corpus).resolve()
        if not root.is_dir():
            raise ConfigError(
                "no such folder; give the corpus that `ingest --out` wrote", where=str(root)
            )
        return Catalog(root, load(root, snapshot), limits or Limits())

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @property
    def tables(self) -> tuple[str, ...]:
        """Names that SQL can select from."""
        return (*TABLES, *(f"{name}_all" for name in HISTORIES), "redundant", "quarantine", "tasks")

    def arrow(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> pa.Table:
        """The result of one reading query; `parameters` fill `$name` or `?`.

        Raises:
            ConfigError: the query is wrong, not allowed, or over a limit; the message is DuckDB's.
        """
        statement = query_guard.reading_statement(self._connection, text)

        def fetched() -> pa.Table:
            relation = self._connection.sql(statement, params=parameters or None)
            return _collect(relation.to_arrow_reader(BATCH_ROWS), self._limits.memory_mb)

        with self._time_limit():
            return _interruptible(fetched, self._connection.interrupt)

    def register(self, name: str, table: pa.Table) -> None:
        """Let queries of this catalog ask `table` under `name`, which may be given again for another one."""
        if name in self.tables:
            raise InvariantError(f"{name!r} is a table of the catalog")
        self._connection.register(name, table)

    def unregister(self, name: str) -> None:
        """Let go of what `register` was given; nothing of that name is no error."""
        self._connection.unregister(name)

    def expression(self, text: str, relation: str) -> str:
        """A stranger's expression over the rows of `relation`, known to be one: it may stand in brackets after WHERE.

        Raises:
            ConfigError: it is more or less than that; the message is DuckDB's where it does not parse.
        """
        return query_guard.reading_expression(self._connection, text, relation, self.tables)

    def sql(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> pl.DataFrame:
        """`arrow` as a Polars frame; the same errors, and for columns that Polars cannot hold."""
        table = self.arrow(text, parameters)
        try:
            frame = pl.from_arrow(table)
        except pl.exceptions.PolarsError as error:
            raise ConfigError(
                f"{error}; name every column once (AS), cast what Polars lacks to VARCHAR",
                where="query",
            ) from error
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()

    def table(self, name: str) -> pl.LazyFrame:
        """A table with all its declared columns, for Polars transforms."""
        if name not in self.tables:
            raise ConfigError(f"no table {name!r}; there are {', '.join(self.tables)}")
        if name in DERIVED:
            return self.sql(f'FROM "{name}"').lazy()
        name = name.removesuffix("_all")
        empty = pl.DataFrame(TABLES[name].empty_table())
        if not self._parts[name]:
            return empty.lazy()
        return pl.scan_parquet(
            self._parts[name],
            glob=False,
            hive_partitioning=False,
            schema=empty.schema,
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=pl.ScanCastOptions(
                missing_struct_fields="insert",
                extra_struct_fields="ignore",
                integer_cast="upcast",
            ),
        )

    def episodes(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """All committed episodes, or some columns of them."""
        unknown = sorted(set(columns or ()) - set(TABLES["episodes"].names))
        if unknown:
            have = ", ".join(TABLES["episodes"].names)
            raise ConfigError(f"episodes has no {unknown}; it has {have}")
        frame = self.table("episodes")
        return (frame if columns is None else frame.select(columns)).collect()

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        has_expired = threading.Event()

        def stop() -> None:
            has_expired.set()
            self._connection.interrupt()

        timer = threading.Timer(self._limits.timeout_s, stop)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if has_expired.is_set():
                message = f"stopped after {self._limits.timeout_s:g} s; narrow the query or raise --timeout-s"
                raise ConfigError(message, where="query") from error
            if isinstance(error, duckdb.InternalException | duckdb.FatalException):
                raise InvariantError(f"DuckDB failed inside: {error}", where="query") from error
            raise ConfigError(f"{error}\n{HINT}", where="query") from error
        finally:
            timer.cancel()
            timer.join()


def _interruptible(work: Callable[[], pa.Table], stop: Callable[[], None]) -> pa.Table:
    """`work()` on another thread, so that Ctrl-C and SIGTERM end it: Python handles a signal between two steps of the main thread.

    It takes a step every tenth of a second, because a signal that another thread received does not wake it.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            while not wait([future], timeout=POLL_S).done:
                pass
            return future.result()
        finally:
            while not future.done():  # an interrupt before the query began is lost, so again
                stop()
                wait([future], timeout=POLL_S)


def _part_path(corpus: Path, part: Part) -> Path:
    """Where a part lies, checked: a snapshot is a file that someone may have sent us."""
    path = (corpus / part.path).resolve()
    if not path.is_relative_to(corpus / "catalog"):
        raise ConfigError(
            f"part {part.path} lies outside the catalog; not opened", where=str(corpus)
        )
    if not path.is_file() or path.stat().st_size != part.num_bytes:
        raise ConfigError(
            f"part {part.path} is missing or not its {part.num_bytes} bytes; restore it, or ask for an earlier snapshot",
            where=str(corpus),
        )
    return path


def _collect(reader: pa.RecordBatchReader, memory_mb: int) -> pa.Table:
    """The whole result, or an error before it fills the machine: DuckDB does not count what it has handed over."""
    batches = []
    num_bytes = 0
    with reader:  # an open result blocks the connection
        for batch in reader:
            num_bytes += batch.nbytes
            if num_bytes > memory_mb * 1_000_000:
                raise ConfigError(
                    f"the result is larger than {memory_mb} MB; aggregate it, add LIMIT or raise --memory-mb",
                    where="query",
                )
            batches.append(batch)
        return pa.Table.from_batches(batches, schema=reader.schema)
