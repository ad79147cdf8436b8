"""Several jobs that ingest into one corpus in a bucket, one of them killed every few seconds: `python -m tests.faults.several_writers`.

The bucket is moto's S3 on loopback, behind a proxy that loses answers and requests and sends creates late. Each job is the real command in
a process of its own (forked from one that has imported it), with a cache of its own, as on a machine of its own. A job is suspended at
times, and `gc --older-than 0` seals the lanes of those that have not committed lately.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import ClassVar
from urllib.parse import urlsplit

from adapters.base import SourceInfo
from benchmarks.overhead import Tiny
from ingest.corpus import snapshot
from ingest.verify.digest import digest
from schemas.episode import EpisodeRef
from tests.faults.zygote import Zygote
from tests.s3_server import BUCKET, environment, running_s3_server

ADAPTER = "tests.faults.several_writers:Window"
BATCH = {
    "ingest.pipeline.run:BATCH_EPISODES": 20
}  # several commits of each job, however fast it is
KILLED = -signal.SIGKILL
LATE_S = 4.0  # at most, of a create that arrives after its connection is closed


class Window(Tiny):
    """Tiny episodes from `first` on: raw folders of two jobs may have some in common."""

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        first, count = map(int, (root / "window").read_text().split())
        for index in range(first, first + count):
            yield EpisodeRef(
                source="tiny", dataset="tiny", episode_id=f"{index:07d}", root=str(root)
            )


@dataclass(frozen=True, kw_only=True)
class Round:
    """What came of one round. `problem`: "" where nothing was lost and nothing is there twice."""

    problem: str
    seconds: float
    kills: int
    pauses: int
    sweeps: int
    starts: int
    faults: Mapping[str, int]
    lanes: int
    commits: int


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Shares of requests. create: of creates, whose answer is lost. late: of creates that are carried out later. other: of all others, lost
    before or after they are carried out."""

    create: float = 0.3
    late: float = 0.03
    other: float = 0.03


class _Proxy(BaseHTTPRequestHandler):
    """Forwards a request, and may close the connection instead of answering."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    losses = Losses()
    random = Random(0)
    counts: ClassVar[Counter[str]]
    late: ClassVar[list[threading.Timer]]

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        self.counts["requests"] += 1
        is_create = self.command == "PUT" and "If-None-Match" in self.headers
        chance = self.random.random()
        if is_create and chance < self.losses.late:
            later = threading.Timer(self.random.uniform(0, LATE_S), partial(self._send, body))
            self.late.append(later)
            later.start()
            self._lose("late create")
            return
        is_lost = not is_create and chance < self.losses.other
        if is_lost and chance < self.losses.other / 2:
            self._lose(f"request {self.command}")
            return
        status, reason, headers, data = self._send(body)
        if is_lost or (is_create and chance > 1 - self.losses.create):
            self._lose("answer to a create" if is_create else f"answer to {self.command}")
            return
        self.send_response_only(status, reason)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = dict(headers).get("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _lose(self, what: str) -> None:
        self.counts[what] += 1
        self.close_connection = True
        self.connection.close()

    def _send(self, body: bytes | None) -> tuple[int, str, list[tuple[str, str]], bytes]:
        to = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=60)
        connection.request(self.command, self.path, body=body, headers=dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.reason, answer.getheaders(), data

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: object) -> None:
        """Not a line a request."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed: not a traceback a request."""


@contextmanager
def proxy(upstream: str, losses: Losses, seed: int) -> Iterator[tuple[str, Counter[str]]]:
    """The endpoint of a proxy in front of a server, and its counters. At the end everything late has been carried out."""
    handler: type[_Proxy] = type(
        "Proxy",
        (_Proxy,),
        {
            "upstream": upstream,
            "losses": losses,
            "random": Random(seed),
            "counts": Counter(),
            "late": [],
        },
    )
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.counts
    finally:
        server.shutdown()
        server.server_close()
        for each in handler.late:
            each.join()


class Job:
    """A command that is started again until it ends well, as a batch system would."""

    def __init__(self, number: int, scratch: Path) -> None:
        folder = scratch / f"job-{number}"
        folder.mkdir()
        self.number, self.folder = number, folder
        self.zygote = Zygote(folder, ["ingest", "gc", "pull", "verify"])
        self.child = self.starts = 0
        self.problem = ""
        self.thread = threading.Thread()

    def begin(self, argv: list[str], env: Mapping[str, str]) -> None:
        self.problem, self.starts = "", 0
        self.thread = threading.Thread(target=self._run, args=(argv, env), daemon=True)
        self.thread.start()

    def _run(self, argv: list[str], env: Mapping[str, str]) -> None:
        code = 1
        while code in (KILLED, 1):
            self.starts += 1
            self.child = self.zygote.start(argv, env=env, constants=BATCH)
            code = self.zygote.wait()
            self.child = 0
        if code:
            self.problem = f"a job ended with {code}: {self.zygote.log.read_text()[-2000:]}"

    def signal(self, number: signal.Signals) -> bool:
        """Whether there was a process to send it to."""
        with suppress(ProcessLookupError):
            if child := self.child:
                os.kill(child, number)
                return True
        return False


class Rounds:
    """Rounds that share a server and processes which have imported everything."""

    def __init__(self, jobs: int, scratch: Path, endpoint: str) -> None:
        self.scratch, self.endpoint = scratch, endpoint
        self.jobs = [Job(number, scratch) for number in range(jobs)]
        self.judge = Job(jobs, scratch)
        self.num_rounds = 0
        self._expected: dict[int, str] = {}

    def close(self) -> None:
        for job in (*self.jobs, self.judge):
            job.zygote.close()

    def play(
        self, *, episodes: int, kill_every_s: float, losses: Losses, seed: int, limit_s: float
    ) -> Round:
        random, began_s = Random(seed), time.monotonic()
        self.num_rounds += 1
        root = self.scratch / f"round-{self.num_rounds}"
        raws = self._raws(episodes)
        uri = f"s3://{BUCKET}/corpus-{self.num_rounds}"
        done: Counter[str] = Counter()
        with proxy(self.endpoint, losses, seed) as (front, counts):
            for job, raw in zip(self.jobs, raws, strict=True):
                words = ["ingest", ADAPTER, str(raw), "--out", uri, "--workers", "0", "--moved"]
                job.begin(words, _env(front, root / str(job.number)))
            problem = self._disturbed(uri, random, kill_every_s, began_s + limit_s, done)
        found, lanes, commits = problem, 0, 0
        if not problem:
            found, lanes, commits = self._judged(root, raws, uri, episodes)
        return Round(
            problem=found,
            seconds=round(time.monotonic() - began_s, 1),
            kills=done["kills"],
            pauses=done["pauses"],
            sweeps=done["sweeps"],
            starts=sum(job.starts for job in self.jobs),
            faults=dict(counts),
            lanes=lanes,
            commits=commits,
        )

    def _disturbed(
        self,
        uri: str,
        random: Random,
        kill_every_s: float,
        until_s: float,
        done: Counter[str],
    ) -> str:
        """Kill, suspend and sweep until all jobs have ended. What went wrong."""
        next_s = time.monotonic() + kill_every_s
        paused: list[tuple[float, Job]] = []
        while any(job.thread.is_alive() for job in self.jobs):
            time.sleep(0.05)
            now_s = time.monotonic()
            for at_s, job in list(paused):
                if now_s >= at_s:
                    job.signal(signal.SIGCONT)
                    paused.remove((at_s, job))
            if now_s > until_s:
                for job in self.jobs:
                    job.signal(signal.SIGKILL)
                return "not ended in time"
            if now_s < next_s:
                continue
            next_s = now_s + kill_every_s
            job = random.choice(self.jobs)
            if random.random() < 0.3:  # it comes back after its lane was sealed
                if job.signal(signal.SIGSTOP):
                    done["pauses"] += 1
                    paused.append((now_s + kill_every_s, job))
                    done["sweeps"] += not self._run("gc", uri, "--older-than", "0")
            else:
                done["kills"] += job.signal(signal.SIGKILL)
        return next((job.problem for job in self.jobs if job.problem), "")

    def _run(self, *words: str, home: Path | None = None) -> str:
        """One command that nothing disturbs: why it failed."""
        env = _env(self.endpoint, home or self.judge.folder)
        code = self.judge.zygote.run(words, env=env)
        return f"{words[0]}: {code}, {self.judge.zygote.log.read_text()[-800:]}" if code else ""

    def _raws(self, episodes: int) -> list[Path]:
        """Raw data of each job. Half of the episodes of one are those of the next, too."""
        raws = [self.scratch / f"raw-{episodes}-{job.number}" for job in self.jobs]
        for number, raw in enumerate(raws):
            raw.mkdir(exist_ok=True)
            (raw / "window").write_text(f"{number * episodes // 2} {episodes}")
        return raws

    def _judged(
        self, root: Path, raws: list[Path], uri: str, episodes: int
    ) -> tuple[str, int, int]:
        """What is wrong with the corpus, its lanes and its commits: by the commands, from one more machine, and by a local run."""
        home, copy = root / "judge", root / "pulled"
        for words in (("verify", uri), ("pull", uri, str(copy))):  # objects, then every byte
            if failure := self._run(*words, home=home):
                return failure, 0, 0
        current = snapshot.load(copy)
        rows = current.read(copy, "episodes", ["uid", "dataset_path"])
        uids, lanes = rows["uid"].to_pylist(), len(set(rows["dataset_path"].to_pylist()))
        expected = episodes * (len(raws) + 1) // 2
        if (len(uids), len(set(uids))) != (expected, expected):
            problem = f"{len(uids)} episodes, {len(set(uids))} uids; expected {expected}"
            return problem, lanes, current.number
        if episodes not in self._expected:
            local = self.scratch / f"local-{episodes}"
            for raw in raws:
                words = ("ingest", ADAPTER, str(raw), "--out", str(local), "--workers", "0")
                self._run(*words, "--moved")
            self._expected[episodes] = digest(local).sha256
        is_same = digest(copy).sha256 == self._expected[episodes]
        return "" if is_same else "another digest than a local run", lanes, current.number


def _env(endpoint: str, home: Path) -> dict[str, str]:
    return {**environment(endpoint), "EICORPUS_CACHE": str(home)}


@contextmanager
def playing(jobs: int) -> Iterator[Rounds]:
    with tempfile.TemporaryDirectory() as folder, running_s3_server() as endpoint:
        rounds = Rounds(jobs, Path(folder), endpoint)
        try:
            yield rounds
        finally:
            rounds.close()


def play(
    *,
    jobs: int,
    episodes: int,
    kill_every_s: float,
    losses: Losses,
    seed: int,
    limit_s: float = 900,
) -> Round:
    """One round."""
    with playing(jobs) as rounds:
        return rounds.play(
            episodes=episodes, kill_every_s=kill_every_s, losses=losses, seed=seed, limit_s=limit_s
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--kill-every-s", type=float, default=5.0)
    parser.add_argument("--loses", type=float, default=Losses.create, help="answers to creates")
    parser.add_argument("--loses-others", type=float, default=Losses.other)
    parser.add_argument("--late", type=float, default=Losses.late)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit-s", type=float, default=900.0)
    asked = parser.parse_args()
    losses = Losses(create=asked.loses, late=asked.late, other=asked.loses_others)
    broken = 0
    with playing(asked.jobs) as rounds:
        for number in range(asked.rounds):
            done = rounds.play(
                episodes=asked.episodes,
                kill_every_s=asked.kill_every_s,
                losses=losses,
                seed=asked.seed + number,
                limit_s=asked.limit_s,
            )
            broken += bool(done.problem)
            sys.stdout.write(f"{number}: {done}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{asked.rounds} rounds, {broken} broken\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
