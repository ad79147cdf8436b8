"""The real command, which waits only three seconds for a lost head: `python -m tests.faults.drive_cluster ingest ...`."""

from __future__ import annotations

from ingest.executors import ray_cluster
from jobs.cli import main

if __name__ == "__main__":
    ray_cluster.HEAD_S = 3.0
    main()
