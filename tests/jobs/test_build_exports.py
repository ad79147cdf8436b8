"""`exports` of a spec that name a manifest and a format: built, resumed, recorded, and a job of the service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ingest.corpus.snapshot import load
from ingest.export.datasets import run as export_run
from jobs.service.job_kinds import JobRequest
from schemas.errors import ConfigError, TransientError
from tests.jobs.build_cases import POLICY, SPEC, build, inodes, invoke, newest, plan, write_spec

pytestmark = pytest.mark.slow

KINDS = {"a": "good", "b": "good", "c": "good"}
EXPORTS = """\
exports:
  third: {to: lerobot-v3, manifest: train, out: exports/third, allow_licence: [unknown]}
  lake: {to: iceberg, warehouse: lake}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return write_spec(tmp_path, KINDS, SPEC + EXPORTS)


def folder_of(spec: Path) -> Path:
    return spec.parent / "exports/third" / newest(spec)


def rows_of(spec: Path) -> list[dict[str, Any]]:
    corpus = spec.parent / "corpus"
    rows: list[dict[str, Any]] = load(corpus).read(corpus, "exports").to_pylist()
    return rows


def test_an_export_is_built_once_for_each_version_of_its_manifest(spec: Path) -> None:
    order = build(spec)["built"]
    assert (
        order.index("manifests.train") < order.index("exports.third") < order.index("exports.lake")
    )
    first = folder_of(spec)
    assert invoke("verify", str(first), "--as", "lerobot-v3").exit_code == 0
    assert {row["location"] for row in rows_of(spec)} == {str(first)}
    assert rows_of(spec)[-1]["sha256"] == export_run.read_page(first)["sha256"]
    files = inodes(first)
    assert build(spec)["built"] == []
    assert inodes(first) == files
    (spec.parent / "policy.yaml").write_text(POLICY % 10.5)  # other tiers, another version
    assert plan(spec)["exports.third"]["why"].startswith("after ")
    assert "exports.third" in build(spec)["built"]
    assert folder_of(spec) != first
    assert inodes(first) == files  # whoever trains on it goes on
    shutil.rmtree(folder_of(spec))
    assert plan(spec)["exports.third"]["state"] == "missing"
    assert "exports.third" in build(spec)["built"]
    assert build(spec)["built"] == []


def test_an_export_that_was_stopped_goes_on(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise TransientError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(export_run, "_finish", stop)
        stopped = invoke("build", str(spec), "--workers", "0", "--json")
        assert stopped.exit_code != 0
    folder = folder_of(spec)
    written = inodes(folder / export_run.UNFINISHED)
    assert written
    assert rows_of(spec)[-1]["sha256"] == ""  # a stopped one holds episodes too
    assert "exports.third" in build(spec)["built"]
    own = {place: inode for place, (inode, _) in inodes(folder).items()}
    moved = {inode for place, (inode, _) in written.items() if place.endswith((".parquet", ".mp4"))}
    assert moved
    assert moved <= set(own.values())  # units were not written again
    assert not (folder / export_run.UNFINISHED).exists()


def test_a_job_exports_the_newest_version_to_the_place_of_the_spec(spec: Path) -> None:
    corpus = spec.parent / "corpus"
    job = TypeAdapter(JobRequest).validate_python({"kind": "export", "exports": "third"})
    with pytest.raises(ConfigError):
        job.words(corpus, spec)  # no manifest yet
    build(spec, "manifests.train")
    words = job.words(corpus, spec)
    assert f"--out={folder_of(spec)}" in words
    assert f"--manifest=train/{newest(spec)}" in words
    done = invoke(*words, "--workers", "0", "--json")
    assert done.exit_code == 0, done.output
    sha256 = json.loads(done.stdout)["result"]["export"]["sha256"]
    lines = {line["target"]: line for line in build(spec)["targets"]}
    assert lines["exports.third"]["up_to_date"] > 0  # it is there already
    assert export_run.read_page(folder_of(spec))["sha256"] == sha256


def test_check_finds_a_folder_with_another_export(spec: Path) -> None:
    build(spec)
    page = folder_of(spec) / export_run.PAGE
    page.write_text(page.read_text().replace('"sha256": "', '"sha256": "0', 1))
    stale = plan(spec, "--check")["exports.third"]
    assert (stale["state"], stale["why"]) == ("stale", "the folder holds another export")
