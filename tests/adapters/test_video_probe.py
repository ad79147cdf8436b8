"""Counting pictures and their times without decoding, on files whose answers are known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from adapters.containers.video_probe import count_frames, frame_times_ns, probe_video
from schemas.errors import Code, SourceError


def write(path: Path, num: int, *, rate: int = 30, options: dict[str, str] | None = None) -> Path:
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(num):
            picture = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def code_of(path: Path, **options: int) -> Code:
    with pytest.raises(SourceError) as caught:
        count_frames(path, **options)
    return caught.value.code


# Noise is all scene cuts to x264; without these settings it makes no B-frames and packets are already in order.
B_FRAMES = {"bf": "3", "x264-params": "b-adapt=0:scenecut=0"}


@pytest.mark.parametrize("options", [{"bf": "0"}, B_FRAMES])
def test_count_size_and_times(tmp_path: Path, options: dict[str, str]) -> None:
    path = write(tmp_path / "a.mp4", 17, options=options)
    probe = probe_video(path)
    assert (probe.num_frames, probe.width_px, probe.height_px) == (17, 64, 48)
    # In presentation order even with B-frames: k / 30 s rounded to the nanosecond.
    expected = [round(k * 1e9 / 30) for k in range(17)]
    assert frame_times_ns(path).tolist() == expected


def test_count_equals_decoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 9, rate=10)
    with av.open(str(path)) as container:
        assert count_frames(path) == sum(1 for _ in container.decode(video=0)) == 9


def test_pictures_cut_by_an_edit_list_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
        packets = [p for _ in range(10) for p in stream.encode(grey)] + stream.encode()
        for k, packet in enumerate(packets):
            packet.pts = packet.dts = k - 3  # three pictures lie before the start
            packet.time_base = Fraction(1, 30)
            container.mux(packet)
    with av.open(str(path)) as container:
        assert count_frames(path) == sum(1 for _ in container.decode(video=0)) == 7
    assert frame_times_ns(path)[0] == 0


def test_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 30)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2]
    )  # the index is in front, so it opens
    assert code_of(cut) is Code.CORRUPT_VIDEO
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert code_of(tmp_path / "empty.mp4") is Code.CORRUPT_VIDEO
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 50)
    assert code_of(tmp_path / "noise.mp4") is Code.CORRUPT_VIDEO
    assert code_of(tmp_path / "none.mp4") is Code.MISSING_VIDEO
    assert code_of(tmp_path) is Code.UNREADABLE
    assert code_of(path, max_frames=29) is Code.TOO_LONG
    assert count_frames(path, max_frames=30) == 30


def test_a_playlist_cannot_open_other_files(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", 3)
    trap = tmp_path / "b.mp4"
    trap.write_text("ffconcat version 1.0\nfile a.mp4\n")
    with av.open(str(trap)) as container:  # why the test is needed: libav alone follows it
        assert container.format.name == "concat"
    assert code_of(trap) is Code.CORRUPT_VIDEO


def test_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert code_of(path) is Code.CORRUPT_VIDEO
