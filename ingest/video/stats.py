"""Picture statistics by the rules of LeRobot v2.1, streaming and exact.

Source of the rules: huggingface/lerobot v0.3.3 `src/lerobot/datasets/compute_stats.py` (formats/oxe_lerobot.md §1.6):
sampled frames, every f-th pixel of large pictures, population std, divided by 255, shape (3, 1, 1). Pixels are bytes, so
one histogram per channel holds them all without rounding.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

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
