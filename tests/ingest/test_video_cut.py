"""Parts of a canonical video: the right pictures, whichever way they were written; and several videos joined without decoding."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import pytest

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from ingest.video.cut import CutBy, cut_video
from ingest.video.join import VideoPart, join_videos
from schemas.episode import Camera, EncodedImages
from schemas.errors import SourceError
from schemas.rate import instants_ns
from tests.ingest.video_files import number_of, numbered, write_numbered

RATE_HZ = Fraction(10)


def canonical(path: Path, count: int, *, first: int = 0, width: int = 96, gop: int = 10) -> Path:
    """A video as a corpus has it, whose picture k shows first + k."""
    import cv2

    images = tuple(
        cv2.imencode(".png", numbered(first + k, width, 64))[1].tobytes() for k in range(count)
    )
    camera = Camera(
        name="front", frames=EncodedImages(images=images), t_ns=instants_ns(count, RATE_HZ)
    )
    clock_ns = frame_clock(camera)
    write_video(camera, clock_ns, clock_ns, path, VideoSettings(gop=gop), rate_hz=RATE_HZ)
    return path


def shown(path: Path) -> list[int]:
    """The numbers, in the order of their times, which must be k / rate from 0 on."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [float(f.pts * f.time_base) for f in frames] == pytest.approx(
        [k / 10 for k in range(len(frames))]
    )
    return [number_of(frame.to_ndarray(format="rgb24")) for frame in frames]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return canonical(tmp_path_factory.mktemp("video") / "v.mp4", 37)


@pytest.mark.parametrize(
    ("first", "count", "how"),
    [
        (0, 37, CutBy.FILE),
        (10, 10, CutBy.PACKETS),
        (20, 17, CutBy.PACKETS),
        (0, 10, CutBy.PACKETS),
        (3, 12, CutBy.ENCODED),
        (36, 1, CutBy.ENCODED),
    ],
)
def test_a_part_has_its_pictures(
    first: int, count: int, how: CutBy, video: Path, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(video.read_bytes()).hexdigest()
    out = tmp_path / "out.mp4"
    assert cut_video(video, first, count, 37, out, rate_hz=RATE_HZ, sha256=sha256) is how
    assert shown(out) == list(range(first, first + count))


def test_a_whole_video_is_checked_on_the_way(video: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not the file that was committed"):
        cut_video(video, 0, 37, 37, tmp_path / "out.mp4", rate_hz=RATE_HZ, sha256="0" * 64)


def test_videos_are_joined_without_decoding(video: Path, tmp_path: Path) -> None:
    other = canonical(tmp_path / "other.mp4", 24, first=100)
    parts = [(video, 0, 37), (other, 5, 3), (video, 29, 4), (other, 20, 4), (video, 36, 1)]
    joined = join_videos(
        [VideoPart(file=path, first=first, num_pictures=n) for path, first, n in parts],
        tmp_path,
        "joined",
        rate_hz=RATE_HZ,
    )
    numbers = shown(tmp_path / "joined-0.mp4")
    for (path, first, count), each in zip(parts, joined, strict=True):
        base = first + (100 if path == other else 0)
        assert each.part == 0
        assert numbers[each.first : each.first + count] == list(range(base, base + count))
    # Whole groups: 37, 0-9, 20-36, 20-23, 30-36.
    assert len(numbers) == 37 + 10 + 17 + 4 + 7
    assert sum(each.num_extra for each in joined) == len(numbers) - (37 + 3 + 4 + 4 + 1)


def test_another_size_begins_another_video(video: Path, tmp_path: Path) -> None:
    wide = canonical(tmp_path / "wide.mp4", 12, first=200, width=192)
    joined = join_videos(
        [VideoPart(file=path, first=0, num_pictures=12) for path in (video, wide, video)],
        tmp_path,
        "joined",
        rate_hz=RATE_HZ,
    )
    assert [each.part for each in joined] == [0, 1, 2]
    assert shown(tmp_path / "joined-1.mp4") == list(range(200, 212))


@pytest.mark.parametrize(
    ("codec", "told"),
    [("hevc_open_gop", "not H.264"), ("h264_open_gop", "no IDR picture")],
)
def test_what_cannot_be_joined_is_refused(codec: str, told: str, tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "v", 40, codec, rate=RATE_HZ)
    part = VideoPart(file=path, first=0, num_pictures=40)
    with pytest.raises(SourceError, match=told):
        join_videos([part], tmp_path, "joined", rate_hz=RATE_HZ)


def test_a_part_beyond_the_end_is_refused(video: Path, tmp_path: Path) -> None:
    part = VideoPart(file=video, first=30, num_pictures=10)
    with pytest.raises(SourceError, match="not all there"):
        join_videos([part], tmp_path, "joined", rate_hz=RATE_HZ)
