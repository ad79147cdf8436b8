"""The strip of latents over REST: means, colours and changes against another computation; a file that cannot be read is said in its place."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.latents.token_file import read_latents, read_mean_patches
from ingest.stored_episode import StoredEpisode
from jobs.cli import app
from jobs.service import api_latents
from jobs.service.api_latents import change_of, colours_of
from tests.curation import dedup_cases
from tests.curation.lifecycle_corpus import uids
from tests.generators.corpus import uid_of
from tests.service.corpora import client_of

ENCODER = "patch_dct"


@pytest.fixture(scope="module")
def encoded(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes with latents of an encoder that needs no weights."""
    return encoded_in(Path(shutil.copytree(toy, tmp_path_factory.mktemp("encoded") / "corpus")), 0)


def encoded_in(corpus: Path, pack_mb: int) -> Path:
    words = ["latents", "images", str(corpus), "--encoder", ENCODER, "--pack-mb", str(pack_mb)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return corpus


def strip_of(client: TestClient, uid: str) -> Any:
    """The strip of our encoder; the corpus has made-up latents of another one too."""
    answer = client.get(f"/api/v1/episodes/{uid}/latents")
    assert answer.status_code == 200
    (strip,) = [s for s in answer.json()["strips"] if s["encoder_id"].startswith(ENCODER)]
    return strip


def files_of(corpus: Path) -> list[Path]:
    return sorted(corpus.rglob("*.safetensors"))


def test_a_strip_is_the_mean_of_the_patches_of_each_picture(encoded: Path, tmp_path: Path) -> None:
    uid = uids(encoded)["a"]
    strip = strip_of(client_of(encoded, tmp_path), uid)
    with Catalog.open(encoded) as catalog:
        stored = StoredEpisode.read(catalog, uid).latents("front", strip["encoder_id"])
    colours, explained = colours_of(stored.patches.mean(axis=(1, 2)).astype(np.float64))
    assert np.abs(np.array(strip["colours"]) - colours).max() <= 1
    assert strip["explained"] == pytest.approx(explained.tolist(), abs=1e-3)
    assert (strip["camera"], strip["problem"]) == ("front", "")
    assert strip["timesteps"] == stored.frame_index.tolist()
    assert len(strip["colours"]) == len(strip["change"]) == len(strip["timesteps"]) > 2
    assert strip["change"][0] == 0


def test_means_are_those_of_the_whole_file(encoded: Path) -> None:
    for path in files_of(encoded):
        stored = read_latents(path)
        expected = stored.patches.mean(axis=(1, 2))
        means, timesteps = read_mean_patches(path, 1000)
        assert np.allclose(means, expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(timesteps, stored.frame_index)
        few, at = read_mean_patches(path, 3)
        assert [at[0], at[-1], len(at)] == [timesteps[0], timesteps[-1], 3]
        assert np.array_equal(few, means[np.isin(timesteps, at)])


def test_colours_are_principal_components() -> None:
    rng = np.random.default_rng(14)
    vectors = rng.normal(size=(40, 12)) * np.array([9.0, 5.0, 3.0, *[0.1] * 9]) + 100
    colours, explained = colours_of(vectors)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    for place in range(3):
        axis = axes[:, -1 - place]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        scores = (vectors - vectors.mean(axis=0)) @ axis
        assert np.corrcoef(colours[:, place], scores)[0, 1] > 0.99
        assert explained[place] == pytest.approx(values[-1 - place] / values.sum(), abs=1e-4)
    assert (colours.min() >= 0, colours.max() <= 255) == (True, True)
    assert 0 in colours[:, 0] or 255 in colours[:, 0]
    assert np.ptp(colours[:, 0]) > np.ptp(colours[:, 2])  # by one factor


def test_change_is_a_cosine_distance() -> None:
    vectors = np.array([[1.0, 0], [2, 0], [0, 3], [0, -1], [0, 0], [1, 1]])
    assert change_of(vectors) == pytest.approx([0, 0, 1, 2, 0, 0])


@pytest.mark.parametrize(
    "vectors", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((5, 4)), np.full((5, 4), np.nan)]
)
def test_what_has_no_components_is_grey(vectors: Any) -> None:
    colours, explained = colours_of(vectors)
    assert colours.shape == (len(vectors), 3)
    assert set(colours.flatten().tolist()) <= {128}
    assert explained.tolist() == [0, 0, 0]


def test_a_file_that_cannot_be_read_is_said_in_its_place(encoded: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(encoded, tmp_path / "corpus"))
    client = client_of(corpus, tmp_path / "state")
    uid = uids(corpus)["a"]
    before = strip_of(client, uid)
    kept = {path: path.read_bytes() for path in files_of(corpus)}
    for path in kept:
        path.write_bytes(b"no latents")
    damaged = strip_of(client, uid)
    assert "safetensors" in damaged["problem"]
    for path in kept:
        path.unlink()
    missing = strip_of(client, uid)
    assert missing["problem"] == "the file is missing"
    assert (missing["timesteps"], missing["colours"]) == ([], [])
    for path, content in kept.items():
        path.write_bytes(content)
    assert strip_of(client, uid) == before


def test_a_strip_of_a_pack_is_that_of_a_file(toy: Path, encoded: Path, tmp_path: Path) -> None:
    corpus = encoded_in(Path(shutil.copytree(toy, tmp_path / "packed")), 256)
    [pack] = corpus.rglob("*.tar")
    uid, client = uids(corpus)["a"], client_of(corpus, tmp_path / "state")
    assert strip_of(client, uid) == strip_of(
        client_of(encoded, tmp_path / "other"), uids(encoded)["a"]
    )
    pack.write_bytes(b"no latents")
    assert "a pack of 10 bytes" in strip_of(client, uid)["problem"]


def test_files_that_were_never_there_are_named(tmp_path: Path) -> None:
    client = client_of(dedup_cases.corpus(tmp_path / "corpus", [1]), tmp_path / "state")
    strips = client.get(f"/api/v1/episodes/{uid_of(0)}/latents").json()["strips"]
    assert [bool(strip["problem"]) for strip in strips] == [True] * len(strips) != []
    assert client.get("/api/v1/episodes/none/latents").status_code == 404


def test_few_are_read_at_a_time(
    encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_latents, "_reading", threading.BoundedSemaphore(1))
    api_latents._reading.acquire()
    client = client_of(encoded, tmp_path)
    answer = client.get(f"/api/v1/episodes/{uids(encoded)['a']}/latents")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
