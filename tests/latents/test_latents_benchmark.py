"""The benchmark of latents measures, and leaves a corpus that it is given as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import latents


@pytest.mark.slow
def test_a_corpus_that_is_given_is_not_changed(tmp_path: Path) -> None:
    root = latents.build(tmp_path, 1, 3.0)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    app = typer.Typer()
    app.command()(latents.main)
    asked = ["--encoder", "dinov3_tiny", "--corpus", str(root), "--workers", "0", "--rounds", "2"]
    answer = CliRunner().invoke(app, [*asked, "--json"])
    figures = json.loads(answer.stdout)["figures"]
    assert figures["pictures"] > 0
    assert figures["end_to_end_over_bare_ratio"] > 0
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
