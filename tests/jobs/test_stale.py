"""`eicorpus stale`: what would be written differently today."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from jobs.cli import app
from tests.faults.runs import run
from tests.faults.toy import write_toy


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stale")
    run(write_toy(folder / "raw", dict.fromkeys("abc", "good")), folder / "corpus")
    return folder / "corpus"


def call(*words: str) -> typer.testing.Result:
    return CliRunner().invoke(app, ["stale", *words])


def test_nothing_is_stale_under_the_recipe_it_was_made_with(corpus: Path) -> None:
    answer = json.loads(call(str(corpus), "--json", "--exit-code").stdout)["result"]
    assert (answer["episodes"], answer["stale"]) == (3, 0)


def test_another_recipe_makes_everything_stale(corpus: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("video: {crf: 30}")
    result = call(str(corpus), "--config", str(recipe), "--json", "--exit-code")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)["result"]
    assert answer["stale"] == 3
    assert answer["groups"][0]["reason"].startswith("recipe ")
