"""Looks for hands in every second picture of a video while it is decoded for everything else, and at how they move.

STEP 2 of 10 Hz: 5 pictures a second. hoi_filter.md §5 asks for at most 10 Hz; its shortest run of contact, 0.5 s, is then three
pictures, and a second of video costs 0.1 s of CPU instead of 0.2 (docs/concepts/interaction.md).

Motion: dense flow (Farnebäck 2003, OpenCV) between neighbouring analysed pictures, grey, shrunk to 160 px of width, the scale of
hoi_filter.md §5. What the median of the whole picture does is the camera's; the hand's is the mean length of the rest in its box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ingest.models.hand_landmarker import DetectedHand, HandDetector, Picture
from schemas.geometry import Array

STEP = 2  # pictures from one that is analysed to the next
FLOW_WIDTH_PX = 160
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenHands:
    """n analysed pictures of one camera, each [n].

    at: timesteps. count: hands found. motion_px_s: of the liveliest hand less the camera's; flow_px_s: the camera's own; both NaN
    where no hand is in this picture or there is none before it. Pixels of a picture 160 wide.
    """

    at: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    motion_px_s: Array
    flow_px_s: Array


class HandObserver:
    """The looker at one video. Memory: one small picture, and four numbers for every analysed one."""

    def __init__(self, detector: HandDetector, rate_hz: float) -> None:
        self._detector, self._rate_hz = detector, rate_hz
        self._rows: list[tuple[int, int, float, float]] = []
        self._before: Any = None

    def wants(self, index: int) -> bool:
        """Whether the picture of this timestep is looked at."""
        return index % STEP == 0

    def see(self, index: int, picture: Picture) -> None:
        """Look at the picture of a timestep; in order."""
        hands = self._detector.find(picture)
        small = _small(picture)
        motion = camera = np.nan
        if hands and self._before is not None:
            per_s = self._rate_hz / STEP
            motion, camera = (v * per_s for v in _moved(self._before, small, hands))
        self._rows.append((index, len(hands), motion, camera))
        self._before = small

    def seen(self) -> SeenHands:
        """Everything seen so far."""
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 4)
        return SeenHands(
            at=rows[:, 0].astype(np.int64),
            count=rows[:, 1].astype(np.int64),
            motion_px_s=rows[:, 2],
            flow_px_s=rows[:, 3],
        )


def _small(picture: Picture) -> Picture:
    height = max(8, round(picture.shape[0] * FLOW_WIDTH_PX / picture.shape[1]))
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (FLOW_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _moved(before: Picture, after: Picture, hands: Sequence[DetectedHand]) -> tuple[float, float]:
    """Pixels that the liveliest hand moved over what the whole picture did, and what that was."""
    start: Any = np.zeros((*after.shape, 2), np.float32)
    flow = cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)
    whole = np.median(flow.reshape(-1, 2), axis=0)
    rest = np.linalg.norm(flow - whole, axis=2)
    lengths = [float(rest[box].mean()) for hand in hands if (box := _box(hand, after.shape))]
    return max(lengths, default=0.0), float(np.linalg.norm(whole))


def _box(hand: DetectedHand, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """The part of a picture that a hand covers; None outside of it."""
    size = np.array(shape[1::-1], dtype=np.float64)
    low = np.clip(np.floor(hand.points.min(axis=0) * size), 0, size).astype(int)
    high = np.clip(np.ceil(hand.points.max(axis=0) * size), 0, size).astype(int)
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])
