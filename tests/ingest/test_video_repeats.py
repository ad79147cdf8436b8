"""Which source pictures repeat: by known steps, and through real codecs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from ingest.video.stats import Repeat, luma_difference, repeats_of
from jobs.demo.raw.oxe import jpeg
from schemas.episode import Camera, EncodedImages, VideoSpan
from tests.curation.video_corpus import Picture, texture

NAN = np.nan
LIVE, SAME = 0.5, 0.0


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([LIVE] * 6, []),
        ([SAME] * 6, [(1, 7, 0.0)]),
        ([LIVE, SAME, SAME, 0.1, LIVE], [(2, 5, 0.1)]),
        ([LIVE, SAME, SAME, LIVE], []),  # two timesteps are not recorded
        ([SAME, SAME, 1.5, SAME, SAME], [(1, 6, 1.5)]),  # a keyframe
        ([SAME, SAME, 3.5, SAME, SAME, SAME], [(4, 7, 0.0)]),  # more than a keyframe does
        ([SAME, SAME, 1.5, 1.5, SAME, SAME], []),
        ([NAN] * 9, []),  # one source picture for all
        ([NAN, NAN, SAME, NAN, NAN, LIVE, NAN], [(3, 6, 0.0)]),
        ([NAN, NAN, SAME, NAN, NAN], [(3, 6, 0.0)]),
        ([], []),
    ],
)
def test_repeats_of_known_steps(steps: list[float], found: list[tuple[int, int, float]]) -> None:
    """Timestep k + 1 repeats k where step k is quiet; a source picture that is shown again is no evidence of its own."""
    wanted = [Repeat(start=a, end=b, luma=luma) for a, b, luma in found]
    assert list(repeats_of(np.array(steps, dtype=float))) == wanted


@pytest.mark.parametrize(
    ("layout", "dtype", "step"),
    [
        ("gray", np.uint8, 3),
        ("yuv420p", np.uint8, 3),
        ("rgb24", np.uint8, 3),
        ("gray10le", np.uint16, 12),
    ],
)
def test_a_difference_is_in_steps_of_8_bits_whatever_the_format(
    layout: str, dtype: type, step: int
) -> None:
    """Odd widths, whose rows are padded; every sample of the first plane differs by 3 of 255."""
    shape = (6, 34, 3) if layout == "rgb24" else (9, 34) if layout == "yuv420p" else (6, 34)
    before = np.full(shape, 100, dtype=dtype)
    frames = [VideoFrame.from_ndarray(a, format=layout) for a in (before, before + dtype(step))]
    assert luma_difference(*frames) == pytest.approx(3.0)
    assert luma_difference(frames[0], frames[0]) == 0.0


def pictures(*, frozen: tuple[int, int], noise: float = 2.0, count: int = 60) -> list[Picture]:
    """A calm view with sensor noise at 30 Hz; the pictures [start, end) are one."""
    rng, calm = np.random.default_rng(0), texture(1).astype(np.float64)
    live = [np.clip(calm + rng.normal(0, noise, calm.shape), 0, 255) for _ in range(count)]
    start, end = frozen
    return [live[start if start <= k < end else k].round().astype(np.uint8) for k in range(count)]


def repeats(camera: Camera, tmp_path: Path, count: int = 20) -> list[tuple[int, int]]:
    grid = np.arange(count, dtype=np.int64) * 100_000_000
    settings = VideoSettings()
    facts = write_video(camera, frame_clock(camera), grid, tmp_path / "out.mp4", settings)
    return [(r.start, r.end) for r in facts.repeats]


def clock(count: int, rate_hz: int) -> np.ndarray:
    return (np.arange(count) * 1_000_000_000 // rate_hz).astype(np.int64)


def filmed(path: Path, shown: list[Picture], codec: str, options: dict[str, str]) -> Camera:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(30), options=options)
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for picture in shown:
            container.mux(stream.encode(VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    span = VideoSpan(path=str(path), first_frame=0, num_frames=len(shown))
    return Camera(name="front", frames=span, t_ns=clock(len(shown), 30))


def test_noise_of_single_pictures_never_repeats_and_a_frozen_one_does(tmp_path: Path) -> None:
    for frozen, found in (((0, 0), []), ((15, 45), [(6, 15)])):
        images = tuple(jpeg(p) for p in pictures(frozen=frozen))
        camera = Camera(name="front", frames=EncodedImages(images=images), t_ns=clock(60, 30))
        assert repeats(camera, tmp_path) == found


def test_av1_as_lerobot_writes_it_keeps_the_difference(tmp_path: Path) -> None:
    """Real case: a v3.0 set, AV1 with a keyframe every other picture, median difference 0.445 luma in a calm live view."""
    options = {"crf": "30", "g": "2", "preset": "8"}
    live = filmed(tmp_path / "live.mp4", pictures(frozen=(0, 0), noise=0.5), "libsvtav1", options)
    assert repeats(live, tmp_path) == []
    frozen = filmed(tmp_path / "x.mp4", pictures(frozen=(15, 45), noise=0.5), "libsvtav1", options)
    ((start, end),) = repeats(frozen, tmp_path)
    assert start in (6, 7), "the encoder settles within a keyframe"
    assert end == 15


def test_a_source_below_the_grids_rate_repeats_nothing_of_its_own(tmp_path: Path) -> None:
    for frozen, found in (((0, 0), []), ((1, 4), [(8, 16)])):
        shown = pictures(frozen=frozen, count=4)  # 2 Hz: each is shown five times
        images = tuple(jpeg(p) for p in shown)
        camera = Camera(name="front", frames=EncodedImages(images=images), t_ns=clock(4, 2))
        assert repeats(camera, tmp_path, 16) == found
