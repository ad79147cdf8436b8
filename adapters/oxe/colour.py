"""Do two cameras of one set disagree about which channel is red? Hue statistics of the same scene, seen twice.

Two cameras that are both right, or both flipped, look alike: so this can only contradict a claim, never prove one, and a
set with one camera is left undecided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from adapters.oxe.cameras import decoded

MIN_EPISODES = 8
STRONG = 0.4  # difference of mean histogram correlations
Histogram = npt.NDArray[np.float32]


@dataclass(slots=True)
class HueStatistic:
    """Grows by one picture per camera and episode; keeps histograms, not pictures."""

    episodes: list[dict[str, tuple[Histogram, Histogram]]] = field(default_factory=list)

    def add(self, pictures: dict[str, tuple[bytes, bool]]) -> None:
        """`pictures` has one compressed picture and its claimed `is_bgr` per camera. Raises SourceError CORRUPT_IMAGE."""
        histograms = {}
        for name, (data, is_bgr) in pictures.items():
            stored = decoded(data, name)  # BGR for OpenCV, if the file holds RGB as it should
            claimed = stored[..., ::-1] if is_bgr else stored
            histograms[name] = (_histogram(claimed), _histogram(claimed[..., ::-1]))
        self.episodes.append(histograms)

    def contradictions(self) -> dict[tuple[str, str], str]:
        """Evidence for each pair of cameras whose claimed orders cannot both hold."""
        names = sorted({name for episode in self.episodes for name in episode})
        pairs_of_cameras = {}
        for a, b in combinations(names, 2):
            both = [(e[a], e[b]) for e in self.episodes if a in e and b in e]
            if len(both) < MIN_EPISODES:
                continue
            as_claimed = float(np.mean([_alike(x[0], y[0]) for x, y in both]))
            one_flipped = float(
                np.mean([(_alike(x[1], y[0]) + _alike(x[0], y[1])) / 2 for x, y in both])
            )
            if one_flipped - as_claimed > STRONG:
                pairs_of_cameras[a, b] = (
                    f"hues of {a} and {b} correlate {as_claimed:.2f} as claimed and {one_flipped:.2f} with one of "
                    f"them flipped, over {len(both)} episodes"
                )
        return pairs_of_cameras


def _histogram(bgr: npt.NDArray[np.uint8]) -> Histogram:
    """Hue of the coloured pixels, 24 bins, weighted by saturation; its sum is 1 or 0."""
    hsv = cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2HSV)
    hue, saturation = hsv[..., 0].ravel(), hsv[..., 1].ravel().astype(np.float64)
    weights = np.where(saturation > 40, saturation, 0.0)
    counts = np.histogram(hue, bins=24, range=(0, 180), weights=weights)[0]
    return (counts / max(float(counts.sum()), 1e-9)).astype(np.float32)


def _alike(a: Histogram, b: Histogram) -> float:
    """Pearson correlation of two histograms; 0 when one is flat."""
    x, y = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / size if size > 1e-9 else 0.0
