"""Runs the real pipeline on the toy source, in this process, with whatever disk and executor a test brings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest.corpus import snapshot
from ingest.corpus.layout import open_or_create, writer_lock
from ingest.executors.inline import Executor, InlineExecutor
from ingest.pipeline.plan import Request, make_plan
from ingest.pipeline.run import RunContext, ingest
from ingest.pipeline.tally import Tally
from ingest.recipe import Limits, Recipe
from ingest.storage.local import LocalStorage

TOY = "tests.faults.toy:Toy"
LIMITS = Limits(time_limit_s=60, memory_limit_mib=2048)


def run(
    raw: Path,
    out: Path,
    *,
    disk: LocalStorage | None = None,
    executor: Executor | None = None,
    run_id: str = "run",
    limits: Limits = LIMITS,
    warn: Callable[[str], None] = lambda message: None,
    **request: Any,
) -> Tally:
    disk = disk or LocalStorage()
    asked = Request(
        source=request.pop("source", TOY),
        root=raw,
        options=request.pop("options", {}),
        recipe=request.pop("recipe", Recipe()),
        **request,
    )
    corpus = open_or_create(out, uid="corpus", recipe_digest=asked.recipe.digest, disk=disk)
    results: list[Tally] = []
    is_started = iter((False,))

    def clock_s() -> float:
        """10 s pass before each result, however often it is read: batches of two episodes."""
        return 10.0 * (len(results) + next(is_started, True))

    with writer_lock(corpus):
        current = snapshot.load(corpus.root)
        return ingest(
            asked,
            make_plan(asked, corpus, current),
            corpus=corpus,
            current=current,
            executor=executor or InlineExecutor(disk),
            limits=limits,
            context=RunContext(
                run_id=run_id,
                command="test",
                now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
                monotonic_s=clock_s,
                progress=results.append,
                warn=warn,
            ),
            disk=disk,
        )


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def facts(corpus: Path, table: str) -> list[dict[str, Any]]:
    """A catalog table without what depends on when it was written, in a canonical order."""
    rows = snapshot.load(corpus).read(corpus, table).to_pylist()
    for row in rows:
        row.pop("run_id", None)
        row.pop("snapshot", None)
        row.pop("attempts", None)
    return sorted(rows, key=repr)
