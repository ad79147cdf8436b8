"""Several jobs that ingest into one corpus in a bucket, one of them killed every few seconds: `python -m tests.faults.several_writers`.

The bucket is moto's S3 on loopback, behind a proxy that loses a share of the answers to conditional writes. Each job is the real command in a
process of its own, with a cache of its own, as on a machine of its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from ingest.verify.digest import digest
from tests.s3_server import BUCKET, environment, running_s3_server

ADAPTER = "benchmarks.overhead:Tiny"
KILLED = -signal.SIGKILL


@dataclass(frozen=True, kw_only=True)
class Round:
    """What came of one round. `problem`: "" where nothing was lost and nothing is there twice."""

    problem: str
    seconds: float
    kills: int
    lost_answers: int
    lanes: int
    commits: int


class _Proxy(BaseHTTPRequestHandler):
    """Forwards a request, and may close the connection instead of answering."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    loses = 0.0
    random = Random(0)
    lost = 0

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        to = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=60)
        connection.request(self.command, self.path, body=body, headers=dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        is_conditional = self.command == "PUT" and "If-None-Match" in self.headers
        if is_conditional and self.random.random() < self.loses:
            type(self).lost += 1
            self.close_connection = True
            self.connection.close()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: object) -> None:
        """Not a line a request."""


@contextmanager
def proxy(upstream: str, loses: float, seed: int) -> Iterator[tuple[str, type[_Proxy]]]:
    """The endpoint of a proxy in front of a server, and its counters."""
    handler = type(
        "Proxy",
        (_Proxy,),
        {"upstream": upstream, "loses": loses, "random": Random(seed), "lost": 0},
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        server.server_close()


def _job(raw: Path, uri: str, home: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "jobs", "ingest", ADAPTER, str(raw), "--out", uri]
    with (home / "log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--workers", "0", "--json"],
            env={**os.environ, **variables, "EICORPUS_CACHE": str(home)},
            stdout=log,
            stderr=log,
        )


def play(
    *, jobs: int, episodes: int, kill_every_s: float, loses: float, seed: int, limit_s: float = 900
) -> Round:
    """One round. A job that ends before it is done is started again, as a batch system would."""
    random, began_s, kills = Random(seed), time.monotonic(), 0
    with (
        tempfile.TemporaryDirectory() as folder,
        running_s3_server() as endpoint,
        proxy(endpoint, loses, seed) as (front, handler),
    ):
        root = Path(folder)
        raw = root / "raw"
        raw.mkdir()
        (raw / "count").write_text(str(episodes))
        uri = f"s3://{BUCKET}/corpus"
        homes = [root / f"job-{number}" for number in range(jobs)]
        for home in homes:
            home.mkdir()
        running = {home: _job(raw, uri, home, environment(front)) for home in homes}
        next_kill_s = began_s + kill_every_s
        problem = ""
        while running and not problem:
            time.sleep(0.1)
            for home, process in list(running.items()):
                code = process.poll()
                if code == 0:
                    del running[home]
                elif code in (KILLED, 1):
                    running[home] = _job(raw, uri, home, environment(front))
                elif code is not None:
                    problem = f"a job ended with {code}: {(home / 'log').read_text()[-2000:]}"
            now_s = time.monotonic()
            if running and now_s >= next_kill_s:
                random.choice(list(running.values())).kill()
                kills, next_kill_s = kills + 1, now_s + kill_every_s
            if now_s - began_s > limit_s:
                problem = f"not ended after {limit_s:g} s"
        for process in running.values():
            process.kill()
            process.wait()
        found, lanes, commits = judged(root, uri, endpoint, episodes)
        return Round(
            problem=problem or found,
            seconds=time.monotonic() - began_s,
            kills=kills,
            lost_answers=handler.lost,
            lanes=lanes,
            commits=commits,
        )


def judged(root: Path, uri: str, endpoint: str, episodes: int) -> tuple[str, int, int]:
    """What is wrong with the corpus, its lanes and its commits: by the commands, from one more machine, and by a local run."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *words],
            env={**os.environ, **environment(endpoint), "EICORPUS_CACHE": str(root / "judge")},
            capture_output=True,
            text=True,
            check=False,
        )

    sql = "select count(*) as n, count(distinct uid) as uids, count(distinct dataset_path) as lanes from episodes"
    asked = run("query", uri, sql, "--json")
    if asked.returncode:
        return f"query: {asked.stderr[-500:]}", 0, 0
    answer = json.loads(asked.stdout)["result"]
    row = (
        dict(zip(answer["columns"], answer["rows"][0], strict=True))
        if "columns" in answer
        else answer["rows"][0]
    )
    if (row["n"], row["uids"]) != (episodes, episodes):
        return f"{row['n']} episodes, {row['uids']} uids; expected {episodes}", row["lanes"], 0
    verified = run("verify", uri)
    if verified.returncode:
        return f"verify: {verified.stdout[-800:]}", row["lanes"], 0
    local = root / "local"
    run("ingest", ADAPTER, str(root / "raw"), "--out", str(local), "--workers", "0")
    (copy,) = (root / "judge" / "corpora").iterdir()
    commits = max(int(path.stem) for path in (copy / "catalog/_snapshots").glob("*.json"))
    ours, theirs = digest(copy).sha256, digest(local).sha256
    return ("" if ours == theirs else "another digest than a local run"), row["lanes"], commits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--kill-every-s", type=float, default=5.0)
    parser.add_argument("--loses", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    broken = 0
    for number in range(asked.rounds):
        done = play(
            jobs=asked.jobs,
            episodes=asked.episodes,
            kill_every_s=asked.kill_every_s,
            loses=asked.loses,
            seed=asked.seed + number,
        )
        broken += bool(done.problem)
        sys.stdout.write(f"{number}: {done}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{asked.rounds} rounds, {broken} broken\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
