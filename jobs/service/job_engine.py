"""What runs the jobs of the queue, and the engine of one machine: a process of its own for each job."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from jobs.service.job_store import Job, JobStore

MAX_FAILURES = 3  # of the process of one job


class JobEngine(Protocol):
    """The queue in SQLite is the record; an engine makes its rows true."""

    poll_s: float
    ray_address: str  # empty: not on Ray

    def follow(self) -> None:
        """Look once at the jobs that run: keep their logs, stop those that are cancelled, store those that ended."""

    def start(self, job: Job) -> None:
        """Begin a job that waits. It is claimed by then, or by the process that was started; else it is passed again."""


# A job outlives the engine that started it. Its handle is kept here until it has ended: dropped, it is a ResourceWarning of whatever runs then.
_children: list[subprocess.Popen[bytes]] = []


class ProcessEngine:
    """A job outlives the server that started it, and the next server finds it by its lock. So the end of a server ends no job."""

    poll_s, ray_address = 0.3, ""

    def __init__(self, store: JobStore, corpus: Path, spec: Path | None) -> None:
        self._store, self._corpus, self._spec = store, corpus, spec
        self._child: subprocess.Popen[bytes] | None = None
        self._child_job = 0
        self._failures: dict[int, int] = {}

    def follow(self) -> None:
        if self._child is not None:
            exit_code = self._child.poll()
            if exit_code is None:
                return
            self._child = None
            if exit_code:
                self._failures[self._child_job] = self._failures.get(self._child_job, 0) + 1
        self._store.recover(time.time())

    def start(self, job: Job) -> None:
        if self._child is not None:
            return
        if self._failures.get(job.id, 0) >= MAX_FAILURES:
            problem = "the process of the job could not be started; its log has the reason"
            self._store.finish(job.id, state="failed", now_s=time.time(), problem=problem)
            return
        self._child_job = job.id
        words = [
            "jobs.service.job_process",
            str(self._store.folder.parent.resolve()),
            str(self._corpus),
            str(job.id),
            *([] if self._spec is None else [str(self._spec)]),
        ]
        with self._store.log_of(job.id).open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,  # why the process itself ended; its command has a pipe
                # `-m` looks here first: a folder `jobs` where the server was started is not ours
                cwd=Path(__file__).parents[2],
                start_new_session=True,  # Ctrl-C in the terminal of the server is not for the job
            )
        _children[:] = [self._child, *(each for each in _children if each.poll() is None)]
