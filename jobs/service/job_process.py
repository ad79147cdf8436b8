"""`python -m jobs.service.job_process STATE CORPUS ID [SPEC]`: one job in a session of its own, which outlives the server.

It runs the command as a child, keeps its log, stops it when the job is cancelled, and stores the result.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from jobs.service.job_kinds import JobRequest
from jobs.service.job_output import CommandPipes, secrets_of
from jobs.service.job_store import Job, JobStore
from jobs.service.saved_policies import folder_of, with_file
from jobs.ui.tables import printable
from schemas.errors import ConfigError, TransientError
from schemas.json_text import parse_json

STOP_S = 60.0  # an orderly stop writes what is done; then the process is killed
POLL_S = 0.2
FINISH_TRIES, FINISH_PAUSE_S = 720, 5.0  # an hour


def run_job(
    store: JobStore,
    job_id: int,
    words: Sequence[str],
    environment: dict[str, str],
    standard_input: bytes = b"",
) -> None:
    """Run the words as the job, if it waits and nothing else runs."""
    with store.holding(job_id) as lock:
        if lock is None or not store.claim(job_id, time.time()):
            return
        with tempfile.TemporaryFile() as input_file:
            input_file.write(standard_input)
            input_file.seek(0)
            child = subprocess.Popen(
                words,
                stdin=input_file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                # if this process is killed, the job counts as running until its child ends
                pass_fds=[lock],
                start_new_session=True,
            )
        pipes = CommandPipes(child, store.log_of(job_id), secrets_of(environment))
        _wait(store, job_id, child)
        output, log_problem = pipes.end(child.pid)
        _finish(store, job_id, child.returncode, output, log_problem)


def _wait(store: JobStore, job_id: int, child: subprocess.Popen[bytes]) -> None:
    """Until the child ends. A cancelled one gets what Ctrl-C sends, and is killed with its processes after `STOP_S`."""
    stop_until_s: float | None = None
    while True:
        try:
            child.wait(POLL_S)
            return
        except subprocess.TimeoutExpired:
            if stop_until_s is None and _is_cancelling(store, job_id):
                child.send_signal(signal.SIGINT)
                stop_until_s = time.monotonic() + STOP_S
            elif stop_until_s is not None and time.monotonic() > stop_until_s:
                os.killpg(child.pid, signal.SIGKILL)


def _is_cancelling(store: JobStore, job_id: int) -> bool:
    try:
        return store.is_cancelling(job_id)
    except TransientError:  # the job goes on; the next look may tell
        return False


def _finish(store: JobStore, job_id: int, exit_code: int, output: str, log_problem: str) -> None:
    """Store how a job ended. On a full disk it waits for room: without its end, the job would run again."""
    for is_last in (*[False] * FINISH_TRIES, True):
        try:
            finish(store, job_id, exit_code, output, log_problem)
            return
        except TransientError:
            if is_last:
                raise
            time.sleep(FINISH_PAUSE_S)


def finish(store: JobStore, job_id: int, exit_code: int, output: str, log_problem: str) -> None:
    """Store how a job ended.

    Args:
        output: what its command wrote to standard output. log_problem: why its log lacks lines.

    Raises:
        TransientError: the queue cannot be written.
    """
    result, problem = None, ""
    try:
        answer = parse_json(output)
        result = json.dumps(answer)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            problem = str(answer["error"].get("message", ""))
    except ValueError:
        problem = "" if exit_code == 0 else _without_result(exit_code)
    if store.is_cancelling(job_id) and exit_code != 0:
        state = "cancelled"
    else:
        state = {0: "succeeded", 130: "interrupted"}.get(exit_code, "failed")
    store.finish(
        job_id,
        state=state,
        now_s=time.time(),
        exit_code=exit_code,
        result=result,
        problem="; ".join(filter(None, (printable(problem), log_problem))),
    )


def _without_result(exit_code: int) -> str:
    """What is known of a command that printed nothing. Killed ones have -N here, and 128 + N on Ray."""
    if exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        how = "was killed (SIGKILL), by hand or for want of memory"
    else:
        how = f"ended with {exit_code} and no result"
    return f"the command {how}; committed data is safe: run the job again to resume"


def request_of(job: Job, state: Path, spec: Path | None) -> JobRequest:
    """What a job asks for; a saved policy is its file by then."""
    request: JobRequest = TypeAdapter(JobRequest).validate_python(parse_json(job.request))
    return with_file(request, folder_of(state, spec))


def main(state: Path, corpus: Path, job_id: int, spec: Path | None = None) -> None:
    store = JobStore(state)
    job = store.job(job_id)
    if job is None:
        return
    request = request_of(job, state, spec)
    try:
        arguments = request.words(corpus, spec)
    except ConfigError as error:  # a spec that was edited since
        problem = f"the job cannot be begun: {error}"
        store.finish(job_id, state="failed", now_s=time.time(), problem=problem)
        return
    words = [sys.executable, "-m", "jobs", *arguments, "--json"]
    run_job(store, job_id, words, dict(os.environ), request.standard_input())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
