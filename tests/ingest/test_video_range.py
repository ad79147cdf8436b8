"""A video inside another file (a tar shard) is read in place, and reads exactly as it would alone."""

from __future__ import annotations

import errno
from fractions import Fraction
from pathlib import Path

import pytest

from adapters.containers.raw_file import RangeReader, read_range
from ingest.recipe import VideoSettings
from ingest.video import source
from ingest.video.camera_video import frame_clock, write_video
from schemas.episode import Camera, VideoSpan, VideoWindow
from schemas.errors import Code, SourceError, TransientError
from schemas.rate import instants_ns
from tests.ingest.video_files import number_of, numbered, read_back, write_numbered, write_source


def embed(path: Path, cut: int = 0) -> tuple[Path, tuple[int, int]]:
    """The file between two others, as in a shard; `cut` bytes of its end are missing."""
    data = path.read_bytes()
    data = data[: len(data) - cut]
    out = path.with_name("shard.tar")
    out.write_bytes(b"\x07" * 1536 + data + path.read_bytes() + b"\x09" * 700)
    return out, (1536, 1536 + len(data))


@pytest.mark.parametrize("name", ["h264_b", "h264_open_gop", "hevc_open_gop", "vp9"])
def test_a_part_reads_as_the_whole(tmp_path: Path, name: str) -> None:
    alone = write_numbered(tmp_path / "in", 40, name)
    shard, byte_range = embed(alone)
    grid, outs = instants_ns(5, Fraction(10)), []
    for path, part in ((alone, None), (shard, byte_range)):
        for frames in (
            VideoWindow(path=str(path), start_s=0.5, end_s=1.1, byte_range=part),
            VideoSpan(path=str(path), first_frame=15, num_frames=18, byte_range=part),
        ):
            clock = None if isinstance(frames, VideoWindow) else instants_ns(18, Fraction(30))
            camera = Camera(name="ego", frames=frames, t_ns=clock)
            out = tmp_path / f"{len(outs)}.mp4"
            facts = write_video(camera, frame_clock(camera), grid, out, VideoSettings())
            assert [number_of(p) for p in read_back(out)[0]] == [15, 18, 21, 24, 27]
            outs.append(facts.sha256)
    assert len(set(outs)) == 1


def test_packets_of_a_part_are_copied_too(tmp_path: Path) -> None:
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    alone = write_source(
        tmp_path / "in.mp4", map(numbered, range(20)), rate=Fraction(10), options=options
    )
    shard, byte_range = embed(alone)
    frames = VideoWindow(path=str(shard), start_s=0.0, end_s=2.0, byte_range=byte_range)
    camera, out = Camera(name="ego", frames=frames), tmp_path / "out.mp4"
    facts = write_video(
        camera, frame_clock(camera), instants_ns(20, Fraction(10)), out, VideoSettings()
    )
    assert facts.was_copied
    assert [number_of(p) for p in read_back(out)[0]] == list(range(20))


def test_decoding_again_from_the_start_stays_within_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `decoded` does when entering in the middle trips the decoder."""
    shard, byte_range = embed(write_numbered(tmp_path / "in", 40))
    frames = VideoWindow(path=str(shard), start_s=0.5, end_s=1.1, byte_range=byte_range)
    camera, out = Camera(name="ego", frames=frames), tmp_path / "out.mp4"
    clock = frame_clock(camera)

    entered, tried = source._packets_from, []

    def trip(*where: object) -> object:
        tried.append(where)
        if len(tried) == 2:  # without and with the packets that nothing needs
            monkeypatch.setattr(source, "_packets_from", entered)
        raise SourceError(Code.CORRUPT_VIDEO, "a reference that is not there")

    monkeypatch.setattr(source, "_packets_from", trip)
    write_video(camera, clock, instants_ns(5, Fraction(10)), out, VideoSettings())
    assert len(tried) == 2
    assert [number_of(p) for p in read_back(out)[0]] == [15, 18, 21, 24, 27]


@pytest.mark.parametrize("name", ["h264_b", "vp9"])
def test_a_part_that_was_cut_is_truncated_though_more_bytes_follow(
    tmp_path: Path, name: str
) -> None:
    """The bytes behind the part are another video: nothing of it may be read."""
    shard, byte_range = embed(write_numbered(tmp_path / "in", 40, name), cut=600)
    frames = VideoWindow(path=str(shard), start_s=0.0, end_s=9.0, byte_range=byte_range)
    with pytest.raises(SourceError) as caught:
        frame_clock(Camera(name="ego", frames=frames))
    assert caught.value.code is Code.TRUNCATED


def test_a_range_beyond_the_file_is_truncated(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "in", 20)
    frames = VideoWindow(path=str(path), start_s=0.0, end_s=1.0, byte_range=(0, 10**9))
    with pytest.raises(SourceError) as caught:
        frame_clock(Camera(name="ego", frames=frames))
    assert caught.value.code is Code.TRUNCATED


@pytest.mark.parametrize("byte_range", [(5, 5), (-1, 5), (7, 3)])
def test_an_impossible_range_cannot_be_made(byte_range: tuple[int, int]) -> None:
    with pytest.raises(SourceError):
        VideoWindow(path="x", start_s=0.0, end_s=1.0, byte_range=byte_range)
    with pytest.raises(SourceError):
        VideoSpan(path="x", first_frame=0, num_frames=1, byte_range=byte_range)


def test_the_reader_stays_within_its_range(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(range(100)))
    with RangeReader(path, 10, 20) as reader:
        assert reader.read() == bytes(range(10, 20))
        assert reader.read(1) == b""
        assert (reader.seek(-3, 2), reader.read(99)) == (7, b"\x11\x12\x13")
        assert (reader.seek(2), reader.seek(1, 1), reader.read(1)) == (2, 3, b"\x0d")
        assert (reader.seek(50), reader.read(1), reader.tell()) == (50, b"", 50)
        with pytest.raises(ValueError, match="seek to -1"):
            reader.seek(-1)
        assert not reader.writable()
    assert read_range(path, 99, 100, limit=1) == b"\x63"
    for bad, code in (((0, 3), Code.TOO_LARGE), ((99, 101), Code.TRUNCATED)):
        with pytest.raises(SourceError) as caught:
            read_range(path, *bad, limit=2)
        assert caught.value.code is code
    with pytest.raises(SourceError) as caught:
        RangeReader(tmp_path / "none", 0, 1)
    assert caught.value.code is Code.MISSING_FILE


def test_a_failing_disk_is_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / "in", 20)

    class Failing:
        def seek(self, at: int) -> None:
            raise OSError(errno.EIO, "input/output error")

        def close(self) -> None: ...

    opened = RangeReader.__init__

    def broken(self: RangeReader, *where: object) -> None:
        opened(self, *where)
        self._file.close()
        self._file = Failing()

    monkeypatch.setattr(RangeReader, "__init__", broken)
    frames = VideoWindow(path=str(path), start_s=0.0, end_s=1.0, byte_range=(0, 900))
    with pytest.raises(TransientError):
        frame_clock(Camera(name="ego", frames=frames))
