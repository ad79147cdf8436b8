"""What only a job may know: the clock, the command line, a fresh identity, the environment."""

from __future__ import annotations

import sys
import time
import uuid
from datetime import UTC, datetime

from ingest.pipeline.run import Progress, RunContext


def new_run(progress: Progress) -> RunContext:
    """The identity of a run: sorts by time, never clashes."""
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    return RunContext(
        run_id=run_id,
        command=" ".join(["eicorpus", *sys.argv[1:]]),
        now=lambda: datetime.now(UTC),
        monotonic_s=time.monotonic,
        progress=progress,
    )


def new_run_id() -> str:
    """The identity of a run that reports by other means than a `RunContext`."""
    return new_run(lambda _: None).run_id


def new_corpus_uid() -> str:
    return str(uuid.uuid4())
