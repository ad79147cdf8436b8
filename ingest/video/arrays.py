"""Raw pictures in an HDF5 or Zarr array: read piece by piece, so that memory does not depend on the episode's length.

Turning them over (`is_upside_down`) and swapping red and blue happen here, on views; the encoder sees upright RGB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame

from adapters.containers.zarr_array import ZarrArray, zarr_array
from adapters.containers.zarr_store import ZarrStore
from schemas.av_options import MAX_PIXELS
from schemas.episode import ArrayFrames
from schemas.errors import Code, SourceError

if TYPE_CHECKING:
    from adapters.containers.hdf5 import Hdf5File

CODEC = "rawvideo"


def check_array(frames: ArrayFrames) -> None:
    """Refuse an array that cannot hold the frames referred to; no picture is read.

    Raises:
        SourceError: UNKNOWN_LAYOUT, FRAME_COUNT, TOO_LARGE, or whatever the container's reader finds.
    """
    shape = _shape(frames)
    where = f"{frames.path}:{frames.key}"
    if len(shape) != 4 or shape[3] != 3:
        problem = f"array {list(shape)}; expected [N, H, W, 3]"
        raise SourceError(Code.UNKNOWN_LAYOUT, problem, where=where)
    if shape[0] < frames.first_frame + frames.num_frames:
        problem = (
            f"{shape[0]} pictures; {frames.num_frames} are expected from {frames.first_frame} on"
        )
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    if not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        problem = f"{shape[2]} x {shape[1]} pixels; at most {MAX_PIXELS} in all"
        raise SourceError(Code.TOO_LARGE, problem, where=where)


def array_pictures(frames: ArrayFrames, indices: Sequence[int]) -> Iterator[VideoFrame]:
    """The pictures `indices` (ascending, counted from `first_frame`), upright, one at a time; raises as `check_array`."""
    check_array(frames)
    layout = "bgr24" if frames.is_bgr else "rgb24"
    for picture in _rows(frames, [frames.first_frame + i for i in indices]):
        upright = picture[::-1] if frames.is_upside_down else picture
        yield VideoFrame.from_ndarray(np.ascontiguousarray(upright), format=layout)


def _zarr(frames: ArrayFrames) -> ZarrArray:
    path = Path(frames.path)
    return zarr_array(ZarrStore(path=path, where=path.name), frames.key)


def _hdf5(frames: ArrayFrames) -> Hdf5File:
    from adapters.containers.hdf5 import Hdf5File  # h5py, where an episode has such arrays

    return Hdf5File(Path(frames.path))


def _shape(frames: ArrayFrames) -> tuple[int, ...]:
    if frames.container == "zarr":
        return _zarr(frames).shape
    with _hdf5(frames) as file:
        return file.picture_shape(frames.key)


def _rows(frames: ArrayFrames, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
    if frames.container == "zarr":
        yield from _zarr(frames).pictures(indices)
        return
    with _hdf5(frames) as file:
        yield from file.pictures(frames.key, indices)
