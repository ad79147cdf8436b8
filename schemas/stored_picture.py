"""A picture as the videos of a corpus have it: its size, and one colour for every four pixels.

Ingest makes every stored picture by `to_420`, and a policy is shown a live picture `as_stored`, by the same calls: what a network learned from
has neither the size nor the colour of a camera's own picture.

Scaling is swscale's bilinear, whose kernel widens with the ratio, so it averages when it shrinks. Measured on 1080p
to 456 x 256: whole loop 1.40 s bilinear, 1.42 area, 1.54 bicubic; files 522, 685, 656 kB at one crf.
ACCURATE_RND and BITEXACT cost nothing measurable and make the pixels the same on every CPU.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from schemas.stored_size import output_size

EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# The conversion that PyAV's and torchcodec's readers get by default, so that numbers and live pictures are what a loader
# sees. It is about 1 level of 255 darker than the formula; the exact one (ACCURATE_RND | FULL_CHR_H_INT) takes
# 0.39 ms a picture of 256 x 256 instead of 0.03, a fifth of all the work of an ingest.
_AS_READ = Interpolation.BILINEAR | Interpolation.BITEXACT


def to_420(
    reformatter: VideoReformatter,
    frame: VideoFrame,
    size: tuple[int, int],
    *,
    source: tuple[Colorspace | None, ColorRange],
    target: Colorspace,
) -> VideoFrame:
    """The picture in limited-range yuv420p.

    Args:
        reformatter: keeps swscale's tables from one picture to the next.
        source: how the numbers of `frame` are to be read; no matrix for RGB, which has none.
    """
    return reformatter.reformat(
        frame,
        *size,
        "yuv420p",
        src_colorspace=source[0],
        dst_colorspace=target,
        src_color_range=source[1],
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
        threads=1,
    )


def to_rgb(
    reformatter: VideoReformatter, stored: VideoFrame, matrix: Colorspace
) -> npt.NDArray[np.uint8]:
    """[H, W, 3] view of a picture of `to_420`; valid until `reformatter` or that picture is used again."""
    frame = reformatter.reformat(
        stored,
        format="rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=_AS_READ,
        threads=1,
    )
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def as_stored(picture: npt.NDArray[np.uint8], short_side_px: int) -> npt.NDArray[np.uint8]:
    """[H, W, 3] RGB to what a lossless codec would give back of it in a corpus: [h, w, 3], never larger, of even sizes.

    What a lossy codec removes is not imitated. A picture that was stored must not come here again: a second pass changes its colours once more.

    Args:
        short_side_px: of the corpus.
    """
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    size = output_size(frame.width, frame.height, short_side_px)
    source = Colorspace.ITU601, ColorRange.JPEG
    stored = to_420(VideoReformatter(), frame, size, source=source, target=Colorspace.ITU601)
    return np.array(to_rgb(VideoReformatter(), stored, Colorspace.ITU601))
