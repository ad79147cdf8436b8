"""Image statistics by the rules of LeRobot v2.1, streaming and exact, and which source frames repeat the one before."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

NOISE_LUMA = 0.2  # what a codec leaves of a frozen picture
KEYFRAME_LUMA = 3.0  # and where it begins anew, between two steps that are quieter
_Samples = npt.NDArray[np.uint8 | np.uint16]
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
        self._before: _Samples | None = None

    def see(self, frame: VideoFrame, start: int) -> None:
        """A picture of the source that is shown from timestep `start` on."""
        after = _first_plane(frame)
        if self._before is not None:
            self._luma[start - 1] = _mean_difference(self._before, after, frame)
        self._before = after

    def repeats(self) -> tuple[Repeat, ...]:
        """Every repetition of `MIN_TIMESTEPS` or more, in order."""
        return repeats_of(self._luma)


def luma_difference(before: VideoFrame, after: VideoFrame) -> float:
    """Mean absolute difference of the first plane, 0 to 255: luma, or red, green and blue together where they are packed.

    Pictures of different sizes or depths are no repetition: infinity.
    """
    return _mean_difference(_first_plane(before), _first_plane(after), after)


def _mean_difference(first: _Samples, second: _Samples, after: VideoFrame) -> float:
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return float("inf")
    weight = second.size * (1 << max(after.format.components[0].bits - 8, 0))
    return float(cv2.norm(first, second, cv2.NORM_L1)) / float(weight)


def _first_plane(frame: VideoFrame) -> _Samples:
    """[H, row] samples without the padding of the rows."""
    plane, part = frame.planes[0], frame.format.components[0]
    kind = np.dtype(np.uint16 if part.bits > 8 else np.uint8)
    rows = np.frombuffer(memoryview(plane), kind)[: plane.height * plane.line_size // kind.itemsize]
    width = plane.width * max(frame.format.padded_bits_per_pixel // (8 * kind.itemsize), 1)
    width = width if frame.format.is_rgb and len(frame.planes) == 1 else plane.width
    return rows.reshape(plane.height, -1)[:, :width]


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


_TARGET_PX, _LARGE_PX = 150, 300
_LEVELS = np.arange(256, dtype=np.float64)


def sampled_frames(num_frames: int) -> npt.NDArray[np.int64]:
    """Indices [k] of the frames that count; k = max(min(100, T), min(int(T ** 0.75), 10000)).

    T = 137 gives 100, 967 gives 173, 2000 gives 299 (measured on published sets).
    """
    k = max(min(100, num_frames), min(int(num_frames**0.75), 10_000))
    return np.round(np.linspace(0, num_frames - 1, k)).astype(np.int64)


def pixel_stride(width: int, height: int) -> int:
    """Every how many-th pixel of a picture counts, in both directions; no filtering."""
    if max(width, height) < _LARGE_PX:
        return 1
    return int(width / _TARGET_PX) if width > height else int(height / _TARGET_PX)


class ImageStatistics:
    """Adds up sampled pictures; `result` gives min, max, mean, std (3, 1, 1) in [0, 1] and count [k]."""

    def __init__(self) -> None:
        self._counts = np.zeros((3, 256), dtype=np.int64)
        self._num_frames = 0

    def add(self, rgb: npt.NDArray[np.uint8], times: int = 1) -> None:
        """Count one [H, W, 3] uint8 picture, `times` times when it stands for several sampled frames."""
        stride = pixel_stride(rgb.shape[1], rgb.shape[0])
        pixels = np.ascontiguousarray(rgb[::stride, ::stride])
        for channel in range(3):
            # float32 bins are exact below 2 ** 24 pixels; a stride keeps pictures far below
            bins = cv2.calcHist([pixels], [channel], None, [256], [0, 256])
            self._counts[channel] += times * bins.ravel().astype(np.int64)
        self._num_frames += times

    def result(self) -> dict[str, npt.NDArray[np.float64]]:
        """The statistics of all pictures added so far."""
        seen = self._counts > 0
        total = self._counts.sum(axis=1)
        mean = self._counts @ _LEVELS / total
        spread = (_LEVELS[None, :] - mean[:, None]) ** 2
        std = np.sqrt((self._counts * spread).sum(axis=1) / total)
        low, high = seen.argmax(axis=1), 255 - seen[:, ::-1].argmax(axis=1)
        values = {"min": low, "max": high, "mean": mean, "std": std}
        shaped = {k: (v / 255.0).reshape(3, 1, 1).astype(np.float64) for k, v in values.items()}
        return shaped | {"count": np.array([self._num_frames], dtype=np.int64)}
