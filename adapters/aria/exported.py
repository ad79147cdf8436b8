"""A video that `projectaria_tools`' vrs_to_mp4 made of a recording: each picture's device time is in the file.

Source: `facebookresearch/projectaria_tools:projectaria_tools/tools/vrs_to_mp4/vrs_to_mp4_utils.py` (code): the tag `description`
holds the times in ns, comma-separated, one a picture; Gen1's pictures are turned by 90 degrees clockwise. The tool shows the
nearest picture at each instant of a constant rate, so that a picture may come twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from adapters.containers.video_probe import probe_video
from schemas.av_options import open_video
from schemas.errors import Code, SourceError, system_error_text

TAG = "description"
MAX_TAG_CHARS = 64 << 20
_TIMES = re.compile(r"\[?\s*\d{1,18}(?:\s*,\s*\d{1,18})*\s*\]?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExportedVideo:
    """`t_ns` [N] device clock, None where the file carries no times; `num_repeated` of them were the time before."""

    path: Path
    num_frames: int
    size: tuple[int, int]  # (width, height)
    t_ns: npt.NDArray[np.int64] | None
    num_repeated: int


def exported_video(path: Path) -> ExportedVideo:
    """Size and times; nothing is decoded.

    A picture that is shown again is stamped 1 ns after itself: it is of that instant, and a clock has to increase.

    Raises:
        SourceError: as `probe_video`; FRAME_COUNT (not one time a picture), CLOCK_NOT_INCREASING (a time goes back).
    """
    probe = probe_video(path)
    times = _times(path)
    num_repeated = 0
    if times is not None:
        if len(times) != probe.num_frames:
            problem = (
                f"{len(times)} timestamps for {probe.num_frames} frames; export the video again"
            )
            raise SourceError(Code.FRAME_COUNT, problem, where=path.name)
        if np.any(np.diff(times) < 0):
            raise SourceError(Code.CLOCK_NOT_INCREASING, "timestamps decrease", where=path.name)
        num_repeated = int((np.diff(times) == 0).sum())
        times = _increasing(times)
    return ExportedVideo(
        path=path,
        num_frames=probe.num_frames,
        size=(probe.width_px, probe.height_px),
        t_ns=times,
        num_repeated=num_repeated,
    )


def _times(path: Path) -> npt.NDArray[np.int64] | None:
    try:
        with open_video(path) as container:
            text = container.metadata.get(TAG, "")
    except (av.FFmpegError, OSError) as error:
        raise SourceError(
            Code.CORRUPT_VIDEO,
            f"not a readable video: {system_error_text(error, path.name)}; download the file again",
            where=path.name,
        ) from error
    if len(text) > MAX_TAG_CHARS or not _TIMES.fullmatch(text):
        return None
    return np.array([int(t) for t in text.strip("[] ").split(",")], dtype=np.int64)


def _increasing(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each of a run of equal times 1 ns after the one before."""
    index = np.arange(len(times))
    starts = np.concatenate([[True], np.diff(times) > 0])
    return np.asarray(times + index - np.maximum.accumulate(np.where(starts, index, 0)))
