"""What starts fast imports little: the modules that help, a query and a worker import, which do not depend on the machine's load."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from platform import python_version

import pytest

from benchmarks.start import COMMAND, cost_of, cost_of_worker
from jobs.command_table import COMMANDS
from tests.faults.toy import write_toy
from tests.generators.corpus import write_catalog
from tests.jobs.build_cases import build, write_spec
from tests.s3_server import environment
from tests.training.corpus import make

HEAVY = frozenset(
    [
        *("av", "cv2", "duckdb", "h5py", "numpy", "pandas", "polars", "pyarrow", "pydantic"),
        *("ray", "scipy", "torch", "yaml"),
    ]
)
NOT_OF_WORKERS = frozenset({"duckdb", "pandas", "polars", "ray", "rich", "scipy", "torch"})


def test_the_measured_program_is_the_command() -> None:
    assert cost_of(COMMAND, "no-such-command").exit_code == 2
    assert cost_of("import numpy").packages() >= {"numpy"}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["-h"], []], ids=str)
def test_help_and_version_import_no_library_of_data(words: list[str]) -> None:
    cost = cost_of(COMMAND, *words)
    assert cost.packages() & HEAVY == frozenset()
    assert cost.packages() & {"schemas", "jobs"}
    assert not cost.packages() & {"adapters", "ingest", "training"}
    assert cost.exit_code == (0 if words else 2)


def test_a_command_imports_no_other_command() -> None:
    commands = {listed.place.partition(":")[0] for listed in COMMANDS.values()}
    cost = cost_of(COMMAND, "snapshot", "list", "--help")
    assert cost.modules & commands == {"jobs.commands.snapshot"}


def test_a_query_imports_no_library_of_pictures_or_learning(tmp_path: Path) -> None:
    write_catalog(tmp_path / "corpus")
    cost = cost_of(COMMAND, "query", str(tmp_path / "corpus"), "SHOW TABLES")
    assert cost.exit_code == 0
    assert cost.packages() & {"av", "cv2", "h5py", "polars", "ray", "scipy", "torch"} == frozenset()


@pytest.mark.slow
def test_a_build_with_nothing_to_do_imports_no_work_of_its_stages(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, {"e0": "good"})
    build(spec)
    stages = ("caption", "dedup", "export", "ingest", "latents_images", "latents_text", "manifest")
    work = {f"jobs.stages.{name}" for name in (*stages, "report", "tier", "verify")}
    for words in (["build", "--workers", "1"], ["plan"]):
        cost = cost_of(COMMAND, *words, str(spec), "--json")
        assert cost.exit_code == 0
        assert cost.modules & work == frozenset()
        assert cost.packages() & {"h5py", "pebble", "ray", "scipy", "torch"} == frozenset()


@pytest.mark.slow
def test_a_mistake_in_a_recipe_is_refused_without_torch(tmp_path: Path) -> None:
    manifest = make(tmp_path).manifest
    words = ["train", str(manifest), "--out", str(tmp_path / "run")]
    cost = cost_of(COMMAND, *words, "--set", "run.eval_every=0", "--json")
    assert cost.exit_code == 2
    assert "run.eval_every: 0; expected at least 1" in cost.stdout
    assert "torch" not in cost.packages()


@pytest.mark.slow
def test_only_what_opens_a_bucket_imports_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("http://127.0.0.1:9").items():  # where nothing answers
        monkeypatch.setenv(name, value)
    write_toy(tmp_path / "raw", {"a": "good"})
    words = ["ingest", "tests.faults.toy:Toy", str(tmp_path / "raw"), "--dry-run"]
    local = cost_of(COMMAND, *words, "--out", str(tmp_path / "corpus"))
    assert local.exit_code == 0
    assert "obstore" not in local.packages()
    words[2] = "s3://no.bucket/raw"
    bucket = cost_of(
        COMMAND, *words, "--out", str(tmp_path / "corpus"), "--cache-dir", str(tmp_path)
    )
    assert "obstore" in bucket.packages()


@pytest.mark.parametrize("source", ["video_folder", "robomimic", "lerobot"])
def test_a_worker_imports_what_its_adapter_needs(source: str) -> None:
    packages = cost_of_worker(source).packages()
    assert "obstore" not in packages
    assert packages & NOT_OF_WORKERS == frozenset()
    assert packages >= {"adapters", "ingest"}


def test_the_version_is_that_of_the_package() -> None:
    wanted = f"eicorpus {version('eicorpus')} (Python {python_version()})\n"
    assert cost_of(COMMAND, "--version").stdout == wanted
