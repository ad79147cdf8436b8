"""What finds hands in a picture, as the filter sees it; the real one is ingest/models/hand_landmarker.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.geometry import Array

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB
HAND_LANDMARKER = "hand-landmarker"  # the model's name on the command line


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundHand:
    """`points`: [21, 2] x and y over the picture's width and height, which a hand may leave.

    No side and no score: MediaPipe's side is wrong at .985 on a true ego hand (hoi_filter.md §2), and the only score that its Tasks API
    gives is that of the side.
    """

    points: Array


class HandDetector(Protocol):
    """Stateless: the same picture gives the same hands, whatever was asked before and on whichever worker."""

    @property
    def identity(self) -> int:
        """First 48 bits of the sha256 of the model: whole as a float64."""
        ...

    def find(self, picture: Picture) -> Sequence[FoundHand]:
        """All hands of a picture."""
        ...


def open_detector(path: str) -> HandDetector:
    """The detector of a model file, one for each process.

    Raises:
        ConfigError: the extra `hoi` is not installed, or the file is no hand landmarker.
    """
    from ingest.models.hand_landmarker import landmarker_of  # mediapipe takes a second

    detector: Any = landmarker_of(path)
    return detector  # type: ignore[no-any-return]
