"""`python -m jobs.service.job_process STATE CORPUS ID [SPEC]`: one job in a session of its own, which outlives the server.

It runs the command as a child, keeps its log, stops it when the job is cancelled, and stores the result.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from jobs.service.job_kinds import JobRequest
from jobs.service.job_store import Job, JobStore
from jobs.service.saved_policies import folder_of, with_file
from jobs.ui.tables import printable
from schemas.errors import TransientError, system_error_text
from schemas.json_text import parse_json

MAX_LOG_BYTES = 8 << 20
MAX_RESULT_BYTES = 4 << 20
MAX_LINE = 16 << 10
STOP_S = 60.0  # an orderly stop writes what is done; then the process is killed
DRAIN_S = 10.0  # a command that was killed may leave workers that write
POLL_S = 0.2
FINISH_TRIES, FINISH_PAUSE_S = 720, 5.0  # an hour
FULL_LOG = b"the log is full; later lines are dropped\n"
_HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|_KEY|CREDENTIALS?)$")
_SECRETS = re.compile(r"(?i)(bearer\s+)[^\s\"'\\]+|(://)[^/\s@\"'\\]+@")
MIN_SECRET = 8


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
        assert child.stdout is not None
        assert child.stderr is not None
        secrets = secrets_of(environment)
        output, log = _Output(child.stdout), _Log(store.log_of(job_id), secrets)
        threads = [
            threading.Thread(target=output.read, daemon=True),
            threading.Thread(target=log.read, args=(child.stderr,), daemon=True),
        ]
        for thread in threads:
            thread.start()
        _wait(store, job_id, child)
        _drain(threads, child.pid)
        if not any(thread.is_alive() for thread in threads):
            child.stdout.close()
            child.stderr.close()
        _finish(store, job_id, child.returncode, redacted(output.text(), secrets), log.problem)


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


def _drain(threads: Sequence[threading.Thread], group: int) -> None:
    """To the end of the pipes of a command that has ended. A process of its own that keeps them open is killed after `DRAIN_S`."""
    until_s = time.monotonic() + DRAIN_S
    for thread in threads:
        thread.join(max(until_s - time.monotonic(), 0.0))
    if any(thread.is_alive() for thread in threads):
        with suppress(ProcessLookupError):  # it has a session of its own: its lines are lost
            os.killpg(group, signal.SIGKILL)
        for thread in threads:
            thread.join(DRAIN_S)


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
        problem = "" if exit_code == 0 else f"the command ended with {exit_code} and no result"
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


class _Output:
    """Standard output up to a limit; the rest is read and dropped, so that the child does not wait."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._parts, self._size = pipe, list[bytes](), 0

    def read(self) -> None:
        while block := self._pipe.read(64 << 10):
            self._size += len(block)
            if self._size <= MAX_RESULT_BYTES:
                self._parts.append(block)

    def text(self) -> str:
        return b"".join(self._parts).decode(errors="replace")


class _Log:
    """Lines without secrets and without characters that command a terminal, up to the limit of the file."""

    def __init__(self, path: Path, secrets: Sequence[str]) -> None:
        self._file, self._secrets = path, secrets
        self.problem = ""  # why the log lacks lines

    def read(self, pipe: IO[bytes]) -> None:
        """To the end of the pipe, also where nothing can be written any more: else the command would wait, and hold the corpus."""
        lines = self._lines(pipe)
        try:
            with self._file.open("ab") as file:
                for line in lines:
                    if file.tell() + len(line) > MAX_LOG_BYTES:
                        file.write(FULL_LOG)
                        break
                    file.write(line)
                    file.flush()
        except OSError as error:
            self.problem = f"the log lacks lines: {system_error_text(error)}"
        for _ in lines:
            pass

    def _lines(self, pipe: IO[bytes]) -> Iterator[bytes]:
        while line := pipe.readline(MAX_LINE):
            yield shown_line(line, self._secrets)


def shown_line(line: bytes, secrets: Sequence[str]) -> bytes:
    text = printable(line.decode(errors="replace").rstrip("\r\n"))
    return f"{redacted(text, secrets)}\n".encode()


def secrets_of(environment: dict[str, str]) -> list[str]:
    """Values of variables whose names mean a secret, longest first."""
    values = {
        value
        for name, value in environment.items()
        if _SECRET_NAME.search(name.upper()) and len(value) >= MIN_SECRET
    }
    return sorted(values, key=len, reverse=True)


def redacted(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    return _SECRETS.sub(lambda hit: f"{hit[1] or hit[2]}{_HIDDEN}{'@' if hit[2] else ''}", text)


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
    words = [sys.executable, "-m", "jobs", *request.words(corpus, spec), "--json"]
    run_job(store, job_id, words, dict(os.environ), request.standard_input())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *map(Path, sys.argv[4:]))
