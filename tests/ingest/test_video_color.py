"""A known colour goes in under known rules, the same colour must come out: matrix, range and tags.

The YUV values are worked out here from ITU-R BT.601/709/2020 (Kr, Kb) and the range formulas, not by a library.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from ingest.recipe import VideoSettings
from ingest.video.camera_video import frame_clock, write_video
from schemas.episode import Camera, EncodedImages, VideoWindow
from schemas.errors import Code, SourceError
from schemas.rate import instants_ns
from tests.ingest.video_files import write_source

TEN = Fraction(10)
RED, GREY, BLUE = (200, 40, 30), (120, 120, 120), (30, 60, 210)
MATRIX = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
TOLERANCE = 3  # of 255


def yuv(rgb: tuple[int, int, int], matrix: str, *, full: bool = False) -> tuple[int, int, int]:
    """Y', Cb, Cr of one colour, 8 bit. Worked out: BT.601 limited red (255, 0, 0) is (81, 90, 240)."""
    kr, kb = MATRIX[matrix]
    r, g, b = (v / 255 for v in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if full:
        return round(255 * y), round(128 + 255 * cb), round(128 + 255 * cr)
    return round(16 + 219 * y), round(128 + 224 * cb), round(128 + 224 * cr)


def solid(rgb, matrix: str, width: int, height: int, *, full: bool = False) -> VideoFrame:
    y, cb, cr = yuv(rgb, matrix, full=full)
    planes = np.empty((height * 3 // 2, width), np.uint8)
    planes[:height] = y
    planes[height : height + height // 4] = cb
    planes[height + height // 4 :] = cr
    return VideoFrame.from_ndarray(planes, format="yuv420p")


def out_color(camera: Camera, out: Path):
    facts = write_video(camera, frame_clock(camera), instants_ns(2, TEN), out, VideoSettings())
    with av.open(str(out)) as container:  # as a plain reader sees it, swscale's defaults and all
        picture = list(container.decode(video=0))[-1].to_ndarray(format="rgb24")
    with av.open(str(out)) as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_range)
    return picture, tags, facts


def assert_is(picture: np.ndarray, rgb) -> None:
    inner = picture[4:-4, 4:-4].reshape(-1, 3).astype(int)
    assert np.abs(inner - rgb).max() <= TOLERANCE, f"{inner[0]} instead of {rgb}"


def test_the_oracle_itself():
    assert yuv((255, 0, 0), "601") == (81, 90, 240)
    assert yuv((255, 0, 0), "709") == (63, 102, 240)
    assert yuv((255, 255, 255), "709") == (235, 128, 128)
    assert yuv((255, 255, 255), "601", full=True) == (255, 128, 128)


@pytest.mark.parametrize("rgb", [RED, GREY, BLUE])
@pytest.mark.parametrize(
    ("matrix", "full", "size", "tags", "expected"),
    [
        ("601", False, (320, 240), (6, 1), (6, 1)),
        ("601", False, (640, 480), (5, 1), (6, 1)),
        ("709", False, (640, 480), (1, 1), (1, 1)),
        ("709", False, (320, 240), (1, 1), (1, 1)),
        ("601", True, (640, 480), (6, 2), (6, 1)),
        ("709", True, (640, 480), (1, 2), (1, 1)),
        ("601", False, (640, 480), (2, 0), (6, 1)),  # untagged, below 720 lines: BT.601
        ("709", False, (1280, 720), (2, 0), (1, 1)),  # untagged, from 720 lines up: BT.709
        ("2020", False, (640, 480), (9, 1), (1, 1)),
    ],
)
def test_video_colours_come_back(tmp_path, rgb, matrix, full, size, tags, expected):
    frames = [solid(rgb, matrix, *size, full=full) for _ in range(4)]
    source = write_source(tmp_path / "in.mp4", frames, color=tags)
    with av.open(str(source)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == tags
    camera = Camera(name="c", frames=VideoWindow(path=str(source), start_s=0, end_s=9))
    picture, out_tags, facts = out_color(camera, tmp_path / "out.mp4")
    assert_is(picture, rgb)
    assert out_tags == expected
    assert facts.color == ({1: "bt709", 6: "smpte170m"}[expected[0]], "tv")


def images(data: bytes, *, is_bgr: bool = False) -> Camera:
    frames = EncodedImages(images=(data,) * 3, is_bgr=is_bgr)
    return Camera(name="c", frames=frames, t_ns=instants_ns(3, TEN))


def patch(rgb, size=(320, 240)) -> np.ndarray:
    return np.full((size[1], size[0], 3), rgb, np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("rgb", [RED, GREY, BLUE])
@pytest.mark.parametrize("size", [(320, 240), (1280, 720), (99, 77)])
def test_picture_colours_come_back(tmp_path, suffix, rgb, size):
    data = cv2.imencode(suffix, patch(rgb, size)[..., ::-1])[1].tobytes()
    picture, tags, _ = out_color(images(data), tmp_path / "out.mp4")
    assert_is(picture, rgb)
    assert tags == (6, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bgr_sources_are_swapped_back(tmp_path, suffix):
    data = cv2.imencode(suffix, patch(RED))[
        1
    ].tobytes()  # OpenCV takes it for BGR: red is stored as blue
    assert_is(out_color(images(data), tmp_path / "a.mp4")[0], RED[::-1])
    assert_is(out_color(images(data, is_bgr=True), tmp_path / "b.mp4")[0], RED)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_grey_pictures_become_grey(tmp_path, suffix):
    for level in (20, 128, 240):
        data = cv2.imencode(suffix, patch((level,) * 3)[..., 0])[1].tobytes()
        assert_is(out_color(images(data), tmp_path / "out.mp4")[0], (level,) * 3)


def test_sixteen_bit_colour_is_scaled_and_depth_is_refused(tmp_path):
    colour = (patch(RED)[..., ::-1].astype(np.uint16)) * 257
    data = cv2.imencode(".png", colour)[1].tobytes()
    assert_is(out_color(images(data), tmp_path / "out.mp4")[0], RED)
    depth = cv2.imencode(".png", colour[..., 0])[1].tobytes()
    with pytest.raises(SourceError, match="depth") as caught:
        out_color(images(depth), tmp_path / "out.mp4")
    assert caught.value.code is Code.CORRUPT_IMAGE


def test_jpeg_and_png_may_be_mixed(tmp_path):
    png = cv2.imencode(".png", patch(RED)[..., ::-1])[1].tobytes()
    jpg = cv2.imencode(".jpg", patch(RED)[..., ::-1])[1].tobytes()
    camera = Camera(name="c", frames=EncodedImages(images=(jpg, png)), t_ns=instants_ns(2, TEN))
    # JPEG (full-range YUV) and PNG (RGB) both end as BT.601: the output is one colour space, so this is fine
    picture, tags, _ = out_color(camera, tmp_path / "out.mp4")
    assert_is(picture, RED)
    assert tags == (6, 1)
