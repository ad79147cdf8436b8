"""Latents as a target of a corpus spec: an encoder is opened only where there is something to encode."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.toy import write_toy
from tests.jobs.build_cases import build, plan, write_spec

ROOT = Path(__file__).parents[2]
SPEC = """\
version: 1
sources:
  toy: {path: raw, adapter: "tests.faults.toy:Toy"}
latents:
  dct: {encoder: patch_dct, stride: 3}
"""
KINDS = {"a": "good", "b": "good"}
WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from jobs.cli import app
done = CliRunner().invoke(app, ["build", sys.argv[1], "--json"])
assert done.exit_code == 0, done.output
assert '"built": []' in done.stdout, done.stdout
assert "torch" not in sys.modules
"""


@pytest.mark.slow
def test_latents_are_built_once_and_a_build_with_nothing_to_do_imports_no_torch(
    tmp_path: Path,
) -> None:
    spec = write_spec(tmp_path, KINDS, SPEC)
    assert plan(spec)["latents.dct"]["state"] == "missing"
    first = {line["target"]: line for line in build(spec)["targets"]}
    assert (first["latents.dct"]["total"], first["latents.dct"]["done"]) == (2, 2)
    words = [sys.executable, "-c", WITHOUT_TORCH, str(spec)]
    subprocess.run(words, cwd=ROOT, check=True, timeout=120)
    write_toy(tmp_path / "raw", KINDS | {"c": "good"})
    second = {line["target"]: line for line in build(spec)["targets"]}
    assert (second["latents.dct"]["up_to_date"], second["latents.dct"]["done"]) == (2, 1)


@pytest.mark.slow
def test_another_stride_is_another_encoder_and_a_file_that_is_lost_is_encoded_again(
    tmp_path: Path,
) -> None:
    spec = write_spec(tmp_path, KINDS, SPEC)
    build(spec)
    [lost] = (tmp_path / "corpus/datasets").rglob("*.tar")
    lost.unlink()
    assert plan(spec)["latents.dct"]["to_do"] == 2
    assert build(spec)["built"] == ["latents.dct"]
    [again] = (tmp_path / "corpus/datasets").rglob("*.tar")
    assert again != lost  # older rows name that one
    spec.write_text(SPEC.replace("stride: 3", "stride: 6"))
    assert plan(spec)["latents.dct"]["why"] == "changed encoder"
    line = next(each for each in build(spec)["targets"] if each["target"] == "latents.dct")
    assert line["done"] == 2
