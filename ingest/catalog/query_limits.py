"""What one query may use."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import ConfigError

START_S = 120.0  # to open a snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """DuckDB checks them between batches of rows. A single function call on one huge value can overstep them, so SQL that a user or a file
    gives runs in a process of its own (`ingest/catalog/query_process.py`), which is ended where DuckDB does not stop."""

    timeout_s: float = 60.0
    memory_mb: int = 4096  # of DuckDB while it works, and again of the result
    threads: int | None = None  # None: as many as the CPU pool of Arrow has

    def __post_init__(self) -> None:
        if (
            self.timeout_s <= 0
            or self.memory_mb < 1
            or (self.threads is not None and self.threads < 1)
        ):
            raise ConfigError(f"{self}: every limit must be positive")

    @property
    def timeout_message(self) -> str:
        return f"stopped after {self.timeout_s:g} s; narrow the query or raise --time-limit-s"

    @property
    def start_message(self) -> str:
        return (
            f"the snapshot did not open within {START_S:g} s, before the query began; "
            "run it again when the storage is less busy, or run `eicorpus compact`"
        )
