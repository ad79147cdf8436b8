"""Contact sheets: which frames, what is on them, and that they are the same bytes every time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from ingest.curation.captions.sheet import (
    SheetPlan,
    digest_of,
    pictures_of,
    segment_sheet,
    segment_sheets,
    sheet_of,
    timesteps_of,
)
from schemas.errors import Code, SourceError
from tests.ingest.video_files import number_of, write_numbered

PLAN = SheetPlan()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 1, [0]),
        (5, 8, [5, 6, 7]),
        (10, 20, [10, 13, 16, 19]),  # at least four
        (0, 31, [0, 5, 10, 15, 20, 25, 30]),  # two a second: ceil(6.2) = 7
    ],
)
def test_first_and_last_are_always_there(start: int, end: int, expected: list[int]) -> None:
    assert timesteps_of(start, end, 10.0, PLAN) == expected


def test_never_more_frames_than_allowed() -> None:
    chosen = timesteps_of(100, 10_100, 10.0, PLAN)
    assert (len(chosen), chosen[0], chosen[-1]) == (120, 100, 10_099)
    assert len(timesteps_of(100, 10_100, 10.0, SheetPlan(max_sheets=1))) == 24


def test_tiles_are_in_reading_order_with_their_times() -> None:
    levels = [30 * k for k in range(1, 8)]
    pictures = [np.full((30, 60, 3), level, np.uint8) for level in levels]
    times = [0.5 * k for k in range(7)]
    sheet = sheet_of(pictures, times, SheetPlan(tile_px=120, columns=3))
    whole = cv2.imdecode(np.frombuffer(sheet.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert whole is not None
    assert whole.shape == (3 * 60, 3 * 120, 3)
    for k, level in enumerate(levels):
        tile = whole[k // 3 * 60 : k // 3 * 60 + 60, k % 3 * 120 : k % 3 * 120 + 120]
        assert abs(float(tile[30:50, 40:110].mean()) - level) < 2
        assert tile[-1, -1].max() < level / 2 + 10  # a gap to the next
        assert tile[:20, :40].max() > 230  # the time, in white on black
    assert whole[120:, 120:].max() < 16  # nothing where no picture is
    assert sheet.times_s == tuple(times)
    assert sheet == sheet_of(pictures, times, SheetPlan(tile_px=120, columns=3))
    assert sheet.sha256 != sheet_of(pictures, [t + 1 for t in times], PLAN).sha256
    assert sheet.sha256 != sheet_of(pictures[::-1], times, PLAN).sha256


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_numbered(tmp_path / "v.mp4", 60, rate=Fraction(10))


def test_the_pictures_are_those_of_the_timesteps(video: Path) -> None:
    found = pictures_of(video, [0, 7, 31, 59], 10.0)
    assert [number_of(picture) for picture in found] == [0, 7, 31, 59]


def test_a_segment_is_shown_with_times_from_its_own_start(video: Path) -> None:
    sheet, pictures = segment_sheet(video, 20, 50, 10.0, PLAN)
    assert [number_of(picture) for picture in pictures] == [20, 26, 32, 37, 43, 49]
    assert sheet.times_s == (0.0, 0.6, 1.2, 1.7, 2.3, 2.9)


def test_what_is_too_long_for_one_sheet_goes_on_several(video: Path) -> None:
    plan = SheetPlan(max_frames=5, max_sheets=3)
    sheets, pictures = segment_sheets(video, 0, 60, 10.0, plan)
    assert [number_of(picture) for picture in pictures] == [
        0,
        5,
        11,
        16,
        21,
        27,
        32,
        38,
        43,
        48,
        54,
        59,
    ]
    assert [len(sheet.times_s) for sheet in sheets] == [4, 4, 4]
    assert sheets[1] == sheet_of(pictures[4:8], [2.1, 2.7, 3.2, 3.8], plan)  # times of the whole
    assert digest_of(sheets[:1]) == sheets[0].sha256 != digest_of(sheets)
    assert digest_of(sheets) != digest_of(sheets[::-1])
    assert digest_of([]) == ""
    one, shown = segment_sheet(video, 0, 60, 10.0, plan)
    assert (len(one.times_s), len(shown)) == (5, 5)


def test_a_video_that_is_not_there_or_too_short_says_so(video: Path) -> None:
    with pytest.raises(SourceError) as caught:
        pictures_of(video, [59, 60], 10.0)
    assert caught.value.code is Code.CORRUPT_VIDEO
    video.write_bytes(video.read_bytes()[:2000])
    with pytest.raises(SourceError):
        pictures_of(video, [0, 59], 10.0)
    video.unlink()
    with pytest.raises(SourceError):
        pictures_of(video, [0], 10.0)
