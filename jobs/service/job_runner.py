"""The server's side of the queue: it starts the process of the next job, and finds jobs whose process ended without a result.

A job outlives the server that started it, and the next server finds it by its lock. So the end of a server ends no job.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jobs.service.job_store import JobStore
from schemas.errors import TransientError

POLL_S = 0.3
MAX_FAILURES = 3  # of the process of one job


class JobRunner:
    """One for a server. `watch` runs in a thread."""

    def __init__(self, store: JobStore, corpus: Path, spec: Path | None = None) -> None:
        self.store, self.corpus, self.spec = store, corpus, spec
        self._child: subprocess.Popen[bytes] | None = None
        self._child_job = 0
        self._failures: dict[int, int] = {}

    def watch(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Until `stop`. A disk that is full or a file that is damaged is reported, and tried again."""
        last_problem = ""
        while not stop.wait(POLL_S):
            try:
                self.step()
                last_problem = ""
            except (OSError, TransientError) as error:
                problem = f"jobs: {type(error).__name__}: {error}"
                if problem != last_problem:
                    report(problem)
                last_problem = problem

    def step(self) -> None:
        """Look at all jobs once."""
        if self._child is not None:
            exit_code = self._child.poll()
            if exit_code is None:
                return
            self._child = None
            if exit_code:
                self._failures[self._child_job] = self._failures.get(self._child_job, 0) + 1
        self.store.recover(time.time())
        self.store.remove_oldest()
        job = self.store.next_queued()
        if job is None:
            return
        if self._failures.get(job.id, 0) >= MAX_FAILURES:
            problem = "the process of the job could not be started"
            self.store.finish(job.id, state="failed", now_s=time.time(), problem=problem)
            return
        self._child_job = job.id
        words = [
            "jobs.service.job_process",
            str(self.store.folder.parent.resolve()),
            str(self.corpus),
            str(job.id),
            *([] if self.spec is None else [str(self.spec)]),
        ]
        self._child = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # `-m` looks here first: a folder `jobs` where the server was started is not ours
            cwd=Path(__file__).parents[2],
            start_new_session=True,  # Ctrl-C in the terminal of the server is not for the job
        )
