"""`eicorpus train --recipe causal_tiny` as a person runs it: to the end, interrupted and resumed, evaluated, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from tests.training.corpus import Trainable
from tests.training.test_train_cli import words
from training.causal.settings import CausalModelSettings
from training.run.checkpoint import checkpoint_of

pytestmark = pytest.mark.slow

SMALL = (
    "architecture.width=24", "architecture.num_layers=1", "architecture.num_heads=2", "architecture.ff_width=32",
    "text.width=8", "run.batch_size=10", "run.log_every=1", "run.checkpoint_every=2", "data.encoder=tiny_vit",
    "run.num_steps=6", "optimiser.warmup_steps=2",
)  # fmt: skip


def train(manifest: Path, out: Path, *more: str) -> dict[str, Any]:
    """What `--json` says."""
    asked = words(manifest, out, "--recipe", "causal_tiny", *more, small=SMALL)
    done = CliRunner().invoke(app, asked, standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return dict(json.loads(done.stdout)["result"])


def test_a_resumed_run_is_the_run_in_one(trainable: Trainable, tmp_path: Path) -> None:
    """Bit by bit: weights, averages and optimiser."""
    whole = train(trainable.manifest, tmp_path / "one")
    assert whole["step"] == 6
    train(trainable.manifest, tmp_path / "two", "--until", "3")
    rest = train(trainable.manifest, tmp_path / "two")
    assert (rest["step"], rest["resumed_from"]) == (6, 3)
    for path in sorted(checkpoint_of(tmp_path / "one").folder.iterdir()):
        other = checkpoint_of(tmp_path / "two").folder / path.name
        assert path.read_bytes() == other.read_bytes(), path.name
    state = checkpoint_of(tmp_path / "one").state
    assert isinstance(state.model, CausalModelSettings)
    assert (state.model.num_frames, state.model.actions_per_frame) == (7, 3)


def test_parts_of_a_batch_make_the_same_step(trainable: Trainable, tmp_path: Path) -> None:
    one = train(trainable.manifest, tmp_path / "one", "--until", "2")
    five = train(trainable.manifest, tmp_path / "five", "--until", "2", "--set", "run.accumulate=5")
    assert five["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert five["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
    assert five["loss_by_task"] == pytest.approx(one["loss_by_task"], rel=1e-5)
