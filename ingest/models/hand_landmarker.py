"""The interface of a hand detector, and MediaPipe's hand landmarker (Tasks API, CPU) as its implementation."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from schemas.errors import ConfigError
from schemas.geometry import Array

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB
HAND_LANDMARKER = "hand-landmarker"  # the model's name on the command line


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectedHand:
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

    def find(self, picture: Picture) -> Sequence[DetectedHand]:
        """All hands of a picture."""
        ...


def open_detector(path: str) -> HandDetector:
    """The detector of a model file, one for each process.

    Raises:
        ConfigError: the extra `hoi` is not installed, or the file is no hand landmarker.
    """
    return landmarker_of(path)


MEMBERS = ("hand_detector.tflite", "hand_landmarks_detector.tflite")
MAX_FILE_BYTES = 64 << 20  # the real one has 7.8 MB
CONFIDENCE = 0.5  # hoi_filter.md §2, the highest precision of those tried
LOW_HEIGHT_PX = 480  # hoi_filter.md §5: pictures lower than this are doubled first
NUM_HANDS = 2
REPAIR = "download it with `eicorpus models get hand-landmarker`"


def read_task_file(path: Path) -> tuple[bytes, int]:
    """The bytes of a `.task` file, and its identity: the first 48 bits of the sha256 of its two networks, however they are packed.

    Raises:
        ConfigError: it is not there, is not a zip, or has not the two networks.
    """
    where, digest = str(path), hashlib.sha256()
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError(f"more than {MAX_FILE_BYTES} bytes", remedy=REPAIR, where=where)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in MEMBERS:
                with archive.open(name) as member:
                    digest.update(member.read(MAX_FILE_BYTES))
    except KeyError as error:
        raise ConfigError(
            f"the hand landmarker cannot be used: {error}", remedy=REPAIR, where=where
        ) from error
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise ConfigError(
            f"the hand landmarker cannot be used: {error}", remedy=REPAIR, where=where
        ) from error
    return data, int(digest.hexdigest()[:12], 16)


class HandLandmarker:
    """One model in this process."""

    def __init__(self, data: bytes, identity: int, where: str) -> None:
        """Raises ConfigError: the extra is not installed, or MediaPipe cannot run the model."""
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ModuleNotFoundError as error:
            problem = f"{error.name} is not installed"
            raise ConfigError(problem, remedy="run pip install 'eicorpus[hoi]'") from error
        options = vision.HandLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=data),
            running_mode=vision.RunningMode.IMAGE,
            num_hands=NUM_HANDS,
            min_hand_detection_confidence=CONFIDENCE,
            min_hand_presence_confidence=CONFIDENCE,
        )
        try:
            self._model: Any = vision.HandLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"MediaPipe cannot run it: {error}", remedy=REPAIR, where=where
            ) from error
        self._mediapipe: Any = mediapipe
        self.identity = identity

    def find(self, picture: Picture) -> Sequence[DetectedHand]:
        """The hands of one picture."""
        if picture.shape[0] < LOW_HEIGHT_PX:
            doubled = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
            picture = np.asarray(doubled, dtype=np.uint8)
        image = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture)
        )
        detected = self._model.detect(image)
        return [
            DetectedHand(points=np.array([[p.x, p.y] for p in points], dtype=np.float64))
            for points in detected.hand_landmarks
        ]


@lru_cache(maxsize=2)
def landmarker_of(path: str) -> HandLandmarker:
    """The model of a file, loaded once in a process.

    Raises:
        ConfigError: see `read_task_file` and `HandLandmarker`.
    """
    return HandLandmarker(*read_task_file(Path(path)), where=path)
