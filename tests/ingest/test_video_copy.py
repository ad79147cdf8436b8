"""Packets are copied exactly when that is the same video, and never otherwise."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.recipe import VideoSettings
from ingest.video.camera_video import VideoFacts, frame_clock, write_video
from ingest.video.h264_profile import media_type, unplayed_profile
from schemas.episode import Camera, VideoSpan, VideoWindow
from schemas.rate import instants_ns
from tests.ingest.video_files import number_of, numbered, read_back, textured, write_source

TEN = Fraction(10)
CLOSED = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:open-gop=0", "bf": "2"}


def make(path: Path, count: int = 40, **how) -> Path:
    how = {"rate": TEN, "options": CLOSED} | how
    return write_source(path, map(numbered, range(count)), **how)


def ingest(path: Path, out: Path, steps: int, start_s: float = 0.0, **recipe) -> VideoFacts:
    camera = Camera(name="c", frames=VideoWindow(path=str(path), start_s=start_s, end_s=999.0))
    return write_video(
        camera, frame_clock(camera), instants_ns(steps, TEN), out, VideoSettings(**recipe)
    )


@pytest.mark.parametrize("options", [CLOSED, CLOSED | {"bf": "0"}])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_ten_hz_source_is_copied_bit_for_bit(tmp_path, options, suffix):
    pictures = [textured(i, 320, 240) for i in range(40)]
    source = write_source(tmp_path / f"in{suffix}", pictures, rate=TEN, options=options)
    out = tmp_path / "out.mp4"
    facts = ingest(source, out, 40)
    assert facts.was_copied
    (before, _), (after, times) = read_back(source), read_back(out)
    assert np.array_equal(before, after)
    assert times == [Fraction(k, 10) for k in range(40)]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.start_time) == (10, 40, 0)
        assert stream.duration * stream.time_base == 4
        assert "encoder" not in container.metadata
    mean = np.mean(before, axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(facts.image_stats["mean"].ravel(), mean, atol=2e-3)


def test_a_lossless_file_stays_lossless_and_says_that_browsers_do_not_play_it(tmp_path):
    """x264 writes 4:2:0 without loss in a profile of 4:4:4. Encoding it again would lose, so it is copied."""
    pictures = [textured(i, 320, 240) for i in range(20)]
    source, usual = tmp_path / "lossless.mp4", tmp_path / "usual.mp4"
    write_source(source, pictures, rate=TEN, options=CLOSED | {"qp": "0"})
    write_source(usual, pictures, rate=TEN, options=CLOSED)
    out = tmp_path / "out.mp4"
    assert ingest(source, out, 20).was_copied
    assert np.array_equal(read_back(out)[0], read_back(source)[0])
    found = {}
    for path in (out, usual):
        with av.open(str(path)) as container:
            extradata = container.streams.video[0].codec_context.extradata
        found[path] = unplayed_profile(extradata), media_type(extradata)
    profile, named = found[out]
    assert profile == "High 4:4:4 Predictive"
    assert re.fullmatch(r'video/mp4; codecs="avc1\.F4[0-9A-F]{4}"', named)
    profile, named = found[usual]
    assert profile == ""
    assert re.fullmatch(r'video/mp4; codecs="avc1\.64[0-9A-F]{4}"', named)


def test_a_stream_that_says_no_profile_is_any_video():
    for extradata in (None, b"", b"\x00\x00\x00\x01\x67\xf4\x00\x0a"):
        assert unplayed_profile(extradata) == ""
        assert media_type(extradata) == "video/mp4"


def test_copy_of_a_part_starts_at_its_keyframe(tmp_path):
    source, out = make(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    facts = ingest(source, out, 20, start_s=1.0)
    assert facts.was_copied
    pictures, times = read_back(out)
    assert [number_of(p) for p in pictures] == list(range(10, 30))
    assert times[0] == 0
    camera = Camera(
        name="c",
        frames=VideoSpan(path=str(source), first_frame=20, num_frames=10),
        t_ns=instants_ns(10, TEN),
    )
    grid = instants_ns(10, TEN)
    facts = write_video(camera, frame_clock(camera), grid, out, VideoSettings())
    assert facts.was_copied
    assert [number_of(p) for p in read_back(out)[0]] == list(range(20, 30))


@pytest.mark.parametrize(
    ("why", "how", "steps", "start_s"),
    [
        ("does not start at a keyframe", {}, 20, 0.5),
        ("does not start at a keyframe", {"options": CLOSED | {"bf": "0"}}, 20, 0.5),
        ("keyframes too far apart", {"options": {"g": "20", "bf": "0"}}, 40, 0.0),
        ("open GOP", {"options": {"x264-params": "keyint=10:open-gop=1:bframes=3:b-adapt=0:scenecut=0"}}, 40, 0.0),
        ("full range", {"color": (6, 2)}, 40, 0.0),
        ("another pixel format", {"pix_fmt": "yuv444p"}, 40, 0.0),
        ("another codec", {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none:pools=1"}}, 40, 0.0),
        ("another rate", {"rate": Fraction(20)}, 20, 0.0),
        ("slower than the grid", {"rate": Fraction(5)}, 40, 0.0),
    ],
)  # fmt: skip
def test_anything_else_is_encoded_again(tmp_path, why, how, steps, start_s):
    out = tmp_path / "out.mp4"
    facts = ingest(make(tmp_path / "in.mp4", **how), out, steps, start_s)
    assert not facts.was_copied, why
    first = round(start_s * 10)
    rate = how.get("rate", TEN)
    expected = [
        first + -(-k * int(rate) // 10) if rate > 10 else first + k * int(rate) // 10
        for k in range(steps)
    ]
    assert [number_of(p) for p in read_back(out)[0]] == expected


def test_too_large_or_odd_pictures_are_encoded_again(tmp_path):
    pictures = [numbered(i, 640, 480) for i in range(10)]
    source = write_source(tmp_path / "in.mp4", pictures, rate=TEN, options=CLOSED)
    assert not ingest(source, tmp_path / "out.mp4", 10).was_copied
    assert ingest(source, tmp_path / "out.mp4", 10, short_side_px=480).was_copied


def test_a_cut_that_needs_a_later_picture_is_encoded_again(tmp_path):
    """With B pictures the end of the span may refer to a picture behind it."""
    options = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:open-gop=0:b-adapt=0:bframes=3"}
    source = make(tmp_path / "in.mp4", options=options)
    outcomes = {n: ingest(source, tmp_path / "out.mp4", n) for n in range(1, 11)}
    # display order I B B B P B B B P P: a cut is clean behind I and behind each P
    assert {n for n, facts in outcomes.items() if facts.was_copied} == {1, 5, 9, 10}


def test_recovery_points_are_not_taken_for_idr(tmp_path):
    """With a rolling intra refresh the container marks P pictures as keyframes: only NAL type 5 proves a closed GOP."""
    options = {"x264-params": "keyint=10:intra-refresh=1:bframes=0"}
    source, out = make(tmp_path / "in.mkv", options=options), tmp_path / "out.mp4"
    with av.open(str(source)) as container:
        assert sum(p.is_keyframe for p in container.demux(video=0) if p.size) > 1
    assert not ingest(source, out, 40, gop=40).was_copied
    assert [number_of(p) for p in read_back(out)[0]] == list(range(40))


def test_frames_shown_twice_are_encoded_again(tmp_path):
    """A 10 Hz file of a recording whose data say 5 Hz."""
    source, out = make(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    frames = VideoSpan(path=str(source), first_frame=0, num_frames=10)
    camera = Camera(name="c", frames=frames, t_ns=instants_ns(10, Fraction(5)))
    facts = write_video(camera, frame_clock(camera), instants_ns(20, TEN), out, VideoSettings())
    assert not facts.was_copied
    assert [number_of(p) for p in read_back(out)[0]] == [k // 2 for k in range(20)]
