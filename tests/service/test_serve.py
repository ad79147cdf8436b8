"""`eicorpus serve` as a process: it prints a link, answers over a socket, and ends in order."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.commands.serve import command
from schemas.errors import ConfigError
from tests.curation.lifecycle_corpus import uids
from tests.generators.corpus import WrittenCatalog

DEADLINE_S = 120


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    lines: list[str]
    port: int
    code: str
    token: str

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """The path exactly as it is given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            connection.putrequest("GET", path, skip_host=False)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, path: str) -> tuple[int, bytes]:
        return self.get(path, Authorization=f"Bearer {self.token}")

    def wait_until_ready(self) -> None:
        while self.ask("/readyz")[0] != 200:
            assert self.process.poll() is None


@contextmanager
def serving(corpus: Path, state: Path, *options: str) -> Iterator[Server]:
    words = ["serve", str(corpus), "--port", "0", "--state", str(state), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        lines = [process.stderr.readline(), process.stderr.readline()]
        opened = re.search(r":(\d+)/login\?code=(\S+)", lines[0])
        assert opened, lines
        token_file = next(state.resolve().glob("*/token"))
        yield Server(process, lines, int(opened[1]), opened[2], token_file.read_text().strip())
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=DEADLINE_S)


@pytest.mark.slow
def test_a_server_from_its_start_to_its_end(toy: Path, tmp_path: Path) -> None:
    with serving(toy, tmp_path / "state") as server:
        assert server.get("/healthz")[0] == 200
        assert server.get("/api/v1/corpora")[0] == 401
        server.wait_until_ready()
        assert server.get(f"/login?code={server.code}")[0] == 303
        assert server.get(f"/login?code={server.code}")[0] == 401
        uid = uids(toy)["a"]
        status, video = server.ask(f"/api/v1/episodes/{uid}/videos/front")
        assert (status, video[4:8]) == (200, b"ftyp")
        for path in (
            f"/api/v1/episodes/{uid}/videos/..",
            f"/api/v1/episodes/{uid}/videos/../../../../corpus.json",
            f"/api/v1/episodes/{uid}/videos/front/../front",
            "/api/v1/../../corpus.json",
            "/../../../../etc/passwd",
            "//etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/api/v1/episodes/..%2f..%2fcorpus.json",
        ):
            status, body = server.ask(path)
            assert status == 404, path
            assert b"format_version" not in body
            assert b"root:" not in body
        server.process.send_signal(signal.SIGTERM)
        _, rest = server.process.communicate(timeout=DEADLINE_S)
    assert server.process.returncode == 0
    assert "stopped" in rest
    printed = "".join(server.lines) + rest
    assert server.token not in printed
    assert printed.count(server.code) == 1
    assert "Traceback" not in printed


@pytest.mark.slow
def test_two_servers_and_a_killed_one(hard: WrittenCatalog, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with serving(hard.root, state) as first:
        first.process.kill()  # while it builds
    with serving(hard.root, state) as one, serving(hard.root, state) as other:
        for server in (one, other):
            server.wait_until_ready()
            assert server.ask("/api/v1/episodes?limit=1")[0] == 200
        assert one.port != other.port


def call(corpus: Path, **options: object) -> None:
    run: Callable[..., None] = command
    run(corpus, **options)


def test_another_address_needs_a_token_file(hard: WrittenCatalog, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="other machines can reach this address"):
        call(hard.root, host="0.0.0.0", state=tmp_path)


def test_a_port_that_is_taken(hard: WrittenCatalog, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="in use"):
            call(
                hard.root,
                host="127.0.0.1",
                port=port,
                token_file=None,
                allow_host=None,
                state=tmp_path,
            )


def test_what_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a corpus"):
        call(tmp_path, state=tmp_path)
