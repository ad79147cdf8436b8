"""The queue of jobs: one table of SQLite in the state folder of the server. Several processes may hold it at a time.

A job that runs holds the lock of its own file. The kernel lets go of it when the last process of the job dies, so a row that is `running` without
a lock is a job that ended without a result.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import TransientError

MAX_QUEUED = 100
MAX_FINISHED = 1000
MAX_ATTEMPTS = 2
BUSY_TIMEOUT_S = 30.0
STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled", "interrupted")
ACTIVE = ("running", "cancelling")
FINISHED = STATES[3:]
_ACTIVE = "('running', 'cancelling')"
_FINISHED = "('succeeded', 'failed', 'cancelled', 'interrupted')"
_SCHEMA = f"""CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN {STATES}),
    attempts INTEGER NOT NULL DEFAULT 0,
    created_at_s REAL NOT NULL,
    started_at_s REAL,
    ended_at_s REAL,
    exit_code INTEGER,
    result TEXT,
    problem TEXT NOT NULL DEFAULT ''
) STRICT"""
_LATER = {  # a queue of an earlier version has them not
    "submission_id": "TEXT",
    "is_submitted": "INTEGER NOT NULL DEFAULT 0",
    "log_start": "INTEGER NOT NULL DEFAULT 0",
    "spec": "TEXT",
    "ray_address": "TEXT",
}
_INDEX = "CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, id)"  # a request may be large
# A list shows how many episodes a job names, and not 10,000 of them.
_LISTED = """CASE WHEN json_array_length(request, '$.uids') > 0
    THEN json_set(request, '$.uids', json_array_length(request, '$.uids')) ELSE request END"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOwner:
    """The servers that may run a job: those of its spec, whose policies and paths it was submitted for, and of its engine."""

    spec: str = ""  # path; empty: none
    ray_address: str = ""  # empty: a process of one machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A row. Seconds are of the Unix epoch."""

    id: int
    key: str
    kind: str
    request: str  # JSON of a request of `job_kinds`
    state: str
    attempts: int
    created_at_s: float
    started_at_s: float | None
    ended_at_s: float | None
    exit_code: int | None
    result: str | None  # the JSON object that the command printed
    problem: str
    submission_id: str | None  # of a job on Ray, from before it is submitted on
    is_submitted: int  # 1: Ray has accepted it
    log_start: int  # bytes of its log that are of earlier attempts
    spec: str | None  # as in JobOwner; None: of an earlier version, which any server runs
    ray_address: str | None

    def belongs_to(self, owner: JobOwner) -> bool:
        if self.ray_address is None:
            return self.submission_id is None or bool(owner.ray_address)
        return (self.spec, self.ray_address) == (owner.spec, owner.ray_address)


class QueueFull(Exception):
    """The queue has its most jobs."""


class OtherRequest(Exception):
    """The key belongs to a job with another request."""


class JobStore:
    """For any number of threads and processes: each call opens the file, and raises TransientError where SQLite cannot use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._writing() as connection:
            connection.execute(_SCHEMA)
            columns = {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}
            for name, kind in _LATER.items():
                if name not in columns:
                    connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")
            connection.execute(_INDEX)

    def log_of(self, job_id: int) -> Path:
        return self.folder / f"{job_id}.log"

    def lock_of(self, job_id: int) -> Path:
        return self.folder / f"{job_id}.lock"

    def submit(
        self,
        *,
        key: str,
        kind: str,
        request: str,
        now_s: float,
        owner: JobOwner = JobOwner(),  # immutable
    ) -> tuple[Job, bool]:
        """The job of a key, and whether it is new.

        Raises:
            OtherRequest: the key has another request.
            QueueFull: too many jobs wait.
        """
        with self._writing() as connection:
            existing = _jobs(connection, "WHERE key = ?", key)
            if existing:
                if existing[0].request != request:
                    raise OtherRequest(key)
                return existing[0], False
            count = "SELECT count(*) FROM jobs WHERE state = 'queued'"
            if connection.execute(count).fetchone()[0] >= MAX_QUEUED:
                raise QueueFull
            insert = """INSERT INTO jobs (key, kind, request, state, created_at_s, spec, ray_address)
                VALUES (?, ?, ?, 'queued', ?, ?, ?)"""
            values = (key, kind, request, now_s, owner.spec, owner.ray_address)
            row = connection.execute(insert, values)
            return _jobs(connection, "WHERE id = ?", row.lastrowid)[0], True

    def job(self, job_id: int) -> Job | None:
        with self._reading() as connection:
            return next(iter(_jobs(connection, "WHERE id = ?", job_id)), None)

    def page(self, before: int | None, limit: int) -> list[Job]:
        """Newest first, from the job before `before` on, without what may be large: results, and named episodes."""
        with self._reading() as connection:
            rows = "WHERE ? IS NULL OR id < ? ORDER BY id DESC LIMIT ?"
            return _jobs(connection, rows, before, before, limit, result="NULL", request=_LISTED)

    def active(self) -> list[Job]:
        with self._reading() as connection:
            return _jobs(connection, f"WHERE state IN {_ACTIVE} ORDER BY id")

    def next_queued(self, owner: JobOwner = JobOwner()) -> Job | None:
        """The oldest job of the owner that waits, if none runs."""
        with self._reading() as connection:
            rows = f"""WHERE state = 'queued' AND (ray_address IS NULL OR (spec = ? AND ray_address = ?))
                AND NOT EXISTS (SELECT 1 FROM jobs WHERE state IN {_ACTIVE}) ORDER BY id LIMIT 1"""
            return next(iter(_jobs(connection, rows, owner.spec, owner.ray_address)), None)

    def claim(
        self, job_id: int, now_s: float, *, submission_id: str | None = None, log_start: int = 0
    ) -> bool:
        """A queued job becomes running, if none runs. Only the holder of the job's lock calls it."""
        claim = f"""UPDATE jobs SET state = 'running', attempts = attempts + 1, started_at_s = ?, problem = '',
            submission_id = ?, is_submitted = 0, log_start = ? WHERE id = ? AND state = 'queued' AND NOT EXISTS (SELECT 1 FROM jobs WHERE state IN {_ACTIVE})"""
        with self._writing() as connection:
            values = (now_s, submission_id, log_start, job_id)
            return connection.execute(claim, values).rowcount == 1

    def cancel(self, job_id: int, now_s: float, *, forgets: bool = False) -> None:
        """A job that waits ends at once; one that runs is asked to stop. A finished one stays as it is.

        Args:
            forgets: one on Ray that was asked to stop ends here, and perhaps not there.
        """
        with self._writing() as connection:
            if forgets:
                forgotten = """UPDATE jobs SET state = 'cancelled', ended_at_s = ?
                    WHERE id = ? AND state = 'cancelling' AND submission_id IS NOT NULL"""
                connection.execute(forgotten, (now_s, job_id))
            waiting = "UPDATE jobs SET state = 'cancelled', ended_at_s = ? WHERE id = ? AND state = 'queued'"
            connection.execute(waiting, (now_s, job_id))
            running = "UPDATE jobs SET state = 'cancelling' WHERE id = ? AND state = 'running'"
            connection.execute(running, (job_id,))

    def is_cancelling(self, job_id: int) -> bool:
        job = self.job(job_id)
        return job is not None and job.state == "cancelling"

    def finish(
        self,
        job_id: int,
        *,
        state: str,
        now_s: float,
        exit_code: int | None = None,
        result: str | None = None,
        problem: str = "",
    ) -> None:
        finish = "UPDATE jobs SET state = ?, ended_at_s = ?, exit_code = ?, result = ?, problem = ? WHERE id = ?"
        with self._writing() as connection:
            connection.execute(finish, (state, now_s, exit_code, result, problem, job_id))

    def recover(self, now_s: float) -> None:
        """Jobs of processes that ended without a result: see `lost`."""
        for job in self.active():
            if job.submission_id is not None:
                continue  # on Ray, which knows how it is
            with self.holding(job.id) as is_free:
                if not is_free:
                    continue
                current = self.job(job.id)
                if current is None or current.state not in ACTIVE:
                    continue  # it ended between the two looks
                self.lost(job.id, now_s, "the process ended without a result")

    def lost(self, job_id: int, now_s: float, problem: str) -> None:
        """A job that ended without a result waits once more, then counts as interrupted; a cancelled one is cancelled."""
        lost = f"""UPDATE jobs SET
            state = CASE WHEN state = 'cancelling' THEN 'cancelled' WHEN attempts < {MAX_ATTEMPTS} THEN 'queued' ELSE 'interrupted' END,
            ended_at_s = CASE WHEN state = 'running' AND attempts < {MAX_ATTEMPTS} THEN NULL ELSE ? END,
            problem = CASE WHEN state = 'cancelling' THEN '' WHEN attempts < {MAX_ATTEMPTS} THEN ? ELSE ? END
            WHERE id = ? AND state IN {_ACTIVE}"""
        again, ended = f"{problem}; queued again", f"{problem} {MAX_ATTEMPTS} times"
        with self._writing() as connection:
            connection.execute(lost, (now_s, again, ended, job_id))

    def mark_submitted(self, job_id: int) -> None:
        with self._writing() as connection:
            connection.execute("UPDATE jobs SET is_submitted = 1 WHERE id = ?", (job_id,))

    def note(self, job_id: int, problem: str) -> None:
        """What is wrong with a job that runs."""
        with self._writing() as connection:
            note = f"UPDATE jobs SET problem = ? WHERE id = ? AND state IN {_ACTIVE}"
            connection.execute(note, (problem, job_id))

    def remove_oldest(self) -> None:
        """Finished jobs beyond the most that are kept, with their logs."""
        with self._writing() as connection:
            oldest = f"WHERE state IN {_FINISHED} ORDER BY id DESC LIMIT -1 OFFSET ?"
            for job in _jobs(connection, oldest, MAX_FINISHED):
                self.log_of(job.id).unlink(missing_ok=True)
                self.lock_of(job.id).unlink(missing_ok=True)
                connection.execute("DELETE FROM jobs WHERE id = ?", (job.id,))

    def counts(self) -> tuple[dict[str, int], int]:
        """Jobs by state, and how many were removed as the oldest."""
        with self._reading() as connection:
            rows = dict(connection.execute("SELECT state, count(*) FROM jobs GROUP BY state"))
            last = connection.execute("SELECT seq FROM sqlite_sequence").fetchone()
        return rows, (last[0] if last else 0) - sum(rows.values())

    def last_seconds(self) -> dict[str, float]:
        """How long the last job of each kind that succeeded took."""
        query = """SELECT kind, ended_at_s - started_at_s, max(id) FROM jobs
            WHERE state = 'succeeded' AND started_at_s IS NOT NULL GROUP BY kind"""
        with self._reading() as connection:
            return {kind: seconds for kind, seconds, _ in connection.execute(query)}

    def last_result(self, kind: str) -> str | None:
        """Of the last job of a kind that succeeded."""
        query = "SELECT result FROM jobs WHERE state = 'succeeded' AND kind = ? ORDER BY id DESC LIMIT 1"
        with self._reading() as connection:
            return next((result for (result,) in connection.execute(query, (kind,))), None)

    @contextmanager
    def holding(self, job_id: int) -> Iterator[int | None]:
        """The lock of a job as a file descriptor (never 0), or None where a process of the job has it."""
        handle = os.open(self.lock_of(job_id), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield handle
        finally:
            os.close(handle)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """
        Raises:
            TransientError: SQLite cannot read or write: the disk is full, or the file is damaged.
        """
        file = self.folder / "jobs.sqlite"
        try:
            opened = sqlite3.connect(file, BUSY_TIMEOUT_S, isolation_level=None)
            with closing(opened) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            raise TransientError(
                f"the queue of jobs cannot be used: {error}",
                remedy="make room on its disk; if the file is damaged, delete it: it holds jobs and no data",
                where=str(file),
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _jobs(connection: sqlite3.Connection, rows: str, *values: Any, **instead: str) -> list[Job]:
    """`instead`: expressions in place of columns."""
    columns = ", ".join(instead.get(name, name) for name in Job.__dataclass_fields__)
    cursor = connection.execute(f"SELECT {columns} FROM jobs {rows}", values)
    return [Job(**dict(zip(Job.__dataclass_fields__, row, strict=True))) for row in cursor]
