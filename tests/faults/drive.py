"""A driver process for the kill tests: `python -m tests.faults.drive RAW OUT local|ray RUN_ID`."""

from __future__ import annotations

import sys
from pathlib import Path

from ingest.executors.local import LocalExecutor
from ingest.executors.ray import RayExecutor
from tests.faults.runs import LIMITS, run


def main() -> None:
    raw, out, kind, run_id = sys.argv[1:]
    executor = (
        LocalExecutor(2, LIMITS)
        if kind == "local"
        else RayExecutor(LIMITS, address=None, workers=2)
    )
    run(Path(raw), Path(out), executor=executor, run_id=run_id)


if __name__ == "__main__":
    main()
