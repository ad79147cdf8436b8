"""One way to open a video: no waiting, no other file, and tags in any encoding."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from adapters.containers.video_probe import probe_video, video_header
from ingest.video.source import open_video as open_source_video
from schemas.av_options import open_video
from schemas.errors import Code, SourceError

TITLE = b"Gr\xfc\xdfe"  # Latin-1, no UTF-8


def write_clip(path: Path, num_frames: int = 5) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(num_frames):
            picture = np.full((48, 64, 3), 40 * level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"TITLE", TITLE))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a:b.mp4"  # a colon is no protocol
    write_clip(path)
    return path


def test_a_latin_1_tag_is_no_reason_to_refuse_a_video(clip: Path) -> None:
    with pytest.raises(UnicodeDecodeError):  # what PyAV does by itself
        av.open(f"file:{clip}")
    with open_video(clip) as container:
        assert container.metadata["title"] == "Gr\ufffd\ufffde"
    assert probe_video(clip).num_frames == 5
    assert video_header(clip).rate_hz == 10
    assert video_header(clip, (0, clip.stat().st_size)).rate_hz == 10
    with open_source_video(str(clip)) as video:
        assert video.stream.width == 64


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "dangling.mp4").symlink_to("none")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "pointer.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    expected = {
        "fifo": Code.UNREADABLE,
        "dangling": Code.MISSING_VIDEO,
        "loop": Code.UNREADABLE,
        "pointer": Code.MISSING_VIDEO,
    }
    for name, code in expected.items():
        for opened in (open_video, probe_video, video_header):
            with pytest.raises(SourceError) as caught:
                opened(tmp_path / f"{name}.mp4")
            assert caught.value.code is code
        with (
            pytest.raises(SourceError) as caught,
            open_source_video(str(tmp_path / f"{name}.mp4")),
        ):
            pass
        assert caught.value.code is code


def test_a_playlist_does_not_open_another_file(clip: Path, tmp_path: Path) -> None:
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
    with pytest.raises(av.FFmpegError):
        open_video(playlist)
