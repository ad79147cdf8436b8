"""The catalog for readers: SQL over exactly one snapshot of a corpus, read-only.

DuckDB in memory with one view per table of `schemas/catalog.py`, over the parts that the snapshot names and nothing
else; no database file is the truth. Three views are derived: `verdicts` is the latest verdict of each uid (all of
them are in `verdicts_all`), `quarantine` those that are quarantined, `tasks` one row per episode and task text.

User SQL is hostile. `ingest/catalog/sql_guard.py` lets only reading queries through; behind it DuckDB itself is locked down
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
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

import duckdb
import pyarrow as pa

from ingest.catalog import sql_guard
from ingest.catalog.next_command import next_command
from ingest.catalog.query_process import QueryLimits, answer
from ingest.catalog.views import DERIVED, HISTORIES, connect, create_views, lock_down
from ingest.corpus.snapshot import Part, Snapshot, load
from schemas.catalog import TABLES
from schemas.errors import ConfigError, InvariantError
from schemas.parquet_file import checked, collect
from schemas.remedies import doc_page

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")

BATCH_ROWS = 100_000
POLL_S = 0.1


class Catalog:
    """One snapshot of a corpus as tables. For one thread at a time; open one per thread."""

    def __init__(self, corpus: Path, snapshot: Snapshot, limits: QueryLimits) -> None:
        self._limits = limits
        self._registered: dict[str, pa.Table] = {}
        self._parts = {
            name: [str(checked(_part_path(corpus, part))) for part in snapshot.parts(name)]
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
            raise ConfigError(
                f"the catalog cannot be read: {error}",
                remedy=f"run `eicorpus verify {corpus}` to list the damage",
                where=str(corpus),
            ) from error

    @classmethod
    def open(
        cls, corpus: Path | str, *, snapshot: int | None = None, limits: QueryLimits | None = None
    ) -> Self:
        """The latest snapshot of a corpus, or the one asked for; empty tables when nothing was committed yet.

        Raises:
            ConfigError: no such folder or snapshot, a part that is missing, cut short or outside the catalog.
        """
        root = Path(corpus).resolve()
        if not root.is_dir():
            raise ConfigError(
                "no such folder",
                remedy="pass a corpus that `eicorpus ingest --out` created",
                where=str(root),
            )
        return cls(root, load(root, snapshot), limits or QueryLimits())

    def __enter__(self) -> Self:
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

        def collected(reader: pa.RecordBatchReader) -> pa.Table:
            return pa.Table.from_batches(self._bounded(reader), schema=reader.schema)

        return self._run_query(text, parameters, collected)

    def write_arrow(self, text: str, file: BinaryIO) -> None:
        """`arrow` as an Arrow IPC stream, a batch in memory at a time; the same errors."""

        def written(reader: pa.RecordBatchReader) -> None:
            with pa.ipc.new_stream(file, reader.schema) as writer:
                for batch in self._bounded(reader):
                    writer.write_batch(batch)

        self._run_query(text, (), written)

    def arrow_of_stranger(self, text: str) -> pa.Table:
        """`arrow` of a query that has a stranger's expression in it: in a process of its own, which ends at the limits.

        It sees the same snapshot, and the tables that were registered here.
        """
        result = answer(
            self.corpus,
            text,
            snapshot=self.snapshot or None,
            limits=self._limits,
            tables=self._registered,
        )
        return result.table

    def _run_query(
        self,
        text: str,
        parameters: Mapping[str, Any] | Sequence[Any],
        consume: Callable[[pa.RecordBatchReader], T],
    ) -> T:
        statement = sql_guard.reading_statement(self._connection, text)

        def consumed() -> T:
            relation = self._connection.sql(statement, params=parameters or None)
            with relation.to_arrow_reader(BATCH_ROWS) as reader:  # open, it blocks the connection
                return consume(reader)

        with self._time_limit():
            return _interruptible(consumed, self._connection.interrupt)

    def _bounded(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """The batches of a result, or an error before it fills the machine: DuckDB does not count what it has handed over."""
        num_bytes, limit_mb = 0, self._limits.most_of_answer_mb
        for batch in reader:
            num_bytes += batch.nbytes
            if num_bytes > limit_mb << 20:
                raise ConfigError(
                    f"the result is larger than {limit_mb} MB",
                    remedy="aggregate it, add LIMIT or raise --memory-limit-mb",
                    where="query",
                )
            yield batch

    def register(self, name: str, table: pa.Table) -> None:
        """Let queries of this catalog ask `table` under `name`, which may be given again for another one."""
        if name in self.tables:
            raise InvariantError(f"{name!r} is the name of a catalog table; choose another name")
        self._connection.register(name, table)
        self._registered[name] = table

    def unregister(self, name: str) -> None:
        """Let go of what `register` was given; nothing of that name is no error."""
        self._connection.unregister(name)
        self._registered.pop(name, None)

    def expression(self, text: str, relation: str) -> str:
        """A stranger's expression over the rows of `relation`, known to be one: it may stand in brackets after WHERE.

        Raises:
            ConfigError: it is more or less than that; the message is DuckDB's where it does not parse.
        """
        return sql_guard.reading_expression(self._connection, text, relation, self.tables)

    def sql(self, text: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> pl.DataFrame:
        """`arrow` as a Polars frame; the same errors, and for columns that Polars cannot hold."""
        import polars as pl  # SQL itself needs none of it

        table = self.arrow(text, parameters)
        try:
            frame = pl.from_arrow(table)
        except pl.exceptions.PolarsError as error:
            raise ConfigError(
                f"{error}",
                remedy="give every column a unique name (AS), and cast types that Polars lacks to VARCHAR",
                where="query",
            ) from error
        return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()

    def table(self, name: str) -> pl.LazyFrame:
        """A table with all its declared columns, for Polars transforms."""
        import polars as pl

        if name not in self.tables:
            raise ConfigError(f"no table {name!r}; expected one of {', '.join(self.tables)}")
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
            raise ConfigError(f"the table episodes has no column {unknown}; it has {have}")
        frame = self.table("episodes")
        return collect(frame if columns is None else frame.select(columns), "catalog/episodes")

    @property
    def _hint(self) -> str:
        tables = next_command('query "SHOW TABLES"', self.corpus)
        return f"list tables and columns with {tables}; {doc_page('how-to/query.md')}"

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
                raise ConfigError(self._limits.timeout_message, where="query") from error
            if isinstance(error, duckdb.InternalException | duckdb.FatalException):
                raise InvariantError(f"internal error of DuckDB: {error}", where="query") from error
            raise ConfigError(f"{error}\n{self._hint}", where="query") from error
        finally:
            timer.cancel()
            timer.join()


def _interruptible(work: Callable[[], T], stop: Callable[[], None]) -> T:
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
    path = part.file(corpus)
    if not path.is_file() or path.stat().st_size != part.num_bytes:
        raise ConfigError(
            f"part {part.path} is missing or does not have {part.num_bytes} bytes",
            remedy="restore it, or use an earlier --snapshot",
            where=str(corpus),
        )
    return path
