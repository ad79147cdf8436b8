"""A live picture looks to a policy as a corpus would give it back: against a lossless H.264 file, read by the reader of `eicorpus latents`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from av.video.frame import VideoFrame

from ingest.video.encode import Encoder, x264_options
from ingest.video.scale import Scaler, as_stored
from ingest.video.timestep_pictures import pictures_at


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Smooth, with one red pixel on green: what half the resolution of colour cannot keep."""
    down, across = np.mgrid[0:height, 0:width]
    out = np.stack([down * 200 // height, across * 200 // width, 0 * down + 60], axis=-1)
    out[height // 2, width // 2] = (255, 0, 0)
    return out.astype(np.uint8)


@pytest.mark.parametrize("size", [(48, 64), (127, 96)])
def test_it_is_what_a_lossless_video_gives_back(tmp_path: Path, size: tuple[int, int]) -> None:
    live = picture(*size)
    frame = VideoFrame.from_ndarray(live, format="rgb24")
    scaler = Scaler(frame, short_side_px=min(size), where="test")
    options = x264_options(crf=0, preset="veryfast", gop=1)
    with Encoder(tmp_path / "v.mp4", scaler.size, scaler.colour, Fraction(10), options) as out:
        out.write(scaler.scale(frame), 0)
    (read,) = pictures_at(tmp_path / "v.mp4", [0], 10.0)
    np.testing.assert_allclose(as_stored(live).astype(int), read.astype(int), atol=1)


def test_colour_is_lost_and_brightness_is_not() -> None:
    live = picture(64, 64)
    away = np.abs(as_stored(live).astype(int) - live).max(axis=-1)
    assert away[32, 32] > 60, "the red pixel is not as red as it was"
    assert np.median(away) <= 2
