"""The engine of `--ray-address`: a job is a job of the Ray Jobs API. `ray` is imported where a server has the option.

The submission id is stored before it is submitted, so that a server that was killed between the two finds the job, or submits it now. The same folders
must be at the same paths on the head of the cluster.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from jobs.service.job_output import (
    FULL_LOG,
    MAX_LOG_BYTES,
    MAX_RESULT_BYTES,
    redacted,
    secrets_of,
    shown_line,
)
from jobs.service.job_process import STOP_S, finish, request_of
from jobs.service.job_store import Job, JobOwner, JobStore
from jobs.ui.tables import printable
from schemas.errors import ConfigError, TransientError, system_error_text
from schemas.json_text import parse_json

TIMEOUT_S = 30.0
LOOK_S_PER_MIB = 2.0
RUNNER = (
    "python",
    "-P",
    "-m",
    "jobs.service.job_on_ray",
)  # -P: not from the folder that Ray begins it in
MAX_MESSAGE = 500  # characters of what Ray says of a job
STOPPED = 130  # the exit code of an orderly stop; Ray keeps none of a stopped job
# Ray signals all processes of a job, and workers ignore only what Ctrl-C sends. It kills them after 3 s unless told otherwise.
STOP_VARIABLES = {
    "RAY_JOB_STOP_SIGNAL": "SIGINT",
    "RAY_JOB_STOP_WAIT_TIME_S": str(int(STOP_S)),
}


class RayUnreachable(TransientError):
    """The head does not answer, refuses the token, or fails."""


class _Client(JobSubmissionClient):
    """Ray's own waits without end for a head that accepts connections and does not answer."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        return super()._do_request(method, endpoint, timeout=TIMEOUT_S, **options)


class RayJobs:
    """The calls of the Ray Jobs API that the engine needs, with our errors."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: _Client | None = None

    def info(self, submission_id: str) -> JobDetails | None:
        """None: the cluster knows no such job."""
        try:
            info: JobDetails = self._asked("get_job_info", submission_id)
            return info
        except _NotFound:
            return None

    def submit(self, submission_id: str, entrypoint: str, folder: Path | None = None) -> None:
        """Submit a job, with a folder that Ray brings to the head and begins it in."""
        runtime: dict[str, Any] = {"env_vars": STOP_VARIABLES}
        if folder is not None:
            runtime["working_dir"] = str(folder)
        options = {"entrypoint": entrypoint, "submission_id": submission_id, "runtime_env": runtime}
        self._asked("submit_job", **options)

    def stop(self, submission_id: str) -> None:
        self._asked("stop_job", submission_id)

    def logs(self, submission_id: str) -> str:
        return str(self._asked("get_job_logs", submission_id))

    def _asked(self, call: str, *values: str, **options: Any) -> Any:
        """
        Raises:
            _NotFound: status 404. RayUnreachable: all else.
        """
        try:
            if self._client is None:
                self._client = _Client(self._address)
            return getattr(self._client, call)(*values, **options)
        except AuthenticationError as error:
            remedy = "start the server with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
            raise RayUnreachable("Ray refuses the token", remedy=remedy) from error
        except OSError as error:
            problem = f"the head of Ray at {self._address} does not answer; jobs there are followed when it does"
            raise RayUnreachable(problem) from error
        except RuntimeError as error:
            if "status code 404" in str(error):
                raise _NotFound("Ray knows no such job") from error
            status = str(error).partition(":")[0]
            raise RayUnreachable(f"Ray at {self._address}: {status}") from error


class _NotFound(TransientError):
    """The cluster has no job of this submission id. Between two calls it may have lost it; the next look finds that out."""


class RayEngine:
    """One of several servers over one state folder follows a job at a time: the holder of its lock."""

    poll_s = 1.0

    def __init__(self, store: JobStore, corpus: Path, spec: Path | None, address: str) -> None:
        self._store, self._corpus, self._spec = store, corpus, spec
        self._ray, self.ray_address = RayJobs(address), address
        self._owner = JobOwner(
            spec="" if spec is None else str(spec.resolve()), ray_address=address
        )
        self._secrets = secrets_of(dict(os.environ))
        # submission id -> characters of its log at the last look, and when the next one is due
        self._looks: dict[str, tuple[int, float]] = {}

    def follow(self) -> None:
        self._store.recover(time.time())
        for active in self._store.active():
            if not active.belongs_to(self._owner):
                continue
            with self._store.holding(active.id) as lock:
                job = None if lock is None else self._store.job(active.id)
                if job is not None and job.submission_id:
                    self._follow(job, job.submission_id)

    def start(self, job: Job) -> None:
        with self._store.holding(job.id) as lock:
            if lock is None:
                return
            log = self._store.log_of(job.id)
            log_start = log.stat().st_size if log.exists() else 0
            new = f"eicorpus-{uuid.uuid4().hex}"
            self._store.claim(job.id, time.time(), submission_id=new, log_start=log_start)

    def _follow(self, job: Job, submission_id: str) -> None:
        try:
            info = self._ray.info(submission_id)
            if info is None:
                self._without_info(job, submission_id)
                return
            if not job.is_submitted:
                self._store.mark_submitted(job.id)
            if job.state == "cancelling" and not info.status.is_terminal():
                self._ray.stop(submission_id)
            if not info.status.is_terminal() and not self._is_due(submission_id):
                return
            text = self._ray.logs(submission_id)
        except RayUnreachable as error:
            if job.problem != str(error):
                self._store.note(job.id, str(error))
            raise
        if job.problem:
            self._store.note(job.id, "")
        problem, result = self._keep_log(job, submission_id, text, info.status.is_terminal())
        if info.status.is_terminal():
            self._end(job, info, result, problem)

    def _is_due(self, submission_id: str) -> bool:
        """Ray sends a log as a whole, so a long one is looked at less often."""
        return time.monotonic() >= self._looks.get(submission_id, (0, 0.0))[1]

    def _without_info(self, job: Job, submission_id: str) -> None:
        """It was never submitted, or the head that knew it was lost with all that it knew."""
        if job.is_submitted or job.state == "cancelling":
            self._store.lost(job.id, time.time(), "Ray lost the job")
            return
        try:
            request = request_of(job, self._store.folder.parent.resolve(), self._spec)
            words = [*RUNNER, *request.words(self._corpus, self._spec), "--json"]
        except (ConfigError, ValueError) as error:  # of a server with another spec, or an older one
            problem = f"the job cannot be begun: {error}"
            self._store.finish(job.id, state="failed", now_s=time.time(), problem=problem)
            return
        entrypoint = f"exec {shlex.join(words)} < "
        if standard_input := request.standard_input():
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "input").write_bytes(standard_input)
                self._ray.submit(submission_id, f"{entrypoint}input", Path(folder))
        else:
            self._ray.submit(submission_id, f"{entrypoint}/dev/null")
        self._store.mark_submitted(job.id)

    def _end(self, job: Job, info: JobDetails, result: str, problem: str) -> None:
        exit_code = STOPPED if info.status == JobStatus.STOPPED else info.driver_exit_code
        if exit_code is None:  # its node died, or it never began
            reason = redacted(printable(info.message or ""), self._secrets)[:MAX_MESSAGE]
            problem = "Ray ended the job without an exit code"
            self._store.lost(job.id, time.time(), f"{problem}: {reason}" if reason else problem)
            return
        finish(self._store, job.id, exit_code, result, problem)

    def _keep_log(self, job: Job, submission_id: str, text: str, is_whole: bool) -> tuple[str, str]:
        """Append what is new of the log. Its shown lines follow from Ray's alone, so that the size of ours says how far it is.

        Returns:
            Why the log is incomplete, and the object that the command printed.
        """
        num_read, _ = self._looks.get(submission_id, (-1, 0.0))
        due_s = time.monotonic() + LOOK_S_PER_MIB * len(text) / (1 << 20)
        self._looks[submission_id] = len(text), due_s
        if not is_whole and num_read == len(text):
            return "", ""
        lines = text[: None if is_whole else text.rfind("\n") + 1].splitlines()
        result = next((line for line in reversed(lines) if _is_result(line)), "")
        shown = _bounded([line for line in lines if line != result], self._secrets, job.log_start)
        log, problem = self._store.log_of(job.id), ""
        try:
            with log.open("ab", buffering=0) as file:
                rest = shown[file.tell() - job.log_start :]
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as error:
            problem = f"the log is incomplete: {system_error_text(error)}"
        return problem, redacted(result, self._secrets)


def _bounded(lines: Sequence[str], secrets: Sequence[str], start: int) -> bytes:
    shown = b"".join(shown_line(line.encode(), secrets) for line in lines)
    room = max(MAX_LOG_BYTES - start, 0)
    return shown if len(shown) <= room else shown[: shown.rfind(b"\n", 0, room) + 1] + FULL_LOG


def _is_result(line: str) -> bool:
    """Whether it is the envelope of `--json`; Ray puts both streams of a command into one log."""
    if not line.startswith("{") or len(line) > MAX_RESULT_BYTES:
        return False
    try:
        value = parse_json(line)
    except ValueError:
        return False
    return isinstance(value, dict) and value.keys() >= {
        "command",
        "version",
        "ok",
        "result",
        "error",
    }
