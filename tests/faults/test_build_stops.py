"""`eicorpus build` killed, interrupted and run twice at once: the same command goes on, and its manifest has the same digest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.faults.zygote import Zygote
from tests.jobs.build_cases import build, invoke, newest, write_spec

ROOT = Path(__file__).parents[2]
KINDS = {f"e{i}": "good" for i in range(6)} | {"q": "quarantine"}
GATED = KINDS | {"e3": "gated"}
TARGETS = (
    *("sources.toy", "measures", "tiers", "duplicates", "captions"),
    *("manifests.train", "reports.overview", "verify"),
)
MOST_WRITES = 20  # before a kill


def words(spec: Path) -> list[str]:
    return ["build", str(spec), "--workers", "0", "--json"]


def start(spec: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "build", str(spec), "--workers", "1", "--json", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], target: str) -> bool:
    """Read until a target begins; False: the build ended without it."""
    assert process.stderr is not None
    return any(line.startswith(f"{target}: ") for line in process.stderr)


def digest(spec: Path) -> str:
    done = invoke("digest", str(spec.parent / "corpus"), "--json")
    return str(json.loads(done.stdout)["result"]["digest"])


@pytest.mark.slow
def test_a_build_killed_in_every_target_ends_with_the_digest_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    """SIGKILL in some write of its own, again and again until a build ends before it."""
    whole, spec = (write_spec(tmp_path / name, KINDS) for name in ("whole", "killed"))
    rng, zygote, reached = np.random.default_rng(14), Zygote(tmp_path), Counter[str]()
    try:
        assert zygote.run(words(whole)) == 0
        while (code := zygote.run(words(spec), ("put", int(rng.integers(1, MOST_WRITES))))) != 0:
            assert code == -signal.SIGKILL, zygote.log.read_text()
            begun = [word for word in TARGETS if f"{word}: " in zygote.log.read_text()]
            reached.update(begun[-1:])
            assert reached.total() < 100
    finally:
        zygote.close()
    assert len(reached) >= len(TARGETS) // 2, reached
    assert newest(spec) == newest(whole)
    assert digest(spec) == digest(whole)
    assert build(spec)["built"] == []
    checked = invoke("verify", str(spec.parent / "corpus"))
    assert checked.exit_code == 0, checked.output
    left = [path for path in (spec.parent / "corpus").rglob(".*.part") if path.is_file()]
    assert left == []


@pytest.mark.slow
def test_ctrl_c_ends_in_order_and_the_same_command_goes_on(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, GATED)
    process = start(spec)
    assert wait_for(process, "sources.toy")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads(output)["error"]["code"] == "interrupted"
    (tmp_path / "raw/gate").touch()
    assert build(spec)["built"] == list(TARGETS)


@pytest.mark.slow
def test_of_two_builds_at_once_one_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    """The first waits in an episode until the test opens its gate."""
    spec = write_spec(tmp_path, GATED)
    first = start(spec)
    assert wait_for(first, "sources.toy")
    second = start(spec)
    output, _ = second.communicate(timeout=120)
    error = json.loads(output)["error"]
    assert (second.returncode, error["code"]) == (2, "usage")
    assert f"process {first.pid}" in error["message"]
    (tmp_path / "raw/gate").touch()
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0
    assert json.loads(output)["result"]["built"] == list(TARGETS)
    assert build(spec)["targets"][0]["total"] == len(GATED)


@pytest.mark.slow
@pytest.mark.ray
def test_a_build_on_ray_has_the_digest_of_a_local_one(tmp_path: Path) -> None:
    local, on_ray = (write_spec(tmp_path / name, KINDS) for name in ("local", "ray"))
    build(local)
    process = start(on_ray, "--ray")
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    assert newest(on_ray) == newest(local)
    assert digest(on_ray) == digest(local)
