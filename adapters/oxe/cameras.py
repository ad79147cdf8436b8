"""Cameras of one RLDS episode, and whether two of them disagree about which channel is red.

Cameras of one RLDS episode: real ones as compressed pictures, empty slots left out with a fact that says so.

Bridge fills unused camera slots with one black 691-byte JPEG for every step, and its `has_image_k` flags are 0 even for
real cameras (seen on 25 real episodes): so the pixels are tested, not the flag.

Do two cameras of one set disagree about which channel is red? Hue statistics of the same scene, seen twice.

Two cameras that are both right, or both flipped, look alike: so this can only contradict a claim, never prove one, and a
set with one camera is left undecided.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from adapters.containers.rlds_steps import Steps
from adapters.oxe.registry import CameraEntry, OxeSet
from schemas.episode import Camera, EncodedImages
from schemas.errors import Code, SourceError
from schemas.fact import Certainty, Fact

# -- cameras -------------------------------------------------------------------------------------------------------

COLOUR_SPREAD = 8  # grey levels of 255: a picture within this of one colour shows nothing
LOOKED_AT = 4  # distinct pictures decoded before a camera may be called empty


def cameras_of(
    steps: Steps, entry: OxeSet, t_ns: npt.NDArray[np.int64]
) -> tuple[tuple[Camera, ...], tuple[Fact, ...]]:
    """The rgb cameras this set declares and this episode really has, and one fact for each left out.

    Raises:
        SourceError: FRAME_COUNT, CORRUPT_IMAGE or TOO_LARGE, as `Steps.images`.
    """
    cameras, facts = [], []
    for camera in entry.cameras:
        if f"steps/{camera.key}" not in steps.leaves:
            continue
        reason = None if steps.has(camera.key) else "the record has no such leaf"
        images: tuple[bytes, ...] = ()
        if reason is None:
            images = steps.images(camera.key)
            reason = emptiness(images, camera.key)
        if reason is not None:
            facts.append(_left_out(camera, reason))
            continue
        frames = EncodedImages(images=images, is_bgr=camera.is_bgr)
        cameras.append(Camera(name=camera.name, frames=frames, t_ns=t_ns))
    return tuple(cameras), tuple(facts)


def emptiness(images: tuple[bytes, ...], where: str) -> str | None:
    """Why a camera shows nothing, or None when it shows something.

    Raises:
        SourceError: CORRUPT_IMAGE when a picture that must be looked at does not decode.
    """
    distinct = sorted(set(images))
    colours = []
    for data in distinct[:LOOKED_AT]:
        picture = decoded(data, where)
        low, high = picture.min(axis=(0, 1)), picture.max(axis=(0, 1))
        if (high.astype(int) - low).max() > COLOUR_SPREAD:
            return None
        colours.append(tuple(int(c) for c in picture[0, 0][::-1]))
    if len(distinct) > LOOKED_AT:  # pictures that vary are worth keeping, dark or not
        return None
    sizes = sorted({len(data) for data in distinct})
    return f"one colour in every step (RGB {colours[0]}, {len(distinct)} distinct, {sizes} bytes)"


def decoded(data: bytes, where: str) -> npt.NDArray[np.uint8]:
    """[H, W, 3] uint8 in OpenCV's BGR; its size was bounded when the header was read. Raises SourceError CORRUPT_IMAGE."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(Code.CORRUPT_IMAGE, f"does not decode: {error}", where=where) from error
    if picture is None:
        raise SourceError(
            Code.CORRUPT_IMAGE, f"an image of {len(data)} bytes does not decode", where=where
        )
    return np.asarray(picture, dtype=np.uint8)


def _left_out(camera: CameraEntry, reason: str) -> Fact:
    return Fact(
        name=f"camera_left_out.{camera.name}",
        value=reason,
        certainty=Certainty.VERIFIED,
        source="measured on this episode's pictures",
        is_for_actions=False,
    )


# -- colour --------------------------------------------------------------------------------------------------------

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
