"""The videos of one rollout episode: H.264 by the encoder of the corpus, one file for each camera, named when they are whole."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from ingest.recipe import VideoSettings
from ingest.video.encode import Encoder, seal, x264_options
from ingest.video.scale import Scaler
from training.rollout.episodes import video_path


class EpisodeVideos:
    """Use as a context manager; an error removes what was begun.

    Raises:
        TransientError: the disk is full or fails.
        SourceError: a camera's pictures change their size.
    """

    def __init__(self, out: Path, number: int, rate_hz: Fraction) -> None:
        self._out, self._number, self._rate_hz = out, number, rate_hz
        self._recipe = VideoSettings()
        self._open: dict[str, tuple[Scaler, Encoder]] = {}
        self._num_pictures: dict[str, int] = {}
        self.files: dict[str, dict[str, str | int]] = {}

    def __enter__(self) -> Self:
        return self

    def add(self, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """One picture [H, W, 3] RGB of every camera: those of the next timestep."""
        for camera, image in pictures.items():
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            scaler, encoder = self._of(camera, frame)
            step = self._num_pictures.get(camera, 0)
            encoder.write(scaler.scale(frame), step)
            self._num_pictures[camera] = step + 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for camera, (_, encoder) in self._open.items():
            encoder.__exit__(kind, error, trace)
            if kind is None:
                self._name(camera)

    def _of(self, camera: str, first: VideoFrame) -> tuple[Scaler, Encoder]:
        if camera not in self._open:
            recipe = self._recipe
            scaler = Scaler(first, short_side_px=recipe.short_side_px, where=f"camera {camera}")
            options = x264_options(crf=recipe.crf, preset=recipe.preset, gop=recipe.gop)
            part = self._part(camera)
            encoder = Encoder(part, scaler.size, scaler.colour, self._rate_hz, options)
            self._open[camera] = (scaler, encoder)
        return self._open[camera]

    def _name(self, camera: str) -> None:
        sha256, num_bytes = seal(self._part(camera))
        path = video_path(self._number, camera)
        self._part(camera).replace(self._out / path)
        self.files[camera] = {
            "path": path,
            "sha256": sha256,
            "num_bytes": num_bytes,
            "num_pictures": self._num_pictures[camera],
        }

    def _part(self, camera: str) -> Path:
        path = self._out / video_path(self._number, camera)
        return path.with_name(f".{path.name}.part")
