"""The server's side of the queue: one job after the other is passed to the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from jobs.service.job_engine import JobEngine, ProcessEngine
from jobs.service.job_store import ACTIVE, FINISHED, Job, JobOwner, JobStore
from schemas.errors import PipelineError


class JobRunner:
    """One for a server. `watch` runs in a thread."""

    def __init__(
        self,
        store: JobStore,
        corpus: Path,
        spec: Path | None = None,
        engine: JobEngine | None = None,
    ) -> None:
        self.store, self.corpus, self.spec = store, corpus, spec
        self._engine: JobEngine = engine or ProcessEngine(store, corpus, spec)
        place = "" if spec is None else str(spec.resolve())
        self.owner = JobOwner(spec=place, ray_address=self._engine.ray_address)

    def watch(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        """Until `stop`. A disk that is full, a file that is damaged or a job that cannot be begun is reported, and tried again."""
        last_problem = ""
        while not stop.wait(self._engine.poll_s):
            try:
                self.step()
                last_problem = ""
            except (OSError, ValueError, PipelineError) as error:  # the thread must not end
                problem = f"jobs: {error}"
                if problem != last_problem:
                    report(problem)
                last_problem = problem

    def step(self) -> None:
        """Look at all jobs once."""
        self._engine.follow()
        self.store.remove_oldest()
        job = self.store.next_queued(self.owner)
        if job is not None:
            self._engine.start(job)

    def cancel(self, job: Job, now_s: float) -> None:
        """Stop a job. One on Ray that cannot be reached is forgotten when it is cancelled once more."""
        is_lost = bool(job.problem) or not job.belongs_to(self.owner)
        self.store.cancel(job.id, now_s, forgets=is_lost and job.state == "cancelling")

    def waits_for(self, job: Job) -> str:
        """Which server runs the job, where it is another one."""
        if job.state in FINISHED or job.belongs_to(self.owner):
            return ""
        if job.state in ACTIVE and job.submission_id is None:
            return ""  # its own process ends it
        place = f"of {job.spec}" if job.spec else "without a spec"
        if job.ray_address == "":
            return f"a server {place} and without --ray-address"
        return f"a server {place} with --ray-address {job.ray_address or ''}".strip()
