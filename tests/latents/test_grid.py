"""The pictures of the grid are those that decoding everything gives, and none but those."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ingest.video import timestep_pictures
from ingest.video.timestep_pictures import pictures_at
from schemas.errors import Code, SourceError
from tests.curation.video_corpus import encode, texture
from tests.ingest.verify_corpus import remux
from tests.latents.corpora import all_pictures, videos_of


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 10, 11])
def test_every_picture_of_the_grid_and_only_those(built: Path, stride: int) -> None:
    path = videos_of(built)[0]
    every = all_pictures(path)
    assert len(every) == 41
    found = np.stack(list(pictures_at(path, range(0, 41, stride), 10.0)))
    assert np.array_equal(found, every[::stride])


def test_neighbours_differ_so_that_a_grid_off_by_one_would_show(built: Path) -> None:
    every = all_pictures(videos_of(built)[0])
    assert all((a != b).any() for a, b in pairwise(every))


@pytest.mark.parametrize("first", [3, 9, 10, 12, 27, 39])
def test_a_piece_may_begin_in_any_group(built: Path, first: int) -> None:
    path = videos_of(built)[0]
    found = list(pictures_at(path, range(first, 41, 3), 10.0))
    assert np.array_equal(np.stack(found), all_pictures(path)[first::3])


def test_what_nothing_refers_to_is_not_decoded(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    needed = timestep_pictures._needed

    def counted(*given: object) -> object:
        for packet in needed(*given):  # type: ignore[arg-type]
            sent.append(packet.pts)
            yield packet

    monkeypatch.setattr(timestep_pictures, "_needed", counted)
    path = videos_of(built)[0]
    assert len(list(pictures_at(path, range(0, 41, 3), 10.0))) == 14
    assert 14 <= len(sent) < 36  # of 41


def test_a_picture_that_is_not_there_is_an_error(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    path.write_bytes(videos_of(built)[0].read_bytes())
    remux(path, keep=20)  # one group more than half
    assert len(list(pictures_at(path, range(0, 20, 3), 10.0))) == 7
    with pytest.raises(SourceError) as caught:
        list(pictures_at(path, range(0, 41, 3), 10.0))
    assert caught.value.code in (Code.FRAME_COUNT, Code.TRUNCATED)


def test_another_clock_is_an_error(built: Path) -> None:
    with pytest.raises(SourceError) as caught:
        list(pictures_at(videos_of(built)[0], range(0, 41, 3), 9.0))
    assert caught.value.code is Code.FRAME_COUNT


def test_open_groups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.curation.video_corpus.X264",
        {"crf": "23", "g": "10", "bf": "3", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"},
    )
    path = encode(tmp_path / "open.mp4", [texture(k, width=64, height=48) for k in range(32)])
    with pytest.raises(SourceError, match="open group"):
        list(pictures_at(path, range(0, 32, 3), 10.0))


def test_damage_is_said_and_not_painted_over(built: Path, tmp_path: Path) -> None:
    data = bytearray(videos_of(built)[0].read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = bytes(400)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(SourceError):
        list(pictures_at(path, range(0, 41, 3), 10.0))
