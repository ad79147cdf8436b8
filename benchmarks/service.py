"""The service over a catalog of a million episodes: `python -m benchmarks.service [--episodes N] [--json]`.

Writes a synthetic catalog (seeded) with `--measurements` numbers an episode, two tiers, and a video of `--video-mb`; builds the cache; starts
`eicorpus serve` on it and asks over HTTP from this process, which shares the cores with the server. Every answer's status and body are
checked. First one client, then `--clients` that think `--think-s` between two requests for `--load-s` seconds, each with a query of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa

from benchmarks import result, tier
from benchmarks.manifest import tiers, whole_episodes
from benchmarks.own_process import in_own_process
from benchmarks.synthetic import publish, seconds
from ingest.corpus.layout import video_file
from ingest.corpus.snapshot import Part, write_tables
from ingest.storage.local import LocalStorage
from jobs.service.cache_build import MEASUREMENT, build_cache
from jobs.service.keeper import state_folder
from schemas.catalog import TABLES

SEED = 60_000
PART_EPISODES = 25_000
CAMERA = "front"
RANGE_BYTES = 256 << 10
API = "/api/v1"
WARM_S = 4.0  # of the load: all clients arrive at once
KEYS = {
    "episodes": "Episodes of the catalog.",
    "clients": "Clients of the load, each with a connection and a query of its own.",
    "generate_s": "Writing the synthetic catalog.",
    "cache_build_s": "Building the cache of the snapshot.",
    "cache_bytes": "Bytes of the cache.",
    "healthz_s": "From the start of the command to the first `/healthz`. Target: below 3.",
    "first_page_s": "From the start of the command to the first page, with a cache. Target: below 3.",
    "page_p50_ms": "A page of 100 rows, two filters, sorted by a measurement; one client.",
    "page_p95_ms": "The same. Target: below 50.",
    "facets_p50_ms": "Five facets under two filters.",
    "facets_p95_ms": "The same. Target: below 100.",
    "search_p50_ms": "A page of a search for three words.",
    "search_p95_ms": "The same. Target: below 100.",
    "detail_p50_ms": "One episode with its segments, captions and measurements.",
    "detail_p95_ms": "The same. Target: below 100.",
    "range_p50_ms": "256 KiB of a video.",
    "range_p95_ms": "The same. Target: below 20.",
    "load_requests_per_s": "Pages a second of all clients, each with 2 s between an answer and the next request.",
    "load_page_p50_ms": "A page under that load. An answer other than 200 would end the benchmark.",
    "load_page_p95_ms": "The same. Target: below 150.",
    "load_rss_mib": "Resident memory of the server under the load, mapped pages of the cache included.",
    "load_rss_spread_ratio": "Largest less least resident memory over the median. Target: ±5 %.",
    "load_anonymous_mib": "Memory of its own at the end.",
    "load_after": "Load of the machine at the end, the clients included.",
}
TIERS = ("high", "low", "actionless")
OPERATIONS = ("ge", "lt")


def generate(root: Path, num_episodes: int, names: list[str], video_bytes: int) -> None:
    """The corpus: parts of `PART_EPISODES` episodes, one snapshot, and the video of the first episode."""
    disk = LocalStorage()
    root.mkdir(parents=True)
    (root / "corpus.json").write_text('{"format_version": 1, "uid": "benchmark"}')
    parts: dict[str, list[Part]] = {name: [] for name in TABLES}
    camera = {"name": CAMERA, "width": 256, "height": 256, "codec": "h264"}
    kind = TABLES["episodes"].field("cameras").type
    for first in range(0, num_episodes, PART_EPISODES):
        rng = np.random.default_rng([SEED, first])
        count = min(PART_EPISODES, num_episodes - first)
        rows = whole_episodes(rng, count, first)
        cameras = pa.repeat(pa.scalar([camera], kind), count)
        rows = rows.set_column(rows.column_names.index("cameras"), "cameras", cameras)
        written = {
            "episodes": rows,
            "tiers": tiers(rows, rng),
            "measurements": tier.measurements(rng, rows["uid"].combine_chunks(), names),
        }
        for table, piece in written.items():
            parts[table].append(write_tables(disk, root, table, [piece]))
        if first == 0:
            path = root / rows["dataset_path"][0].as_py()
            path /= video_file(0, f"observation.images.{CAMERA}")
            path.parent.mkdir(parents=True)
            path.write_bytes(np.random.default_rng(SEED).bytes(video_bytes))
    publish(disk, root, parts)


@dataclass(frozen=True)
class Server:
    port: int
    token: str
    pid: int
    started_s: float

    def memory_mib(self) -> dict[str, float]:
        """Resident pages of the server, and of them those that are its own and not the cache's files."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        kib = {
            key: int(re.search(rf"^{key}:\s+(\d+)", text, re.MULTILINE)[1])
            for key in ("Rss", "Anonymous")
        }  # type: ignore[index]
        return {name: value / 1024 for name, value in kib.items()}


@contextmanager
def serving(root: Path, state: Path) -> Iterator[Server]:
    started_s = time.perf_counter()
    words = [sys.executable, "-m", "jobs", "serve", str(root), "--port", "0", "--state", str(state)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            opened = re.search(r":(\d+)/login", process.stderr.readline())
            assert opened
            token = (state_folder(state, root) / "token").read_text().strip()
            yield Server(int(opened[1]), token, process.pid, started_s)
        finally:
            process.terminate()


class Client:
    """One connection that is kept."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str
    ) -> None:
        self._reader, self._writer, self._token = reader, writer, token

    @classmethod
    @asynccontextmanager
    async def to(cls, server: Server) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
        try:
            yield cls(reader, writer, server.token)
        finally:
            writer.close()

    async def get(self, path: str, header: str = "") -> tuple[int, bytes]:
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
        )
        self._writer.write(f"{request}{header}\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        return int(head.split(b" ", 2)[1]), body


def page_path(rng: random.Random, columns: Sequence[str]) -> str:
    """A page of 100 with two filters and a sort; of so many kinds that none comes twice."""
    query = [
        ("filter", f"tier:eq:{rng.choice(TIERS)}"),
        ("filter", f"duration_s:{rng.choice(OPERATIONS)}:{rng.uniform(10, 40):.6f}"),
        ("sort", rng.choice(("", "-")) + rng.choice(columns)),
        ("limit", "100"),
    ]
    return f"{API}/episodes?{urlencode(query)}"


def facet_path(rng: random.Random, _: Sequence[str]) -> str:
    query = [
        ("filter", f"duration_s:ge:{rng.uniform(1, 40):.6f}"),
        ("filter", f"tier:eq:{rng.choice(TIERS)}"),
    ]
    return f"{API}/facets?{urlencode(query)}"


def search_path(rng: random.Random, _: Sequence[str]) -> str:
    return (
        f"{API}/episodes?{urlencode([('q', f'object {rng.randrange(100)} aw'), ('limit', '100')])}"
    )


async def _timed(
    client: Client, path: str, status: int = 200, header: str = ""
) -> tuple[float, bytes]:
    started = time.perf_counter()
    answered, body = await client.get(path, header)
    spent = time.perf_counter() - started
    if answered != status or not body:
        raise SystemExit(f"{path}: status {answered}, {len(body)} bytes")
    return spent * 1e3, body


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def _checked_page(body: bytes) -> list[dict[str, Any]]:
    page = json.loads(body)
    if page["total"] < 1 or len(page["episodes"]) != min(100, page["total"]):
        raise SystemExit("a page does not have the rows that its total says")
    return list(page["episodes"])


async def one_client(server: Server, repeats: int) -> dict[str, float]:
    """p50 and p95 of each kind of request, in ms."""
    rng = random.Random(SEED)
    times: dict[str, list[float]] = {}
    async with Client.to(server) as client:
        _, body = await _timed(client, f"{API}/columns")
        columns = [
            c["name"] for c in json.loads(body)["columns"] if c["name"].startswith(MEASUREMENT)
        ]
        for _ in range(repeats):
            spent, body = await _timed(client, page_path(rng, columns))
            times.setdefault("page", []).append(spent)
            uid = rng.choice(_checked_page(body))["uid"]
            for name, make in (("facets", facet_path), ("search", search_path)):
                spent, body = await _timed(client, make(rng, columns))
                times.setdefault(name, []).append(spent)
            spent, body = await _timed(client, f"{API}/episodes/{uid}")
            if json.loads(body)["uid"] != uid:
                raise SystemExit("the detail is of another episode")
            times.setdefault("detail", []).append(spent)
        times["range"] = await _ranges(client, repeats, rng)
    return {
        f"{name}_{what}_ms": figure(values)
        for name, values in times.items()
        for what, figure in (("p50", statistics.median), ("p95", p95))
    }


async def _ranges(client: Client, repeats: int, rng: random.Random) -> list[float]:
    """Parts of the one video there is."""
    only_video = "filter=episode_id:eq:task/episode_0"
    _, body = await _timed(client, f"{API}/episodes?{only_video}")
    path = f"{API}/episodes/{json.loads(body)['episodes'][0]['uid']}/videos/{CAMERA}"
    _, whole = await _timed(client, path)
    times = []
    for _ in range(repeats):
        start = rng.randrange(len(whole) - RANGE_BYTES)
        header = f"Range: bytes={start}-{start + RANGE_BYTES - 1}\r\n"
        spent, body = await _timed(client, path, 206, header)
        if body != whole[start : start + RANGE_BYTES]:
            raise SystemExit("a range has other bytes than the file")
        times.append(spent)
    return times


async def many_clients(server: Server, args: argparse.Namespace) -> dict[str, float]:
    """Pages by `--clients` at a time, the first seconds left out."""
    async with Client.to(server) as client:
        _, body = await _timed(client, f"{API}/columns")
    columns = [c["name"] for c in json.loads(body)["columns"] if c["name"].startswith(MEASUREMENT)]
    until = time.perf_counter() + WARM_S + args.load_s
    counted_from = time.perf_counter() + WARM_S
    times: list[float] = []
    memory: list[float] = []

    async def visit(number: int) -> None:
        rng = random.Random(SEED + number)
        async with Client.to(server) as client:
            await asyncio.sleep(rng.uniform(0, args.think_s))
            while time.perf_counter() < until:
                began = time.perf_counter()
                spent, body = await _timed(client, page_path(rng, columns))
                _checked_page(body)
                if began >= counted_from:
                    times.append(spent)
                await asyncio.sleep(args.think_s)

    async def watch() -> None:
        while time.perf_counter() < until:
            await asyncio.sleep(1.0)
            if time.perf_counter() >= counted_from:
                memory.append(server.memory_mib()["Rss"])

    await asyncio.gather(watch(), *(visit(number) for number in range(args.clients)))
    return {
        "load_requests_per_s": len(times) / args.load_s,
        "load_page_p50_ms": statistics.median(times),
        "load_page_p95_ms": p95(times),
        "load_rss_mib": statistics.median(memory),
        "load_rss_spread_ratio": (max(memory) - min(memory)) / statistics.median(memory),
        "load_anonymous_mib": server.memory_mib()["Anonymous"],
    }


async def start(server: Server) -> dict[str, float]:
    """From the start of the command to the first answers."""
    async with Client.to(server) as client:
        await _timed(client, "/healthz")
        healthz_s = time.perf_counter() - server.started_s
        while (await client.get("/readyz"))[0] != 200:
            await asyncio.sleep(0.01)
        await _timed(client, f"{API}/episodes?sort=-duration_s&limit=100")
        return {"healthz_s": healthz_s, "first_page_s": time.perf_counter() - server.started_s}


def figures(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    root, state = folder / "corpus", folder / "state"
    names = tier.names_of(args.measurements)
    video_bytes = args.video_mb * 1_000_000
    generate_s = seconds(lambda: in_own_process(generate, root, args.episodes, names, video_bytes))
    cache = state_folder(state, root)
    build_s = seconds(lambda: in_own_process(build_cache, root, cache))
    cache_bytes = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    out = {"generate_s": generate_s, "cache_build_s": build_s, "cache_bytes": cache_bytes}
    with serving(root, state) as server:
        out |= asyncio.run(start(server))
        out |= asyncio.run(one_client(server, args.repeats))
        out |= asyncio.run(many_clients(server, args))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--measurements", type=int, default=40, help="Of each episode.")
    parser.add_argument("--video-mb", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--think-s", type=float, default=2.0)
    parser.add_argument("--load-s", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="Where the temporary folder is made.")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    measured_on = result.machine()
    with tempfile.TemporaryDirectory(prefix="eicorpus-benchmark-", dir=args.folder) as folder:
        answer = {"episodes": args.episodes, "clients": args.clients}
        answer |= figures(Path(folder).resolve(), args)
    answer["load_after"] = os.getloadavg()[0]
    if args.json:
        print(result.as_json("service", measured_on, answer))
    else:
        print("\n".join(f"{name:32} {value:,.4g}" for name, value in answer.items()))


if __name__ == "__main__":
    main()
