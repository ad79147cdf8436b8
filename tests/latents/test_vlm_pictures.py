"""The picture of now that a step shows to a language model is the one that the video has at that timestep."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigError, SourceError
from tests.latents.corpora import all_pictures, rows_of, videos_of
from tests.training.test_conditioning import row
from training.conditioning.video_frame import frame_at, picture_of


def test_every_kind_of_place_in_a_group_of_pictures(built: Path) -> None:
    """The first of one, the last, between, and the last of all; in no order."""
    episode = rows_of(built, "episodes")[0]
    mine = dataclasses.replace(
        row(episode["uid"], ""),
        dataset_path=episode["dataset_path"],
        episode_index=episode["episode_index"],
    )
    whole = all_pictures(videos_of(built)[0])
    assert len({each.tobytes() for each in whole}) == len(whole)  # so that a neighbour is noticed
    for t in (17, 0, 9, 10, 11, 1, 40, 39):
        assert np.array_equal(picture_of(built, mine, "top_head", t), whole[t]), t
    with pytest.raises(SourceError, match=r"no frame at 4\.100 s; run `eicorpus verify") as refused:
        picture_of(built, mine, "top_head", 41)
    assert f"episode {mine.uid} [0, 9), timestep 41" in refused.value.where
    with pytest.raises(SourceError, match="eicorpus verify"):
        picture_of(built, mine, "no_camera", 0)
    with pytest.raises(SourceError, match="not a path inside the corpus"):
        picture_of(built, dataclasses.replace(mine, dataset_path="../x"), "top_head", 0)


def test_a_damaged_video_stops_with_its_name(built: Path, tmp_path: Path) -> None:
    video = tmp_path / "cut.mp4"
    video.write_bytes(videos_of(built)[0].read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"cut\.mp4"):
        frame_at(video, 3.0)


@pytest.mark.parametrize("seed", [2, 7])
def test_damage_is_said_and_not_painted_over(built: Path, tmp_path: Path, seed: int) -> None:
    """Eight bytes, of which a decoder that is left to itself makes another picture without a word."""
    data = bytearray(videos_of(built)[0].read_bytes())
    for at in np.random.default_rng(seed).integers(len(data) // 4, 3 * len(data) // 4, 8):
        data[at] ^= 0x55
    video = tmp_path / "damaged.mp4"
    video.write_bytes(data)
    assert np.array_equal(frame_at(video, 0.9), all_pictures(videos_of(built)[0])[9])
    for at_s in (1.9, 2.9, 3.9):
        with pytest.raises(ConfigError, match=r"damaged\.mp4.*eicorpus verify"):
            frame_at(video, at_s)
