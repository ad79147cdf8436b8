"""What the head of Ray runs for a job, without a head; `test_ray_jobs.py` has one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.service.job_output import MAX_LINE
from jobs.service.job_ray import RUNNER
from schemas.json_text import parse_json

ROOT = Path(__file__).parents[2]
COMMAND = """import os, sys
print(os.environ['MY_TOKEN'], 'x' * int(sys.argv[1]), file=sys.stderr)
print('{"token": "' + os.environ['MY_TOKEN'] + '",\\n "input": "' + sys.stdin.read() + '"}')
sys.stdout.flush(); sys.stderr.flush(); os._exit(3)"""


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A command in place of ours; everything else is ours."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nif '-m' in sys.orig_argv and 'jobs' in sys.orig_argv:\n    exec({COMMAND!r})\n"
    )
    return tmp_path


def test_the_head_bounds_lines_and_hides_its_own_secrets(packages: Path) -> None:
    done = subprocess.run(
        [sys.executable, *RUNNER[1:], str(3 * MAX_LINE)],
        env={**os.environ, "MY_TOKEN": "s3cret-value", "PYTHONPATH": f"{packages}:{ROOT}"},
        input="words",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    (line,) = done.stdout.splitlines()
    assert parse_json(line) == {"token": "[hidden]", "input": "words"}
    log = done.stderr.splitlines()
    assert log[0].startswith("[hidden] x")
    assert len(log) == 4
    assert max(map(len, log)) <= MAX_LINE
