"""What LeRobot 0.3.3 misses in a newer torchvision, put back before it is imported.

Two gaps (torchvision 0.28.0 beside a CPU torch 2.13.0):
1. The wheel is built for CUDA, so its compiled operators do not load on a CPU-only torch, and importing torchvision fails
   at the first mention of `torchvision::nms`. Declaring the operators' signatures is enough for all that reading needs.
2. `torchvision.io.VideoReader` is gone. It is what LeRobot's "pyav" backend decodes with; `PyAvReader` has the part of its
   behaviour that LeRobot uses: seek to the key frame at or before a time, then iterate over frames with their times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import torch

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# The registration lives as long as this object.
FRAGMENT = torch.library.Library("torchvision", "FRAGMENT")


class PyAvReader:
    """The old `torchvision.io.VideoReader(path, "video")`, over PyAV."""

    def __init__(self, path: str, stream: str = "video") -> None:
        if stream != "video":
            raise ValueError(f"only the video stream can be read here, not {stream!r}")
        self.container = av.open(path)
        self.video = self.container.streams.video[0]

    def seek(self, time_s: float, *, keyframes_only: bool = False) -> PyAvReader:
        """Go to the last key frame at or before `time_s`; PyAV has no other seek, hence the ignored option."""
        del keyframes_only
        assert self.video.time_base is not None  # an open stream has one
        offset = int(time_s / self.video.time_base)
        self.container.seek(offset, stream=self.video, backward=True, any_frame=False)
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Frames in presentation order: `data` uint8 [3, H, W] RGB, `pts` in seconds."""
        for frame in self.container.decode(self.video):
            rgb = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            yield {"data": rgb.permute(2, 0, 1), "pts": frame.time}


def install() -> None:
    """Fill both gaps. Call it once, before anything of LeRobot is imported."""
    if (
        torch.version.cuda is None
    ):  # else torchvision's own operators load, and a second definition clashes
        for signature in OPERATORS:
            FRAGMENT.define(signature)
    import torchvision.io

    if not hasattr(torchvision.io, "VideoReader"):
        torchvision.io.VideoReader = PyAvReader
