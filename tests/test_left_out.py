"""A test run that is green by omission says what it omitted: `tests/left_out.py`, run by a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

def test_ok(): ...

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.skipif(True, reason="NOT RUN: needs root")
def test_a(): ...

@pytest.mark.skipif(True, reason="NOT RUN: needs root")
def test_b(): ...

def test_c(): pytest.skip("NOT RUN: no history")
"""
WHOLE_FILE = """
import pytest
pytest.skip("NOT RUN: no camera", allow_module_level=True)
"""


def last_lines(folder: Path, *words: str) -> list[str]:
    (folder / "test_some.py").write_text(TESTS)
    (folder / "test_whole.py").write_text(WHOLE_FILE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: a test\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.left_out", "-m", "not slow", *words]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if line.startswith(("skipped:", "left out:"))]


@pytest.mark.slow
def test_what_was_skipped_is_counted_by_its_reason(tmp_path: Path) -> None:
    expected = [
        "skipped: 2, NOT RUN: needs root",
        "skipped: 1, NOT RUN: no camera",
        "skipped: 1, NOT RUN: no history",
        "left out: 1 slow; make test-all runs all but gpu",
    ]
    assert last_lines(tmp_path, "-n", "0") == expected
    assert last_lines(tmp_path, "-n", "2") == expected
