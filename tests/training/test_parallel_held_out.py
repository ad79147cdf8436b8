"""Two ranks and a held-out sample that cannot be read: replaced as one process would, or the end of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.train import changes_from
from schemas.manifest import load
from schemas.supervision import Task
from tests.training.corpus import ENCODER, Trainable
from tests.training.running import ROOT, free_port
from tests.training.test_loader_faults import spoil
from tests.training.test_train_cli import SMALL, train, words
from training.conditioning.hashed_words import NoTextReader
from training.data.loader import Loader
from training.recipe import load_recipe
from training.run.mishaps import BAD_FILE
from training.run.run_folder import LOG_FILE

NUM_SAMPLES = 5  # odd: to have as many as the first, the last rank repeats the last sample, which is the broken one
LOOKED = ("--set", "run.eval_every=2", "--set", f"run.eval_samples={NUM_SAMPLES}", "--until", "2")
pytestmark = pytest.mark.slow


def by_two_ranks(manifest: Path, out: Path, *more: str) -> list[subprocess.CompletedProcess[str]]:
    """As torchrun starts them."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "jobs", *words(manifest, out, *LOOKED, *more)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [rank.communicate(timeout=300) for rank in ranks]
    return [
        subprocess.CompletedProcess(rank.args, rank.returncode, *each)
        for rank, each in zip(ranks, told, strict=True)
    ]


def spoiled(trainable: Trainable, tmp_path: Path) -> tuple[Trainable, str]:
    """The episode of the last sample that is evaluated, and the name of its files, which are cut."""
    mine = trainable.copied(tmp_path / "corpus")
    recipe = load_recipe("tiny", changes_from([*SMALL], steps=None, workers=None))
    held_out = Loader(load(mine.manifest), recipe, reader=NoTextReader(), split="val")
    last = held_out.places(Task.VISUAL_FORECASTING, NUM_SAMPLES).segment[-1:]
    (row,) = held_out.anchors.rows(held_out.anchors.segments["row"][last])
    paths = [mine.corpus / x.path for x in row.latents if x.encoder_id == ENCODER]
    for path in paths:
        spoil(path, "cut")
    return mine, paths[0].name


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_both_go_on_and_see_what_one_process_sees(
    trainable: Trainable, tmp_path: Path, how: str
) -> None:
    mine, name = spoiled(trainable, tmp_path)
    allowed = ("--set", "run.max_bad_samples=9", "--set", f"run.parallel={how}")
    train(mine.manifest, tmp_path / "one", *LOOKED, *allowed)
    ranks = by_two_ranks(mine.manifest, tmp_path / "two", *allowed)
    assert [rank.returncode for rank in ranks] == [0, 0], [rank.stderr for rank in ranks]
    one, two = (
        sorted(
            lines_of(tmp_path / run / BAD_FILE), key=lambda line: (line["place"], line["attempt"])
        )
        for run in ("one", "two")
    )
    assert one == two
    assert {line["place"] % NUM_SAMPLES for line in one} == {NUM_SAMPLES - 1}
    assert all(name in line["error"] for line in one)
    losses = [lines_of(tmp_path / run / LOG_FILE)[-1] for run in ("one", "two")]
    assert losses[0]["bad_samples"] == losses[1]["bad_samples"] == len(one)
    for key in ("val_loss", "val_averages_loss"):
        assert losses[1][key] == pytest.approx(losses[0][key], rel=1e-3)


def test_both_end_where_none_is_allowed(trainable: Trainable, tmp_path: Path) -> None:
    mine, name = spoiled(trainable, tmp_path)
    ranks = by_two_ranks(mine.manifest, tmp_path / "run")
    assert sorted(rank.returncode for rank in ranks) == [1, 2], [rank.stderr for rank in ranks]
    for rank in ranks:
        told = " ".join((rank.stdout + rank.stderr).split())
        assert "broken sample" in told
        assert name in told
    assert not (tmp_path / "run" / BAD_FILE).exists()
