"""One episode as arrays: docs/how-to/python.md is executed, and every array equals what an independent reader finds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from ingest.corpus import snapshot
from ingest.corpus.layout import data_file
from ingest.latents.token_file import _E4M3FN, read_latents
from ingest.storage.rooted import OutsideCorpus
from ingest.stored_episode import StoredCorpus, StoredEpisode
from schemas.errors import ConfigError
from schemas.latents import LATENTS, SCALE
from tests.training.corpus import (
    ENCODER,
    GRID_HEIGHT,
    GRID_STRIDE,
    GRID_WIDTH,
    NUM_PREFIX,
    OTHER_ENCODER,
    WIDTH,
    Trainable,
    tokens_of,
    write_latents,
)

PAGE = Path(__file__).parents[2] / "docs/how-to/python.md"


@pytest.fixture(scope="module")
def episode(trainable: Trainable) -> StoredEpisode:
    with StoredCorpus.open(trainable.corpus) as corpus:
        return corpus.episode(trainable.uids[2])


def test_the_page_s_code_runs(trainable: Trainable) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    code = "".join(blocks).replace('"CORPUS"', repr(str(trainable.corpus)))
    code = code.replace('"ENCODER"', repr(ENCODER))
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["position_m"].shape == (found["episode"].length, 3)
    assert found["believed"].dtype == bool
    assert found["patches"].shape[1:] == (GRID_HEIGHT, GRID_WIDTH, WIDTH)


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
    assert all(map(np.array_equal, episode.frames("front"), whole))
    some = list(episode.frames("front", [0, 11, episode.length - 1]))
    assert [np.array_equal(a, whole[k]) for a, k in zip(some, (0, 11, -1), strict=True)] == [
        True
    ] * 3
    assert list(episode.frames("front", [])) == []


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
        (lambda e: e.frames("rear"), "no camera 'rear'; expected one of front, wrist"),
        (lambda e: e.frames("front", [3, 3]), "must increase"),
        (lambda e: e.frames("front", [-1, 3]), r"lie in \[0, "),
        (lambda e: e.frames("front", [10_000]), r"lie in \[0, "),
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
        StoredCorpus.open(trainable.corpus) as corpus,
        pytest.raises(ConfigError, match="no episode 'x'"),
    ):
        corpus.episode("x")


def test_the_newest_latents_of_an_encoder_count(episode: StoredEpisode) -> None:
    newest = episode.latent_rows[-1]
    camera, encoder_id = newest["camera"], newest["encoder_id"]
    older = dict(newest) | {"path": "datasets/of/before.safetensors"}
    twice = StoredEpisode(
        corpus=episode.corpus, row=episode.row, latent_rows=[older, newest], view=episode.view
    )
    expected = episode.latents(camera, encoder_id).tokens
    np.testing.assert_array_equal(twice.latents(camera, encoder_id).tokens, expected)


def test_a_path_that_leaves_the_corpus_is_refused(
    trainable: Trainable, episode: StoredEpisode
) -> None:
    row = dict(episode.latent_rows[0]) | {"path": "../../etc/passwd", "encoder_id": "out"}
    spoilt = StoredEpisode(
        corpus=episode.corpus, row=episode.row, latent_rows=[row], view=episode.view
    )
    with pytest.raises(OutsideCorpus):
        spoilt.latents(row["camera"])
