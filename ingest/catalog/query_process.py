"""Runs SQL of the user in a process of its own, within limits of time, memory and rows, so that it can be ended whatever it calls."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from schemas.errors import ConfigError, InvariantError, PipelineError, TransientError

START_S = 120.0  # to open a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """DuckDB checks them between batches of rows. A single function call on one huge value can overstep them, so SQL that a user or a file
    gives runs in a process of its own (`ingest/catalog/query_process.py`), which is ended where DuckDB does not stop."""

    timeout_s: float = 60.0
    memory_mb: int = 4096  # MiB, of DuckDB while it works
    answer_mb: int | None = None  # MiB, of its result; None: `memory_mb`
    threads: int | None = None  # None: as many as the CPU pool of Arrow has

    def __post_init__(self) -> None:
        if (
            self.timeout_s <= 0
            or self.memory_mb < 1
            or (self.answer_mb is not None and self.answer_mb < 1)
            or (self.threads is not None and self.threads < 1)
        ):
            raise ConfigError(f"{self}: every limit must be positive")

    @property
    def most_of_answer_mb(self) -> int:
        return self.memory_mb if self.answer_mb is None else self.answer_mb

    @property
    def timeout_message(self) -> str:
        return f"stopped after {self.timeout_s:g} s; narrow the query or raise --time-limit-s"

    @property
    def start_message(self) -> str:
        return (
            f"the snapshot did not open within {START_S:g} s; "
            "run the query again when the storage is less busy, or run `eicorpus compact`"
        )


POLL_S = 0.1  # a signal that another thread received does not wake the main thread
# As multiprocessing spawns: the path of this process, and no module of the current folder.
PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from ingest.catalog.query_child import main; main()"
)
ERRORS: dict[str, type[PipelineError]] = {
    kind.__name__: kind for kind in (ConfigError, InvariantError, TransientError)
}


def name_of(error: PipelineError) -> str:
    """The key in `ERRORS` of an error or of what it is a kind of: `DamagedParquet` is a ConfigError to the asking process."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return next((name for name in kinds if name in ERRORS), InvariantError.__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Rows, and the snapshot that they are of."""

    table: pa.Table
    snapshot: int


def answer(
    corpus: Path,
    sql: str,
    *,
    snapshot: int | None,
    limits: QueryLimits,
    tables: Mapping[str, pa.Table] | None = None,
) -> Answer:
    """The rows of one reading query; `tables` can be selected from by name, beside those of the catalog.

    Raises:
        ConfigError: the query is wrong, not allowed, or over a limit.
    """
    with tempfile.TemporaryFile() as rows:
        number = answer_into(rows, corpus, sql, snapshot=snapshot, limits=limits, tables=tables)
        return Answer(table=pa.ipc.open_stream(rows).read_all(), snapshot=number)


def answer_into(
    rows: IO[bytes],
    corpus: Path,
    sql: str,
    *,
    snapshot: int | None,
    limits: QueryLimits,
    tables: Mapping[str, pa.Table] | None = None,
) -> int:
    """The rows of one reading query, written to a file as an Arrow IPC stream; the file is at its start again. Returns the snapshot.

    Raises:
        ConfigError: as `answer`.
    """
    tables = tables or {}
    with tempfile.TemporaryFile() as sent:
        for table in tables.values():
            with pa.ipc.new_stream(sent, table.schema) as writer:
                writer.write_table(table)
        sent.seek(0)
        question = {
            "corpus": str(corpus),
            "sql": sql,
            "snapshot": snapshot,
            "limits": asdict(limits),
            "tables": list(tables),
            "given": sent.fileno(),
            "answer": rows.fileno(),
        }
        reply = _reply(question, (sent, rows), limits)
        rows.seek(0)
        number: int = reply["snapshot"]
        return number


def _reply(question: dict[str, Any], files: tuple[IO[bytes], ...], limits: QueryLimits) -> Any:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[file.fileno() for file in files],
        start_new_session=True,  # Ctrl-C is this process's to handle
    ) as process:
        try:
            output, complaint = _communicate(process, json.dumps(question).encode())
        finally:
            process.kill()
    lines = [json.loads(line) for line in output.splitlines()]
    if process.returncode == 0:
        if "error" in lines[-1]:
            raise ERRORS[lines[-1]["error"]](
                lines[-1]["message"],
                where=lines[-1]["where"],
                remedy=lines[-1].get("remedy", ""),
            )
        return lines[-1]
    what = complaint.decode(errors="replace")
    raise _ended(process.returncode, what, limits, has_begun=bool(lines))


def _communicate(process: subprocess.Popen[bytes], question: bytes) -> tuple[bytes, bytes]:
    unsent: bytes | None = question
    while True:
        try:
            return process.communicate(unsent, timeout=POLL_S)
        except subprocess.TimeoutExpired:
            unsent = None  # it is on its way


def _ended(
    returncode: int, complaint: str, limits: QueryLimits, *, has_begun: bool
) -> PipelineError:
    """How a process ended that was killed or broke; `has_begun`: it had opened the snapshot."""
    if returncode == -signal.SIGALRM:
        message = limits.timeout_message if has_begun else limits.start_message
        return ConfigError(message, where="query")
    if returncode in (-signal.SIGKILL, -signal.SIGABRT):
        name = signal.Signals(-returncode).name
        problem = f"ended by {name}, probably because it ran out of memory"
        return ConfigError(
            problem,
            remedy=f"narrow the query or change --memory-limit-mb ({limits.memory_mb})",
            where="query",
        )
    last = complaint.strip().splitlines()[-1:] or ["no message"]
    return InvariantError(
        f"the query process ended with exit code {returncode}: {last[0]}", where="query"
    )
