"""The right frame at the right time: selection, exact output times, seeking, every codec, any thread count."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, nearest_frames, write_video
from schemas.episode import Camera, VideoSpan, VideoWindow
from schemas.rate import instants_ns
from tests.ingest.video_files import (
    CODECS,
    number_of,
    numbered,
    read_back,
    textured,
    write_numbered,
    write_source,
)

TEN = Fraction(10)


def window(path: Path, start_s: float = 0.0, end_s: float = 100.0) -> Camera:
    return Camera(name="cam", frames=VideoWindow(path=str(path), start_s=start_s, end_s=end_s))


def span(path: Path, first: int, count: int, rate: Fraction = Fraction(30)) -> Camera:
    frames = VideoSpan(path=str(path), first_frame=first, num_frames=count)
    return Camera(name="cam", frames=frames, t_ns=instants_ns(count, rate))


def ingest(camera: Camera, grid_ns: np.ndarray, out: Path, **how: object):
    return write_video(camera, frame_clock(camera), grid_ns, out, VideoSettings(), **how)


def test_nearest_frame_and_ties_go_to_the_earlier():
    clock = np.array([0, 100, 200, 350])
    grid = np.array([-5, 0, 50, 51, 149, 150, 274, 275, 276, 999])
    assert nearest_frames(clock, grid).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert nearest_frames(np.array([7]), grid).tolist() == [0] * 10


def test_nearest_frame_agrees_with_a_plain_search():
    rng = np.random.default_rng(3)
    for _ in range(200):
        clock = np.unique(rng.integers(0, 60, rng.integers(1, 12)))
        grid = np.sort(rng.integers(-10, 70, 9))
        plain = [min(range(len(clock)), key=lambda i: (abs(clock[i] - g), i)) for g in grid]
        assert nearest_frames(clock, grid).tolist() == plain


def test_thirty_hz_becomes_every_third_frame_at_exact_times(tmp_path):
    camera = window(write_numbered(tmp_path / "in", 90))
    out = tmp_path / "out.mp4"
    facts = ingest(camera, instants_ns(30, TEN), out)
    pictures, times = read_back(out)
    assert [number_of(p) for p in pictures] == list(range(0, 90, 3))
    assert times == [Fraction(k, 10) for k in range(30)]
    assert (facts.num_frames, facts.source_num_frames) == (30, 90)
    assert facts.worst_skew_ms < 1e-5
    assert facts.repeated_share == 0.0
    assert facts.source_rate_hz == 30
    assert not facts.was_copied


def test_container_says_ten_hz_and_the_right_length(tmp_path):
    out = tmp_path / "out.mp4"
    ingest(window(write_numbered(tmp_path / "in", 90)), instants_ns(30, TEN), out)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 10
        assert stream.frames == 30
        assert stream.duration * stream.time_base == 3
        assert stream.start_time == 0
        assert (1 / TEN / stream.time_base).denominator == 1


def test_five_hz_source_repeats_frames_and_says_so(tmp_path):
    source = write_source(
        tmp_path / "in.mp4", map(numbered, range(10)), rate=Fraction(5), options={"g": "5"}
    )
    out = tmp_path / "out.mp4"
    facts = ingest(window(source), instants_ns(20, TEN), out)
    # at 0.1 s the frames of 0.0 and 0.2 s are equally near: the earlier is shown
    assert [number_of(p) for p in read_back(out)[0]] == [k // 2 for k in range(20)]
    assert facts.repeated_share == 0.5
    assert facts.image_stats["count"].tolist() == [20]
    assert facts.worst_skew_ms == pytest.approx(100.0)


def test_variable_rate_source_follows_its_time_stamps(tmp_path):
    ticks = [0, 30, 190, 210, 290, 420, 500, 610, 705, 800]  # ms
    source = write_source(
        tmp_path / "in.mkv", map(numbered, range(10)), ticks=ticks, tick_s=Fraction(1, 1000)
    )
    camera = window(source)
    assert frame_clock(camera).tolist() == [t * 1_000_000 for t in ticks]
    out = tmp_path / "out.mp4"
    facts = ingest(camera, instants_ns(9, TEN), out)
    assert [number_of(p) for p in read_back(out)[0]] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert facts.worst_skew_ms == pytest.approx(70.0)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_window_in_the_middle_of_any_codec(tmp_path, name):
    source = write_numbered(tmp_path / "in", 60, name)
    with av.open(str(source)) as container:  # MPEG-TS starts at 1.4 s or so: its PTS is the clock
        start_pts = min(p.pts for p in container.demux(video=0) if p.pts is not None)
        shift_s = float(start_pts * container.streams.video[0].time_base)
    for first in (12, 13, 23, 35):
        camera = window(source, shift_s + first / 30 - 0.005, shift_s + (first + 18) / 30 - 0.005)
        out = tmp_path / "out.mp4"
        facts = ingest(camera, instants_ns(6, TEN, 5_000_000), out)
        assert facts.source_num_frames == 18
        assert facts.worst_skew_ms < 1.0
        assert [number_of(p) for p in read_back(out)[0]] == list(range(first, first + 18, 3))


@pytest.mark.parametrize("name", sorted(CODECS))
def test_span_by_count_in_the_middle_of_any_codec(tmp_path, name):
    source = write_numbered(tmp_path / "in", 60, name)
    for first in (0, 11, 12, 14, 23, 24, 42):
        out = tmp_path / "out.mp4"
        ingest(span(source, first, 18), instants_ns(6, TEN), out)
        assert [number_of(p) for p in read_back(out)[0]] == list(range(first, first + 18, 3))


def test_span_takes_its_clock_from_the_data_not_from_the_file(tmp_path):
    source = write_numbered(tmp_path / "in", 60)  # a 30 Hz file of a 15 Hz recording
    out = tmp_path / "out.mp4"
    facts = ingest(span(source, 20, 30, Fraction(15)), instants_ns(20, TEN), out)
    # 0, 1.5, 3, 4.5 ... source frames; halves go to the earlier
    assert [number_of(p) for p in read_back(out)[0]] == [20 + (3 * k) // 2 for k in range(20)]
    assert facts.worst_skew_ms == pytest.approx(1000 / 30, abs=0.01)


@pytest.mark.parametrize("name", ["h264_b", "vp9"])
def test_grid_may_start_late_and_end_early(tmp_path, name):
    source, out = write_numbered(tmp_path / "in", 60, name), tmp_path / "out.mp4"
    grid = instants_ns(4, TEN, 500_000_000)
    for camera in (span(source, 12, 40), window(source, 0.398, 9.0)):
        ingest(camera, grid, out)
        assert [number_of(p) for p in read_back(out)[0]] == [27, 30, 33, 36]


def test_a_file_name_that_looks_like_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_numbered(Path("in"), 30).rename("data:in.mp4")
    facts = ingest(window(Path("data:in.mp4")), instants_ns(10, TEN), tmp_path / "out.mp4")
    assert facts.num_frames == 10


def test_only_the_span_is_decoded(tmp_path, monkeypatch):
    source = write_numbered(tmp_path / "in", 600)
    counted: list[int] = []
    import ingest.video.source as module

    plain = module._frames

    def counting(video, packets):
        for frame in plain(video, packets):
            counted.append(frame.pts)
            yield frame

    monkeypatch.setattr(module, "_frames", counting)
    ingest(span(source, 500, 18), instants_ns(6, TEN), tmp_path / "out.mp4")
    assert 6 <= len(counted) <= 16 + 12  # up to one GOP before the first frame wanted


def test_bytes_do_not_depend_on_threads_or_on_the_run(tmp_path):
    pictures = [textured(i, 320, 240) for i in range(45)]
    source = write_source(tmp_path / "in.mp4", pictures)
    grid = instants_ns(15, TEN)
    facts = [
        ingest(window(source), grid, tmp_path / f"out{i}.mp4", num_threads=threads)
        for i, threads in enumerate((1, 2, 3, 1))
    ]
    assert len({f.sha256 for f in facts}) == 1
    data = {(tmp_path / f"out{i}.mp4").read_bytes() for i in range(4)}
    assert len(data) == 1
    assert facts[0].num_bytes == len(data.pop())
    with av.open(str(tmp_path / "out0.mp4")) as container:
        assert "encoder" not in container.metadata
        assert "creation_time" not in container.metadata


def test_keyframes_are_every_tenth_picture_and_nothing_refers_across_them(tmp_path):
    camera = window(write_numbered(tmp_path / "in", 105))
    out = tmp_path / "out.mp4"
    ingest(camera, instants_ns(35, TEN), out)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        tick = stream.time_base
        keys = [round(p.pts * tick * 10) for p in packets if p.is_keyframe]
        assert keys == [0, 10, 20, 30]
        # closed: no packet after a keyframe is shown before it
        for key in (i for i, p in enumerate(packets) if p.is_keyframe):
            assert all(p.pts >= packets[key].pts for p in packets[key:])
        container.seek(int(Fraction(20, 10) / tick), stream=stream)
        frame = next(container.decode(stream))
        assert number_of(frame.to_ndarray(format="rgb24")) == 60


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (342, 256)), ((1920, 1080), (456, 256)), ((480, 640), (256, 342)),
     ((200, 120), (200, 120)), ((226, 226), (226, 226)), ((256, 256), (256, 256)), ((64, 258), (64, 258))],
)  # fmt: skip
def test_size_keeps_aspect_never_grows_and_is_even(tmp_path, size, expected):
    source = write_source(tmp_path / "in.mp4", [numbered(i, *size) for i in range(3)])
    facts = ingest(window(source), instants_ns(1, TEN), tmp_path / "out.mp4")
    assert (facts.width, facts.height) == expected


def test_odd_sizes_become_even(tmp_path):
    pictures = [numbered(i, 225, 121) for i in range(6)]
    source = write_source(tmp_path / "in.mkv", pictures, codec="ffv1", pix_fmt="yuv444p")
    facts = ingest(window(source), instants_ns(2, TEN), tmp_path / "out.mp4")
    assert (facts.width, facts.height) == (224, 120)


@pytest.mark.parametrize(("turn", "matrix"), [
    (-90, (0, 1, -1, 0)), (90, (0, -1, 1, 0)), (180, (-1, 0, 0, -1)),
])  # fmt: skip
def test_display_matrix_turns_the_picture_upright(tmp_path, turn, matrix):
    stored = numbered(0, 96, 64)
    stored[:20, :30] = (255, 255, 255)  # a mark at the stored top left
    source = write_source(tmp_path / "in.mp4", [stored] * 6)
    data = bytearray(source.read_bytes())
    at = (
        data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    )  # version/flags, times and ids, reserved, layer..volume
    a, b, c, d = (v * 65536 for v in matrix)
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in values)
    source.write_bytes(data)
    out = tmp_path / "out.mp4"
    facts = ingest(window(source), instants_ns(2, TEN), out)
    upright = np.rot90(stored, turn // 90)
    picture = read_back(out)[0][0]
    assert (facts.height, facts.width) == upright.shape[:2]
    assert facts.rotation_deg == turn % 360
    assert np.abs(picture.astype(int) - upright).mean() < 8
