"""One pass over a canonical video: for every picture a few numbers and a thumbnail, so that no measure decodes again.

Luma is 0..255 whatever range the file has. Steps are between neighbouring pictures, on their thumbnails: at 1/20 of the area the
noise of a sensor and of the codec is averaged away, so what is left has moved. Measured with x264 at crf 23 and a keyframe every
10 pictures: a repeated picture of 256 px changes by at most 4 luma in any of the 3072 cells (the keyframes; GR-1, VITRA), one of
Bridge's 64 px, which cannot be shrunk, by 12; a static one with sensor noise of 5 luma by 5, the hand of a generated robot by 45.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from schemas.av_options import open_video
from schemas.errors import Code, SourceError, system_error_text
from schemas.geometry import Array

THUMB_WIDTH, THUMB_HEIGHT = 64, 48
NOISE_LUMA = 3.0  # a change of a cell up to this is no motion
STILL_LUMA = 6.0  # a picture of which no cell changes by more is the one before, if cells are means of 4 x 4 pixels or more
STILL_SHRINK = 4.0
BRIGHT_LUMA = 250
Luma = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFacts:
    """K pictures of one camera, luma 0..255, and the K - 1 steps between them.

    thumbs: [K, 48, 64] uint8, the picture's luma shrunk by area.
    mean, contrast: [K] mean and standard deviation of the luma.
    sharpness: [K] variance of the Laplacian of the luma (Pech-Pacheco et al. 2000), at the stored size.
    bright: [K] share of pixels at a luma of 250 or more.
    change, largest_change: [K - 1] mean and largest absolute difference of the cells of neighbouring thumbnails.
    repeated: [K - 1] whether no cell changes by more than the codec makes it.
    energy: [K - 1] mean of what the difference exceeds NOISE_LUMA by; 0 where repeated.
    """

    thumbs: Luma
    mean: Array
    contrast: Array
    sharpness: Array
    bright: Array
    change: Array
    largest_change: Array
    repeated: npt.NDArray[np.bool_]
    energy: Array


class Watcher(Protocol):
    """Looks at some of the pictures in colour while they are decoded for everybody."""

    def wants(self, index: int) -> bool: ...

    def see(self, index: int, picture: Luma) -> None:
        """`picture`: [H, W, 3] RGB."""


def look_at(path: Path, length: int, watcher: Watcher | None = None) -> ImageFacts:
    """Decode the whole video once, in bounded memory.

    Raises:
        SourceError: it cannot be decoded, or has another number of pictures than the catalog says.
    """
    try:
        return facts_of(_lumas(path, watcher), length)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise SourceError(
            Code.CORRUPT_VIDEO,
            f"{system_error_text(error, str(path))}; run `eicorpus verify`",
            where=str(path),
        ) from error
    except _OtherLengthError as error:
        problem = (
            f"the video has {error} frames, the catalog states {length}; run `eicorpus verify`"
        )
        raise SourceError(Code.FRAME_COUNT, problem, where=str(path)) from error


class _OtherLengthError(Exception):
    """How many pictures there are instead."""


def facts_of(lumas: Iterator[Luma], length: int) -> ImageFacts:
    """What is seen in `length` pictures, each [H, W] uint8."""
    thumbs = np.empty((length, THUMB_HEIGHT, THUMB_WIDTH), dtype=np.uint8)
    numbers = np.empty((length, 4))
    steps = np.zeros((length, 3))
    count = area = 0
    for luma in lumas:
        area = luma.size
        if count < length:
            thumbs[count] = _thumb(luma)
            numbers[count] = _numbers(luma)
            if count:
                steps[count] = _step(thumbs[count - 1], thumbs[count])
        count += 1
    if count != length:
        raise _OtherLengthError(str(count))
    mean, contrast, sharpness, bright = numbers.T
    change, largest, energy = steps[1:].T
    repeated = largest <= _still_luma(area)
    return ImageFacts(
        thumbs=thumbs,
        mean=mean,
        contrast=contrast,
        sharpness=sharpness,
        bright=bright,
        change=change,
        largest_change=largest,
        repeated=repeated,
        energy=np.where(repeated, 0.0, energy),
    )


def _still_luma(num_pixels: int) -> float:
    """The mean of fewer pixels leaves more of the codec's noise, as one over the root of their number."""
    shrink = max(1.0, math.sqrt(num_pixels / (THUMB_WIDTH * THUMB_HEIGHT)))
    return STILL_LUMA * max(1.0, STILL_SHRINK / shrink)


def _lumas(path: Path, watcher: Watcher | None) -> Iterator[Luma]:
    to_gray = (
        VideoReformatter()
    )  # one for all pictures: making its context costs as much as decoding
    with open_video(path) as container:
        container.streams.video[0].thread_count = 1
        for index, frame in enumerate(container.decode(video=0)):
            if watcher is not None and watcher.wants(index):
                watcher.see(index, np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
            gray = to_gray.reformat(frame, format="gray")
            yield np.asarray(gray.to_ndarray(), dtype=np.uint8)


def _thumb(luma: Luma) -> Luma:
    small = cv2.resize(luma, (THUMB_WIDTH, THUMB_HEIGHT), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _numbers(luma: Luma) -> tuple[float, float, float, float]:
    mean, deviation = cv2.meanStdDev(luma)
    _, spread = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    bright = np.count_nonzero(luma >= BRIGHT_LUMA) / luma.size
    return float(mean[0, 0]), float(deviation[0, 0]), float(spread[0, 0] ** 2), bright


def _step(before: Luma, after: Luma) -> tuple[float, float, float]:
    moved = cv2.absdiff(before, after)
    beyond = np.maximum(moved.astype(np.float64) - NOISE_LUMA, 0.0)
    return float(moved.mean()), float(moved.max()), float(beyond.mean())
