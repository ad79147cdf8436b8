"""How tests reach the independent reader: a process in `.peer`, or in the environment that the developer names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ingest.verify.peer import CHECK

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("EICORPUS_PEER_PYTHON", ROOT / ".peer" / "bin" / "python"))

# Marks of every test that needs it.
PEER = [
    pytest.mark.peer,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="NOT RUN: build it with eicorpus peer"),
]


def run_check(*roots: Path) -> subprocess.CompletedProcess[str]:
    """One JSON line on standard output for each root; see check.py for the exit status."""
    return subprocess.run(
        [str(PYTHON), str(CHECK), *map(str, roots)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
