"""Images outside of video files: compressed ones in memory (JPEG, PNG), checked before they are decoded, and raw arrays in HDF5 or Zarr, read block by block."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from adapters.containers.zarr_array import ZarrArray, zarr_array
from adapters.containers.zarr_store import ZarrStore
from schemas.av_options import DECODER_OPTIONS, MAX_PIXELS
from schemas.episode import ArrayFrames
from schemas.errors import Code, SourceError, system_error_text

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
            f"{shape[0]} images; expected {frames.num_frames} from index {frames.first_frame} on"
        )
        raise SourceError(Code.FRAME_COUNT, problem, where=where)
    if not 0 < shape[1] * shape[2] <= MAX_PIXELS:
        problem = f"{shape[2]} x {shape[1]} pixels; expected at most {MAX_PIXELS} pixels"
        raise SourceError(Code.TOO_LARGE, problem, where=where)


def array_images(frames: ArrayFrames, indices: Sequence[int]) -> Iterator[VideoFrame]:
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


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Start-of-frame markers of ITU T.81 table B.1: C0..CF without DHT (C4), JPG (C8) and DAC (CC).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH = frozenset(range(0xD0, 0xD8)) | {0x01}


def image_codec(data: bytes, where: str) -> str:
    """`mjpeg` or `png`, from the first bytes.

    Raises:
        SourceError: neither.
    """
    if data.startswith(_JPEG):
        return "mjpeg"
    if data.startswith(_PNG):
        return "png"
    raise SourceError(
        Code.CORRUPT_IMAGE, f"starts with {data[:8].hex()}; expected JPEG or PNG", where=where
    )


def image_size(data: bytes, where: str) -> tuple[int, int]:
    """(width, height) from the header alone, so that a bomb is refused before memory is taken for it.

    Raises:
        SourceError: no size in the header, zero, or more than `MAX_PIXELS`.
    """
    size = _png_size(data) if image_codec(data, where) == "png" else _jpeg_size(data)
    if size is None or 0 in size:
        raise SourceError(Code.CORRUPT_IMAGE, "the header states no image size", where=where)
    if size[0] * size[1] > MAX_PIXELS:
        problem = f"{size[0]} x {size[1]} pixels; expected at most {MAX_PIXELS} pixels"
        raise SourceError(Code.CORRUPT_IMAGE, problem, where=where)
    return size


def decoded_images(
    images: Sequence[bytes], indices: Sequence[int], camera: str
) -> Iterator[VideoFrame]:
    """Decode `images[i]` for each i of `indices`, one at a time.

    Raises:
        SourceError: not a picture, cut or damaged, or depth (16-bit grey) instead of colour.
    """
    decoders: dict[str, VideoCodecContext] = {}
    for i in indices:
        where = f"camera {camera}, picture {i}"
        image_size(images[i], where)
        name = image_codec(images[i], where)
        if name not in decoders:
            decoders[name] = _decoder(name)
        yield _decoded(decoders[name], images[i], where)


def _decoded(decoder: VideoCodecContext, data: bytes, where: str) -> VideoFrame:
    packet = Packet(data)
    packet.is_keyframe = True  # else libavcodec's PNG decoder ADDS the picture to the one before
    try:
        frames = decoder.decode(packet)
    except av.error.FFmpegError as error:
        raise SourceError(
            Code.CORRUPT_IMAGE,
            f"{system_error_text(error, where)}; download the file again",
            where=where,
        ) from error
    if len(frames) != 1 or frames[0].is_corrupt:
        problem = f"{len(frames)} images decoded, or a damaged one; expected 1"
        raise SourceError(Code.CORRUPT_IMAGE, problem, where=where)
    if frames[0].format.name.startswith(("gray1", "ya16")):
        problem = f"{frames[0].format.name}: a 16-bit grey image is depth, not colour; exclude this camera"
        raise SourceError(Code.CORRUPT_IMAGE, problem, where=where)
    return frames[0]


def _decoder(name: str) -> VideoCodecContext:
    decoder = VideoCodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    decoder.options = dict(DECODER_OPTIONS)
    return decoder


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the marker segments to the start of frame (ITU T.81 §B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _SOF:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        elif marker in _NO_LENGTH:
            at += 2
        else:
            at += 2 + max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])
    return None
