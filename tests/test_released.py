"""A corpus that an earlier commit wrote opens, answers, verifies and resumes with the present code.

The corpus is made in the test by that commit's own code, out of the repository's history. A change of the format that cannot
read it must refuse it with the command that upgrades it, and this test then runs that command first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from jobs.cli import app
from schemas.manifest import load

COMMIT = "4caf94b2522b28a74bbda77b200a41dab6560041"
ROOT = Path(__file__).parents[1]
MAKER = Path(__file__).with_name("released.py")
TOY = "tests.faults.toy:Toy"
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Released:
    """A corpus, the raw data it came from, and what the commit that wrote it says about it."""

    corpus: Path
    told: dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Released:
    folder = tmp_path_factory.mktemp("released")
    code = unpacked(folder / "code")
    done = subprocess.run(
        [sys.executable, "-P", str(MAKER), str(folder)],
        env={**os.environ, "PYTHONPATH": str(code)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Released(corpus=folder / "corpus", told=json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def released(written: Released, tmp_path: Path) -> Released:
    """A copy of the corpus: each test may change its own."""
    shutil.copytree(written.corpus, tmp_path / "corpus")
    return Released(corpus=tmp_path / "corpus", told=written.told)


def unpacked(folder: Path) -> Path:
    """The code of the commit; skips where the history is not there."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False
    )
    if packed.returncode:
        pytest.skip(f"NOT RUN: commit {COMMIT[:7]} is not in this checkout's history")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def eicorpus(*words: str | Path, exit_code: int = 0) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == exit_code, f"{words}: {done.output}\n{done.exception!r}"
    return done


def resume(released: Released, source: str) -> dict[str, Any]:
    words = ("--out", released.corpus, "--workers", "0", "--max-quarantined", "1", "--json")
    done = eicorpus("ingest", source, released.told["raw"][source], *words)
    answer: dict[str, Any] = json.loads(done.stdout)["result"]
    return answer


def test_it_opens_and_every_table_answers(released: Released) -> None:
    now = snapshot.load(released.corpus)
    with Catalog.open(released.corpus) as catalog:
        asked = {t: catalog.sql(f"select count(*) from {t}") for t in released.told["counts"]}
    assert {t: now.read(released.corpus, t).num_rows for t in asked} == released.told["counts"]
    assert {t: rows.item() for t, rows in asked.items()} == released.told["counts"]


def test_it_verifies_and_has_the_same_content(released: Released) -> None:
    assert json.loads(eicorpus("verify", released.corpus, "--json").stdout)["result"]["ok"]
    said = json.loads(eicorpus("digest", released.corpus, "--json").stdout)["result"]
    assert said["digest"] == released.told["digest"]


def test_its_manifest_is_still_one(released: Released) -> None:
    eicorpus("manifest", "verify", released.corpus, "before")
    assert load(released.corpus / "manifests" / "before").rows.num_rows


def test_it_resumes_and_verifies_again(released: Released) -> None:
    """One toy episode is taken from staging, so the digest of the default recipe must still be the same."""
    toy = resume(released, TOY)
    assert (toy["committed"], toy["committed_before"], toy["adds_up"]) == (4, 2, True), toy
    for source in set(released.told["raw"]) - {TOY}:
        assert resume(released, source)["adds_up"]
    assert json.loads(eicorpus("verify", released.corpus, "--json").stdout)["result"]["ok"]
    ids = snapshot.load(released.corpus).read(released.corpus, "episodes", ["episode_id"])
    assert {"a", "c", "e", "f"} <= set(ids["episode_id"].to_pylist())


def test_it_is_curated_further(released: Released) -> None:
    resume(released, TOY)
    eicorpus("measure", released.corpus, "--workers", "0")
    eicorpus("tier", released.corpus)
    eicorpus("manifest", "build", released.corpus, "after", "--workers", "0")
    eicorpus("manifest", "verify", released.corpus, "after")
    eicorpus("stale", released.corpus)
    assert json.loads(eicorpus("verify", released.corpus, "--json").stdout)["result"]["ok"]
