"""The identity and the clocks of an ingest that a benchmark runs."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from ingest.pipeline.run import RunContext


def run_context() -> RunContext:
    """A run without progress output."""
    return RunContext(
        run_id="run",
        command="benchmark",
        now=lambda: datetime.now(UTC),
        monotonic_s=time.monotonic,
    )
