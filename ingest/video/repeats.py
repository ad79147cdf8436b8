"""Which pictures of a source repeat the one before: evidence of a frozen camera that the stored video no longer has.

Storing scales and encodes again, and what is left of a live view in which nothing moves can be one picture, bit for bit. So the
pictures are compared as the source's decoder gives them. Only different source pictures are compared: a source below the
rate of the grid shows each picture several times, which says nothing.

Levels, mean absolute difference of luma, measured on a textured picture of 320 x 240 at every third frame: a frozen picture through H.264 crf 23, HEVC crf 28 and
AV1 crf 30 0 to 0.02, through H.264 at 300 kb/s 0.1, at a keyframe up to 1.7; a live one with sensor noise of 0.5 luma through AV1 with a keyframe every other picture 0.37 and more.
A frozen picture through H.264 with a keyframe every other picture differs by 1 and is not told from a live one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

NOISE_LUMA = 0.2  # what a codec leaves of a frozen picture
KEYFRAME_LUMA = 3.0  # and where it begins anew, between two steps that are quieter
MIN_TIMESTEPS = 3  # a shorter repetition is not recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """Timesteps [start, end) whose source picture repeats the one before. `luma`: the largest mean difference; 0 is bit-equal."""

    start: int
    end: int
    luma: float


class SourceSteps:
    """Differences between the source pictures of a grid of T instants; the pictures come one after the other."""

    def __init__(self, num_steps: int) -> None:
        self._luma = np.full(max(num_steps - 1, 0), np.nan)
        self._before: VideoFrame | None = None

    def see(self, frame: VideoFrame, start: int) -> None:
        """A picture of the source that is shown from timestep `start` on."""
        if self._before is not None:
            self._luma[start - 1] = luma_difference(self._before, frame)
        self._before = frame

    def repeats(self) -> tuple[Repeat, ...]:
        """Every repetition of `MIN_TIMESTEPS` or more, in order."""
        return repeats_of(self._luma)


def luma_difference(before: VideoFrame, after: VideoFrame) -> float:
    """Mean absolute difference of the first plane, 0 to 255: luma, or red, green and blue together where they are packed.

    Pictures of different sizes or depths are no repetition: infinity.
    """
    first, second = _first_plane(before), _first_plane(after)
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return float("inf")
    return float(cv2.norm(first, second, cv2.NORM_L1)) / _weight(after)


def _first_plane(frame: VideoFrame) -> npt.NDArray[np.uint8 | np.uint16]:
    """[H, row] samples without the padding of the rows."""
    plane, part = frame.planes[0], frame.format.components[0]
    kind = np.dtype(np.uint16 if part.bits > 8 else np.uint8)
    rows = np.frombuffer(memoryview(plane), kind)[: plane.height * plane.line_size // kind.itemsize]
    width = plane.width * max(frame.format.padded_bits_per_pixel // (8 * kind.itemsize), 1)
    width = width if frame.format.is_rgb and len(frame.planes) == 1 else plane.width
    return rows.reshape(plane.height, -1)[:, :width]


def _weight(frame: VideoFrame) -> float:
    """Samples of the first plane, times what one step of 8 bits is worth."""
    return float(_first_plane(frame).size * (1 << max(frame.format.components[0].bits - 8, 0)))


def repeats_of(luma: npt.NDArray[np.float64]) -> tuple[Repeat, ...]:
    """Repetitions in [T - 1] steps between timesteps; NaN where both show the same source picture."""
    at = np.flatnonzero(~np.isnan(luma))
    value = luma[at]
    is_same = value <= NOISE_LUMA
    between = np.zeros(len(at), dtype=bool)
    between[1:-1] = is_same[:-2] & is_same[2:] & (value[1:-1] <= KEYFRAME_LUMA)
    is_same |= between
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_same, [False]]).astype(np.int8)))
    ends = np.append(at + 1, len(luma) + 1)  # a source picture is shown until the next one comes
    spans = [
        Repeat(start=int(at[i]) + 1, end=int(ends[j]), luma=float(value[i:j].max()))
        for i, j in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    ]
    return tuple(r for r in spans if r.end - r.start >= MIN_TIMESTEPS)
