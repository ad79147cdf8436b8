"""What the command of a job writes: its log, and the JSON object that it prints, both bounded and without secrets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from jobs.ui.tables import printable
from schemas.errors import system_error_text

MAX_LOG_BYTES = 8 << 20
MAX_RESULT_BYTES = 4 << 20
MAX_LINE = 16 << 10
DRAIN_S = 10.0  # a command that was killed may leave workers that write
FULL_LOG = b"the log is full; later lines are dropped\n"
_HIDDEN = "[hidden]"
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|_KEY|CREDENTIALS?)$")
_SECRETS = re.compile(r"(?i)(bearer\s+)[^\s\"'\\]+|(://)[^/\s@\"'\\]+@")
MIN_SECRET = 8


class CommandPipes:
    """Both streams of a command, each read by a thread. Standard error is the log: a file, or a descriptor of this process."""

    def __init__(
        self, child: subprocess.Popen[bytes], log: Path | int, secrets: Sequence[str]
    ) -> None:
        assert child.stdout is not None
        assert child.stderr is not None
        self._pipes, self._secrets = (child.stdout, child.stderr), secrets
        self._output, self._log = _Output(child.stdout), _Log(log, secrets)
        self._threads = [
            threading.Thread(target=self._output.read, daemon=True),
            threading.Thread(target=self._log.read, args=(child.stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def end(self, group: int | None = None) -> tuple[str, str]:
        """After the command has ended: what it printed, and why its log lacks lines.

        Args:
            group: of processes, which are killed where they keep the pipes open for more than `DRAIN_S`.
        """
        self._join()
        if self._is_reading and group is not None:
            with suppress(
                ProcessLookupError
            ):  # the process has a session of its own: its lines are lost
                os.killpg(group, signal.SIGKILL)
            self._join()
        if not self._is_reading:
            for pipe in self._pipes:
                pipe.close()
        return redacted(self._output.text(), self._secrets), self._log.problem

    @property
    def _is_reading(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _join(self) -> None:
        until_s = time.monotonic() + DRAIN_S
        for thread in self._threads:
            thread.join(max(until_s - time.monotonic(), 0.0))


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

    def __init__(self, file: Path | int, secrets: Sequence[str]) -> None:
        self._file, self._secrets = file, secrets
        self.problem = ""  # why the log lacks lines

    def read(self, pipe: IO[bytes]) -> None:
        """To the end of the pipe, also where nothing can be written any more: else the command would wait, and hold the corpus."""
        lines = self._lines(pipe)
        try:
            with self._opened() as file:
                size = os.fstat(file.fileno()).st_size
                for line in lines:
                    size += len(line)
                    if size > MAX_LOG_BYTES:
                        file.write(FULL_LOG)
                        break
                    file.write(line)
                    file.flush()
        except OSError as error:
            self.problem = f"the log lacks lines: {system_error_text(error)}"
        for _ in lines:
            pass

    def _opened(self) -> IO[bytes]:
        if isinstance(self._file, Path):
            return self._file.open("ab")
        return os.fdopen(self._file, "ab", closefd=False)

    def _lines(self, pipe: IO[bytes]) -> Iterator[bytes]:
        while line := pipe.readline(MAX_LINE):
            yield shown_line(line, self._secrets)


def shown_line(line: bytes, secrets: Sequence[str]) -> bytes:
    text = printable(line.decode(errors="replace").rstrip("\r\n"))
    return f"{redacted(text, secrets)}\n".encode()


def secrets_of(environment: Mapping[str, str]) -> list[str]:
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
