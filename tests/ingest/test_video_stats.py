"""Picture statistics against LeRobot's rules written out in plain NumPy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from ingest.video.stats import ImageStatistics, pixel_stride, sampled_frames
from schemas.episode import Camera, VideoWindow
from schemas.rate import instants_ns
from tests.ingest.video_files import read_back, textured, write_source


def plain(frames: list[np.ndarray]) -> dict[str, np.ndarray]:
    """All sampled pictures at once, CHW, as the reference does it."""
    num = len(frames)
    k = max(min(100, num), min(int(num**0.75), 10_000))
    picked = [frames[int(i)] for i in np.round(np.linspace(0, num - 1, k))]
    stack = np.stack([f.transpose(2, 0, 1) for f in picked]).astype(np.float64)
    _, _, height, width = stack.shape
    if max(height, width) >= 300:
        factor = int(width / 150) if width > height else int(height / 150)
        stack = stack[:, :, ::factor, ::factor]
    values = {
        name: getattr(stack, name)(axis=(0, 2, 3), keepdims=True)[0] / 255
        for name in ("min", "max", "mean", "std")
    }
    return values | {"count": np.array([k])}


@pytest.mark.parametrize(("num", "k"), [(1, 1), (99, 99), (137, 100), (967, 173), (2000, 299)])
def test_number_of_sampled_frames(num, k):
    frames = sampled_frames(num)
    assert len(frames) == k
    assert (frames[0], frames[-1]) == (0, num - 1)
    assert len(np.unique(frames)) == k


@pytest.mark.parametrize(
    ("size", "stride"),
    [((299, 299), 1), ((300, 200), 2), ((342, 256), 2), ((200, 300), 2), ((456, 256), 3), ((1920, 1080), 12)],
)  # fmt: skip
def test_stride_of_large_pictures(size, stride):
    assert pixel_stride(*size) == stride


def test_worked_out_by_hand():
    stats = ImageStatistics()
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0, 0] = (255, 51, 0)
    stats.add(picture)
    found = stats.result()
    assert {k: v.shape for k, v in found.items()} == {
        "min": (3, 1, 1), "max": (3, 1, 1), "mean": (3, 1, 1), "std": (3, 1, 1), "count": (1,),
    }  # fmt: skip
    assert found["max"].ravel().tolist() == [1.0, 0.2, 0.0]
    assert found["mean"].ravel().tolist() == pytest.approx([0.25, 0.05, 0.0])
    assert found["std"].ravel().tolist() == pytest.approx(
        [np.sqrt(0.1875), 0.2 * np.sqrt(0.1875), 0]
    )


@pytest.mark.parametrize(("size", "num"), [((64, 48), 7), ((342, 256), 130), ((256, 342), 5)])
def test_agrees_with_the_plain_rules(size, num):
    frames = [np.roll(textured(i, *size), i, axis=2) for i in range(num)]
    stats = ImageStatistics()
    for i in sampled_frames(num):
        stats.add(frames[i])
    found, expected = stats.result(), plain(frames)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(("size", "num"), [((320, 240), 130), ((640, 480), 12)])
def test_of_a_written_video_are_those_of_the_scaled_pictures(tmp_path, size, num):
    """crf 1 leaves hardly a difference between what was encoded and what is read back."""
    pictures = (textured(i, *size) for i in range(num))
    source = write_source(
        tmp_path / "in.mp4",
        pictures,
        rate=Fraction(10),
        options={"crf": "5", "preset": "ultrafast"},
    )
    camera = Camera(name="c", frames=VideoWindow(path=str(source), start_s=0, end_s=999))
    grid = instants_ns(num, Fraction(10))
    out = tmp_path / "out.mp4"
    recipe = VideoSettings(crf=1, preset="ultrafast")
    facts = write_video(camera, frame_clock(camera), grid, out, recipe)
    expected = plain(read_back(out)[0])
    assert facts.image_stats["count"].tolist() == expected["count"].tolist()
    for name, tolerance in (("mean", 5e-4), ("std", 2e-3), ("min", 0.03), ("max", 0.03)):
        np.testing.assert_allclose(
            facts.image_stats[name], expected[name], atol=tolerance, err_msg=name
        )


def test_repeated_frames_weigh_as_often_as_they_are_shown():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    stats = ImageStatistics()
    stats.add(black, 3)
    stats.add(white)
    assert stats.result()["mean"].ravel().tolist() == [0.25] * 3
    assert stats.result()["count"].tolist() == [4]
