"""One episode as arrays: every array equals what an independent reader reads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import data_file
from ingest.latents.token_file import _E4M3FN, read_latents
from ingest.storage.rooted import OutsideCorpus
from ingest.stored_episode import StoredEpisode
from schemas.errors import ConfigError
from schemas.latents import LATENTS, SCALE
from tests.training.corpus import (
    ENCODER,
    GRID_STRIDE,
    NUM_PREFIX,
    OTHER_ENCODER,
    Trainable,
    segments_of,
    text_of,
    tokens_of,
    write_latents,
)


@pytest.fixture(scope="module")
def episode(trainable: Trainable) -> StoredEpisode:
    with Catalog.open(trainable.corpus) as catalog:
        return StoredEpisode.read(catalog, trainable.uids[2])


def test_rows_are_those_of_the_file(trainable: Trainable, episode: StoredEpisode) -> None:
    dataset = trainable.corpus / episode.row["dataset_path"]
    table = pq.read_table(dataset / data_file(episode.row["episode_index"]))
    for feature in ("observation.state", "action"):
        assert np.array_equal(episode.values(feature), table[feature].to_pylist())
    assert episode.state.dtype == np.float32
    names = episode.features["observation.state"]
    at = [index for index, name in enumerate(names) if name.startswith("left.rot6d_cols.")]
    assert len(at) == 6
    part = episode.values("observation.state", "left.rot6d_cols")
    assert np.array_equal(part, episode.state[:, at])
    valid = np.array(table["action.valid"].to_pylist())
    column = episode.features["action.valid"].index("left.position_m")
    assert np.array_equal(episode.valid("action", "left.position_m"), valid[:, column])


def test_pictures_are_those_of_the_video(episode: StoredEpisode) -> None:
    with av.open(str(episode.view.videos["front"])) as video:
        whole = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(whole) == episode.length
    assert all(map(np.array_equal, episode.iter_frames("front"), whole))
    assert list(episode.iter_frames("front", [])) == []
    # in the order asked for, some twice
    asked = [11, 0, episode.length - 1, 11]
    assert np.array_equal(episode.frames("front", asked), [whole[k] for k in asked])
    assert episode.frames("front", []).shape == (0, *whole[0].shape)
    assert np.array_equal(episode.frames("front", 3), whole[3:4])
    assert np.array_equal(episode.frames("front", at_s=3 / episode.rate_hz), whole[3:4])


def test_a_time_in_seconds_is_the_picture_that_is_shown_then(episode: StoredEpisode) -> None:
    at_s = [0.3, 1.2 - 0.9, 0.0, 0.399, (episode.length - 1) / 10]
    expected = episode.frames("front", [3, 3, 0, 3, episode.length - 1])
    assert np.array_equal(episode.frames("front", at_s=at_s), expected)


def test_a_table_has_a_row_a_timestep_and_a_column_an_element(
    trainable: Trainable, episode: StoredEpisode
) -> None:
    frame = episode.table()
    stored = pq.read_table(
        trainable.corpus / episode.row["dataset_path"] / data_file(episode.row["episode_index"])
    )
    assert np.array_equal(frame["timestep"], stored["frame_index"])
    assert np.allclose(frame["time_s"], stored["timestamp"])
    assert frame["task"].to_list() == [text_of(2)] * episode.length
    assert frame["tier"].to_list() == ["high"] * episode.length
    for feature, prefix in (
        ("observation.state", "state"),
        ("action", "action"),
        ("observation.valid", "valid"),
        ("action.valid", "action.valid"),
    ):
        names = [f"{prefix}.{name}" for name in episode.features[feature]]
        assert np.array_equal(frame.select(names), stored[feature].to_pylist())
    assert frame["valid.left.position_m"].dtype == pl.Boolean
    assert frame["state.left.position_m.x"].dtype == pl.Float32


def test_tables_of_an_episode_are_its_rows(trainable: Trainable) -> None:
    with Catalog.open(trainable.corpus) as catalog:
        read = StoredEpisode.read(catalog, trainable.uids[0])
    assert read.tiers.select("start", "end", "tier").rows() == segments_of(0)
    assert read.segments.filter(pl.col("kind") == "task")["text"].to_list() == [text_of(0)]
    stored = snapshot.load(trainable.corpus).read(trainable.corpus, "measurements").to_pylist()
    own = [row for row in stored if row["uid"] == trainable.uids[0]]
    assert sorted(read.measurements["name"]) == sorted(row["name"] for row in own)
    assert own
    assert read.captions.height == 0
    assert read.table()["tier"].to_list() == ["high"] * 20 + ["low"] * (read.length - 20)


def test_end_effectors_are_where_they_were(episode: StoredEpisode) -> None:
    T = episode.eef_poses("left")
    assert T is not None
    assert np.array_equal(T[:, :3, 3], episode.values("observation.state", "left.position_m"))
    assert np.allclose(T[:, :3, :3] @ T[:, :3, :3].transpose(0, 2, 1), np.eye(3), atol=1e-6)
    assert episode.eef_poses("right") is None
    assert episode.hand_points_m("left") is None
    assert episode.camera_poses("front") is None


def test_latents_are_those_that_were_stored(episode: StoredEpisode) -> None:
    for encoder_id in (ENCODER, OTHER_ENCODER):
        found = episode.latents("front", encoder_id)
        truth = tokens_of(2, "front", encoder_id)[: episode.length : GRID_STRIDE]
        exact = torch.from_numpy(truth).to(torch.bfloat16).float().numpy()
        assert np.array_equal(found.tokens, exact)
        assert found.frame_index.tolist() == list(range(0, episode.length, GRID_STRIDE))
        assert np.array_equal(found.patches[1, 0, 0], exact[1, NUM_PREFIX])


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "int8"])
def test_every_storage_is_read_as_torch_reads_it(
    trainable: Trainable, tmp_path: Path, dtype: Any
) -> None:
    row = next(iter(snapshot.load(trainable.corpus).read(trainable.corpus, "episodes").to_pylist()))
    said = write_latents(tmp_path, row, "front", dtype=dtype)
    path = tmp_path / said["path"]
    with safe_open(str(path), "pt") as file:
        tokens = file.get_tensor(LATENTS).float()
        if dtype != "bf16":
            tokens = tokens * file.get_tensor(SCALE)[..., None]
    assert np.array_equal(read_latents(path).tokens, tokens.numpy())


def test_all_numbers_of_eight_bits_are_those_of_torch() -> None:
    truth = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(_E4M3FN, truth, equal_nan=True)


def test_latents_are_read_without_torch(trainable: Trainable) -> None:
    code = (
        "import sys; from pathlib import Path; from ingest.latents.token_file import read_latents;"
        "print(read_latents(Path(sys.argv[1])).tokens.shape); assert 'torch' not in sys.modules"
    )
    path = next(trainable.corpus.rglob("*.safetensors"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("(")


def test_a_damaged_file_of_latents_is_refused(trainable: Trainable, tmp_path: Path) -> None:
    data = next(trainable.corpus.rglob("*.safetensors")).read_bytes()
    (tmp_path / "cut").write_bytes(data[:-1])
    with pytest.raises(ConfigError, match="the header states"):
        read_latents(tmp_path / "cut")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda e: e.values("observation.nope"),
            "no feature 'observation.nope'; expected one of .*action",
        ),
        (lambda e: e.values("action", "right.position_m"), "no slice 'right.position_m'"),
        (lambda e: e.frames("rear", [0]), "no camera 'rear'; expected one of front, wrist"),
        (lambda e: e.iter_frames("front", [3, 3]), "must increase"),
        (lambda e: e.frames("front", [-1, 3]), r"lie in \[0, "),
        (lambda e: e.frames("front", [10_000]), r"lie in \[0, "),
        (lambda e: e.frames("front", at_s=[-0.05]), r"lie in \[0, "),
        (lambda e: e.frames("front", at_s=[e.length / 10]), r"lie in \[0, "),
        (lambda e: e.frames("front", at_s=[float("nan")]), "not finite"),
        (lambda e: e.frames("front", [0.5]), "timesteps of type float64"),
        (lambda e: e.frames("front"), "pass timesteps, or at_s"),
        (lambda e: e.frames("front", [1], at_s=[0.1]), "pass timesteps, or at_s"),
        (lambda e: e.latents("front"), "several encoders; pass encoder_id: one of"),
        (
            lambda e: e.latents("front", "nope"),
            "no latents of camera 'front' from nope; available: ",
        ),
    ],
)
def test_a_wrong_name_says_what_there_is(episode: StoredEpisode, wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong(episode)


def test_an_unknown_episode_is_refused(trainable: Trainable) -> None:
    with (
        Catalog.open(trainable.corpus) as catalog,
        pytest.raises(ConfigError, match="no episode 'x'"),
    ):
        StoredEpisode.read(catalog, "x")


def test_the_newest_latents_of_an_encoder_count(episode: StoredEpisode) -> None:
    newest = episode.latent_rows[-1]
    camera, encoder_id = newest["camera"], newest["encoder_id"]
    older = dict(newest) | {"path": "datasets/of/before.safetensors"}
    twice = replace(episode, latent_rows=[older, newest])
    expected = episode.latents(camera, encoder_id).tokens
    np.testing.assert_array_equal(twice.latents(camera, encoder_id).tokens, expected)


def test_a_path_that_leaves_the_corpus_is_refused(
    trainable: Trainable, episode: StoredEpisode
) -> None:
    row = dict(episode.latent_rows[0]) | {"path": "../../etc/passwd", "encoder_id": "out"}
    spoilt = replace(episode, latent_rows=[row])
    with pytest.raises(OutsideCorpus):
        spoilt.latents(row["camera"])
