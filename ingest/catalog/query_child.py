"""The process of one query: reads a question, answers in Arrow, and can be ended at any instant. Started by `ingest/catalog/query_process.py`.

Three ends, the first that is reached: DuckDB stops between two batches (its own limits), the kernel refuses memory (RLIMIT_DATA), the
kernel ends the process (SIGALRM with its default action, which no call of DuckDB can hold up, and which also ends an orphan).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from ingest.catalog.catalog import Catalog
from ingest.catalog.query_process import START_S, QueryLimits, name_of
from schemas.errors import ConfigError, PipelineError

GRACE_S = 1.0  # for DuckDB to stop by itself
SLACK_MB = 512  # beyond the memory limit: Arrow batches, the parser, allocators


def main() -> None:
    """Standard input is a JSON question, standard output the reply: a JSON line when the query begins, one more for an error.

    Rows go to the open file whose number the question has.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reply = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing but the reply
    _end_after(START_S)
    question = json.load(sys.stdin)
    try:
        _answer(question, QueryLimits(**question["limits"]), reply)
    except PipelineError as error:
        _send(
            reply,
            {
                "error": name_of(error),
                "message": error.message,
                "where": error.where,
                "remedy": error.remedy,
            },
        )
    except MemoryError:
        message = f"more than {question['limits']['memory_mb']} MiB; narrow the query or raise --memory-limit-mb"
        _send(reply, {"error": ConfigError.__name__, "message": message, "where": "query"})
    os._exit(0)  # DuckDB's own end takes seconds where a result is large


def _answer(question: dict[str, Any], limits: QueryLimits, reply: IO[str]) -> None:
    with Catalog.open(question["corpus"], snapshot=question["snapshot"], limits=limits) as catalog:
        _limit_memory(limits.memory_mb + SLACK_MB)
        with os.fdopen(question["given"], "rb") as tables:
            for name in question["tables"]:
                catalog.register(name, pa.ipc.open_stream(tables).read_all())
        _end_after(limits.timeout_s + GRACE_S)
        _send(reply, {"snapshot": catalog.snapshot})
        with os.fdopen(question["answer"], "wb") as answer:
            catalog.write_arrow(question["sql"], answer)


def _send(reply: IO[str], line: dict[str, Any]) -> None:
    """At once: the asking process reads it even where this one is killed next."""
    reply.write(json.dumps(line) + "\n")
    reply.flush()


def _end_after(seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(more_mb: int) -> None:
    """Private memory of this process: what it has now, and so much more."""
    status = Path("/proc/self/status").read_text()
    have_kib = int(status.partition("VmData:")[2].split()[0])
    limit = have_kib * 1024 + (more_mb << 20)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
