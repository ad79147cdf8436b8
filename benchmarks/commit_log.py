"""How fast entries of a commit log are read from a bucket that takes 20 ms for an answer: one by one, and as `gc` and `ingest` read them.

`python -m benchmarks.commit_log`. The bucket is moto's S3 on loopback; the latency is slept before each request.
"""

from __future__ import annotations

import os
import time
import tracemalloc
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated
from unittest import mock

import typer

from ingest.corpus import commit_log
from ingest.corpus.commit_log import Change, CommitLog, LogEntry
from ingest.corpus.snapshot import Part
from ingest.storage.object_store import ObjectStore

# Figure -> what it is, for docs/results/benchmarks.md.
KEYS = {
    "one_by_one_entries_per_s": "Entries read one by one from moto's S3, with 20 ms before each answer.",
    "at_once_entries_per_s": "The same with 16 requests under way, as a start and `gc` read.",
    "ratio": "Of the two, least of the rounds. moto, which shares the cores, bounds it.",
    "peak_mb": "Most memory while 400 entries of six files are read.",
}

ENTRIES = 400
LATENCY_S = 0.02
ROUNDS = 3


class FarAway(ObjectStore):
    """Answers late."""

    def get(self, key: str, *, max_bytes: int) -> bytes:
        time.sleep(LATENCY_S)
        return super().get(key, max_bytes=max_bytes)


@contextmanager
def bucket() -> Iterator[str]:
    """The URI of an empty bucket of moto."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        names = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "REGION": "us-east-1"}
        names |= {"ENDPOINT_URL": endpoint, "ALLOW_HTTP": "true"}
        os.environ.update({f"AWS_{name}": value for name, value in names.items()})
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/log", method="PUT")).close()
        yield "s3://log"
    finally:
        server.stop()


def entry(number: int) -> LogEntry:
    """One commit of ten tables."""
    parts = {
        table: (
            Part(
                path=f"catalog/{table}/part-{number:032x}-0123456789ab-{number}.parquet",
                rows=100,
                num_bytes=10**5,
                sha256=f"{number:064x}",
            ),
        )
        for table in ("episodes", "segments", "measurements", "artifacts", "verdicts", "signatures")
    }
    return LogEntry(number=number, run_id="run", change=Change(added=parts))


def entries_per_s(log: CommitLog, at_once: int) -> float:
    with mock.patch.object(commit_log, "AT_ONCE", at_once):
        began_s = time.perf_counter()
        count = sum(1 for _ in log.after(0))
        assert count == ENTRIES
        return count / (time.perf_counter() - began_s)


def peak_bytes(log: CommitLog) -> int:
    tracemalloc.start()
    for _ in log.after(0):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Entries a second, one by one and several at a time."""
    from benchmarks import result

    measured_on = result.machine()
    with bucket() as uri:
        store = FarAway(uri)
        log = CommitLog(store=store)
        for number in range(1, ENTRIES + 1):
            store.put(commit_log.key_of(number), entry(number).data)
        rounds = [
            (entries_per_s(log, 1), entries_per_s(log, commit_log.AT_ONCE)) for _ in range(ROUNDS)
        ]
        figures = {
            "one_by_one_entries_per_s": round(max(one for one, _ in rounds), 1),
            "at_once_entries_per_s": round(max(several for _, several in rounds), 1),
            "ratio": round(min(several / one for one, several in rounds), 2),
            "peak_mb": round(peak_bytes(log) / 1e6, 1),
        }
    if as_json:
        print(result.as_json("commit_log", measured_on, figures))
    else:
        for key, value in figures.items():
            print(f"{key:30} {value}")


if __name__ == "__main__":
    typer.run(main)
