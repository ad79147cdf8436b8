"""`eicorpus train s3://...`: moto's S3 on loopback. Latents stay in the bucket and are read through the cache of the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.s3_server import BUCKET
from tests.training.corpus import ENCODER, Trainable
from training.run.checkpoint import WEIGHTS, checkpoint_of

pytestmark = pytest.mark.slow

Eicorpus = Callable[..., Any]
KEYS = ("data.encoder=tiny_vit", "data.cameras=[front]", "run.batch_size=8", "run.num_steps=4")
SETTINGS = tuple(word for key in KEYS for word in ("--set", key))


@pytest.fixture
def eicorpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Eicorpus:
    def run(*words: object, machine: str = "one") -> Any:
        monkeypatch.setenv("EICORPUS_CACHE", str(tmp_path / machine))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        command = [sys.executable, "-m", "jobs", *map(str, words), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["result"]

    return run


def weights_of(run: Path) -> bytes:
    return (checkpoint_of(run).folder / WEIGHTS).read_bytes()


def pictures_in(machine: Path) -> list[Path]:
    return list(machine.glob(f"corpora/**/{ENCODER}/**/*.safetensors"))


def test_a_run_from_a_bucket_is_the_run_from_the_folder(
    s3_server: str, eicorpus: Eicorpus, trainable: Trainable, tmp_path: Path
) -> None:
    uri = f"s3://{BUCKET}/training"
    copy = trainable.copied(tmp_path / "corpus")
    assert eicorpus("push", copy.corpus, uri, "--allow-licence", "unknown")["pushed"]
    manifest = f"{uri}/{copy.manifest.relative_to(copy.corpus)}"
    words = ("train", "--recipe", "tiny", *SETTINGS)
    plan = eicorpus(*words, manifest, "--out", tmp_path / "plan", "--dry-run")["latents"]
    assert (plan["pictures_per_sample"], plan["picture_bytes"]) == (3, 7 * 8 * 2)
    assert plan["bytes_per_step"] == 8 * 3 * 7 * 8 * 2
    assert plan["pictures_per_s"] > 0
    eicorpus(*words, copy.manifest, "--out", tmp_path / "local")
    eicorpus(*words, manifest, "--out", tmp_path / "bucket", "--until", 2, machine="two")
    assert list((tmp_path / "two/latents").glob("blocks-*"))
    assert not pictures_in(tmp_path / "two")
    assert not list((tmp_path / "two").glob("corpora/**/*.mp4"))
    small = ("--set", "data.latent_cache={max_gb: 0.05, ahead_steps: 0}")
    eicorpus(*words, manifest, "--out", tmp_path / "bucket", *small, machine="two")
    assert weights_of(tmp_path / "bucket") == weights_of(tmp_path / "local")
    evaluated = eicorpus("eval", tmp_path / "bucket", "--max-samples", 4, machine="two")
    assert evaluated["num_samples"]
    valued = eicorpus("train-value", tmp_path / "bucket", "--steps", 2, machine="two")
    assert valued["counts"]["samples"]
    assert not pictures_in(tmp_path / "two")
