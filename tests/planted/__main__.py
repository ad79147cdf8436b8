"""`python -m tests.planted`: plant each mistake of `mistakes.toml` in a copy of the checkout and run its test, which must fail.

The copy is made of what git tracks, in a temporary folder; the checkout is only read. First all named tests run without any
mistake: a test that fails anyway catches nothing. Exit 1 where a mistake survives its test.

Run on 22 November 2026: caught 101 of 101 (schemas and adapters 25, ingest 54, training and jobs 22) in 45 minutes, in three pieces on two
cores that four other jobs shared. Before that, 8 of the mistakes survived the test files that should catch them; these files got a test.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from tests.planted.mistakes import Mistake, mistakes
from tests.test_architecture import ROOT, project_files

TIMEOUT_S = 600
TEST_FAILED = 1  # pytest: tests ran, and some failed


def copy_of_checkout(folder: Path) -> Path:
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """pytest in the copy. PYTHONPATH puts the copy before an editable install of the checkout, in subprocesses too."""
    options = ["-q", "-x", "--no-header", "-p", "no:randomly", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def is_caught(copy: Path, mistake: Mistake) -> bool:
    """Whether the test of a mistake fails while the mistake is in the copy, which is clean again afterwards."""
    path = copy / mistake.file
    clean = path.read_text()
    path.write_text(mistake.planted(clean))
    try:
        done = run_tests(copy, [mistake.test])
    finally:
        path.write_text(clean)
    if done.returncode not in (0, TEST_FAILED):
        raise SystemExit(f"{mistake.test} did not run:\n{done.stdout}{done.stderr}")
    return done.returncode == TEST_FAILED


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.planted", description=__doc__)
    parser.add_argument("--only", default="*", help="Glob on the file that gets the mistake.")
    pattern = parser.parse_args().only
    chosen = [each for each in mistakes() if fnmatchcase(each.file, pattern)]
    if not chosen:
        parser.error(f"no mistake is planted in {pattern}")
    started = time.monotonic()
    survivors = []
    with tempfile.TemporaryDirectory(prefix="planted_") as folder:
        copy = copy_of_checkout(Path(folder))
        clean = run_tests(copy, sorted({each.test for each in chosen}))
        if clean.returncode != 0:
            raise SystemExit(f"without any mistake:\n{clean.stdout}{clean.stderr}")
        for each in chosen:
            caught = is_caught(copy, each)
            survivors += [] if caught else [each]
            print("caught  " if caught else "SURVIVED", each.file, "-", each.what, flush=True)  # noqa: T201
    minutes = (time.monotonic() - started) / 60
    print(f"caught {len(chosen) - len(survivors)} of {len(chosen)} in {minutes:.1f} min")  # noqa: T201
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
