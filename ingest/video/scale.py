"""From a decoded picture to the picture that is encoded: size, orientation, colour matrix and range.

Colour rules
- The output is always limited-range yuv420p and its tags say what its pixels are.
- BT.709 stays BT.709, BT.601 (AVCOL_SPC 5 and 6, the same coefficients) stays BT.601: no conversion, no loss.
- Untagged YUV video: BT.709 from 720 lines up, BT.601 below, limited range. This is the usual rule of players; it is
  INFERRED, nothing in the file says so.
- JPEG is full-range BT.601 (JFIF §7). RGB and grey become BT.601, because readers that ignore tags assume it.
- Other matrices (BT.2020, SMPTE 240M, FCC) are converted to BT.709; transfer curves are carried as tags, not applied.

A display matrix of 90, 180 or 270 degrees (phones, EXIF) is applied: players, the ffmpeg tool and OpenCV show such a
picture upright, and so annotations refer to it. Pixels are taken as square: K_cam is in stored pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from schemas.errors import Code, SourceError
from schemas.stored_picture import EXACT, to_420, to_rgb
from schemas.stored_size import output_size

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
        return to_rgb(self._to_rgb, scaled, _MATRICES[self.colour.target])

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
        return to_420(
            self._scale,
            frame,
            self._scaled_size,
            source=(self.colour.source_matrix, self.colour.source_range),
            target=_MATRICES[self.colour.target],
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
            interpolation=EXACT,
            threads=1,
        )
        swapped = VideoFrame.from_ndarray(rgb.to_ndarray(), format="bgr24")
        return to_420(
            self._to_yuv,
            swapped,
            (swapped.width, swapped.height),
            source=(None, ColorRange.JPEG),
            target=_MATRICES[self.colour.target],
        )

    def _turned(self, frame: VideoFrame) -> VideoFrame:
        width, height = frame.width, frame.height
        packed = frame.to_ndarray()  # yuv420p: [3 H / 2, W], chroma planes in rows of W / 2
        luma, chroma = packed[:height], packed[height:].reshape(2, height // 2, width // 2)
        planes = [np.rot90(p, self.turns) for p in (luma, *chroma)]
        turned = np.concatenate([p.ravel() for p in planes]).reshape(-1, self.size[0])
        return VideoFrame.from_ndarray(np.ascontiguousarray(turned), format="yuv420p")


def _tag_or_unspecified(tag: int) -> int:
    return _UNSPECIFIED if tag in (0, 3) else int(tag)  # 0 and 3 are reserved in ITU-T H.273
