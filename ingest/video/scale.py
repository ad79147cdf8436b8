"""From a decoded picture to the picture that is encoded: size, orientation, colour matrix and range.

Colour rules
- The output is always limited-range yuv420p and its tags say what its pixels are.
- BT.709 stays BT.709, BT.601 (AVCOL_SPC 5 and 6, the same coefficients) stays BT.601: no conversion, no loss.
- Untagged YUV video: BT.709 from 720 lines up, BT.601 below, limited range. This is the usual rule of players; it is
  INFERRED, nothing in the file says so.
- JPEG is full-range BT.601 (JFIF §7). RGB and grey become BT.601, because readers that ignore tags assume it.
- Other matrices (BT.2020, SMPTE 240M, FCC) are converted to BT.709; transfer curves are carried as tags, not applied.

Scaling is swscale's bilinear, whose kernel widens with the ratio, so it averages when it shrinks. Measured on 1080p
to 456 x 256: whole loop 1.40 s bilinear, 1.42 area, 1.54 bicubic; files 522, 685, 656 kB at one crf.
ACCURATE_RND and BITEXACT cost nothing measurable and make the pixels the same on every CPU.

A display matrix of 90, 180 or 270 degrees (phones, EXIF) is applied: players, the ffmpeg tool and OpenCV show such a
picture upright, and so annotations refer to it. Pixels are taken as square: K_cam is in stored pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from schemas.errors import Code, SourceError

_HOW = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# For statistics: the conversion that PyAV's and torchcodec's readers get by default, so that the numbers describe what a
# loader sees. It is about 1 level of 255 darker than the formula; the exact one (ACCURATE_RND | FULL_CHR_H_INT) takes
# 0.39 ms a picture of 256 x 256 instead of 0.03, a fifth of all the work.
_HOW_RGB = Interpolation.BILINEAR | Interpolation.BITEXACT
_HD_LINES = 720
_UNSPECIFIED = 2  # AVCOL_SPC, AVCOL_PRI and AVCOL_TRC agree on it
# AVColorSpace (ITU-T H.273 matrix coefficients) -> swscale's name
_BT709, _BT601 = 1, 6
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Colour:
    """How a picture's numbers are to be read, and the tags of what it becomes."""

    source_matrix: Colorspace
    source_range: ColorRange
    target: int  # AVColorSpace of the output: 1 (BT.709) or 6 (BT.601)
    primaries: int
    transfer: int

    @property
    def tags(self) -> tuple[str, str]:
        """(matrix, range) of the output, in ffmpeg's words."""
        return ("bt709" if self.target == _BT709 else "smpte170m", "tv")


def output_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """(width, height) of the output: aspect kept, short side at most `short_side_px`, even, never larger.

    640 x 480 at 256 gives 342 x 256; 225 x 225 gives 224 x 224.
    """
    scale = min(1.0, short_side_px / min(width, height))
    return _even(width, scale), _even(height, scale)


def colour_of(frame: VideoFrame, where: str) -> Colour:
    """The colour rules of this module applied to one decoded picture.

    Raises:
        SourceError: a matrix that swscale cannot undo (constant-luminance BT.2020, YCgCo, ICtCp).
    """
    name, is_rgb = frame.format.name, frame.format.is_rgb or frame.format.name == "pal8"
    is_grey = name.startswith(("gray", "ya", "mono"))
    is_full = is_rgb or name.startswith("yuvj") or frame.color_range == ColorRange.JPEG
    tag = int(frame.colorspace)
    if is_rgb or is_grey:
        tag = _BT601
    elif tag == _UNSPECIFIED:
        tag = _BT709 if frame.height >= _HD_LINES else _BT601
    if tag not in _MATRICES:
        raise SourceError(Code.CORRUPT_VIDEO, f"colour matrix {tag} is not supported", where=where)
    return Colour(
        source_matrix=_MATRICES[tag],
        source_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
        target=_BT601 if tag in (5, _BT601) else _BT709,
        primaries=_tag_or_unspecified(frame.color_primaries),
        transfer=_tag_or_unspecified(frame.color_trc),
    )


def quarter_turns(frame: VideoFrame, where: str) -> int:
    """Counter-clockwise quarter turns (0..3) that show the picture upright, from its display matrix.

    Raises:
        SourceError: the matrix turns by something else than a multiple of 90 degrees.
    """
    degrees = int(frame.rotation)
    if degrees % 90:
        problem = f"the display matrix rotates by {degrees} degrees; expected a multiple of 90"
        raise SourceError(Code.CORRUPT_VIDEO, problem, where=where)
    return degrees // 90 % 4


class Scaler:
    """Scales, turns and converts pictures of one size and colour; keeps swscale's tables between calls."""

    def __init__(
        self, first: VideoFrame, *, short_side_px: int, is_bgr: bool = False, where: str
    ) -> None:
        self.colour = colour_of(first, where)
        self.turns = quarter_turns(first, where)
        self._where = where
        self._is_bgr = is_bgr
        self._source_size = (first.width, first.height)
        self.is_yuv420p_limited = (
            first.format.name == "yuv420p" and self.colour.source_range == ColorRange.MPEG
        )
        self._scaled_size = output_size(first.width, first.height, short_side_px)
        self._scale, self._to_yuv, self._to_rgb = (VideoReformatter() for _ in range(3))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what `scale` returns."""
        width, height = self._scaled_size
        return (height, width) if self.turns % 2 else (width, height)

    def scale(self, frame: VideoFrame) -> VideoFrame:
        """The picture to encode; without a picture type, or x264 would copy the source's keyframes.

        Raises:
            SourceError: the picture has another size or colour than the first one.
        """
        self._check(frame)
        scaled = self._swapped(frame) if self._is_bgr else self._scaled(frame)
        if self.turns:
            scaled = self._turned(scaled)
        scaled.pict_type = PictureType.NONE
        return scaled

    def rgb(self, scaled: VideoFrame) -> npt.NDArray[np.uint8]:
        """[H, W, 3] uint8 view of a picture that `scale` returned; valid while that picture lives."""
        frame = self._to_rgb.reformat(
            scaled,
            format="rgb24",
            src_colorspace=_MATRICES[self.colour.target],
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_HOW_RGB,
            threads=1,
        )
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        return rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)

    def _check(self, frame: VideoFrame) -> None:
        if (frame.width, frame.height) != self._source_size:
            problem = (
                f"the frame size changes from {self._source_size} to {frame.width} x {frame.height}"
            )
            raise SourceError(Code.SHAPE_MISMATCH, problem, where=self._where)
        if colour_of(frame, self._where) != self.colour:
            problem = f"the colour format changes to {frame.format.name} inside the episode"
            raise SourceError(Code.CONTRACT_BROKEN, problem, where=self._where)

    def _scaled(self, frame: VideoFrame) -> VideoFrame:
        return self._scale.reformat(
            frame,
            *self._scaled_size,
            "yuv420p",
            src_colorspace=self.colour.source_matrix,
            dst_colorspace=_MATRICES[self.colour.target],
            src_color_range=self.colour.source_range,
            dst_color_range=ColorRange.MPEG,
            interpolation=_HOW,
            threads=1,
        )

    def _swapped(self, frame: VideoFrame) -> VideoFrame:
        """For sources that stored blue where red belongs: undo it after scaling, in RGB."""
        rgb = self._scale.reformat(
            frame,
            *self._scaled_size,
            "rgb24",
            src_colorspace=self.colour.source_matrix,
            src_color_range=self.colour.source_range,
            dst_color_range=ColorRange.JPEG,
            interpolation=_HOW,
            threads=1,
        )
        return self._to_yuv.reformat(
            VideoFrame.from_ndarray(rgb.to_ndarray(), format="bgr24"),
            format="yuv420p",
            dst_colorspace=_MATRICES[self.colour.target],
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_HOW,
            threads=1,
        )

    def _turned(self, frame: VideoFrame) -> VideoFrame:
        width, height = frame.width, frame.height
        packed = frame.to_ndarray()  # yuv420p: [3 H / 2, W], chroma planes in rows of W / 2
        luma, chroma = packed[:height], packed[height:].reshape(2, height // 2, width // 2)
        planes = [np.rot90(p, self.turns) for p in (luma, *chroma)]
        turned = np.concatenate([p.ravel() for p in planes]).reshape(-1, self.size[0])
        return VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="yuv420p")


def as_stored(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[H, W, 3] RGB to what a lossless codec would give back of it in a corpus: one colour for every four pixels, and even sizes.

    A network that learned from a corpus's videos has seen nothing else; a live camera's picture has more colour than that. A corpus also shrinks
    pictures whose shorter side is above `short_side_px` of its recipe, before it drops colour; that is not imitated. A second pass changes a picture again.
    """
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    scaler = Scaler(frame, short_side_px=min(frame.width, frame.height), where="a live picture")
    return np.array(scaler.rgb(scaler.scale(frame)))


def _even(length: int, scale: float) -> int:
    return max(2, min(2 * round(length * scale / 2), length // 2 * 2))


def _tag_or_unspecified(tag: int) -> int:
    return _UNSPECIFIED if tag in (0, 3) else int(tag)  # 0 and 3 are reserved in ITU-T H.273
