"""Options for opening any video: no other files are opened, image sizes are bounded, and damage is an error.

By default libavcodec paints over damaged slices and carries on (measured: a HEVC file with 20 flipped bytes gave 44 of 60
pictures and no error at all).
"""

from __future__ import annotations

from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import Code
from schemas.regular_file import check_regular

if TYPE_CHECKING:
    from av.container import InputContainer

# A text file named .mp4 may be a playlist (ffconcat, HLS) that opens other files: only true containers, only this file.
SAFE_OPEN = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg",
}
# 8K video with room; larger pictures are refused before memory is taken for them
MAX_PIXELS = 8192 * 8192
DECODER_OPTIONS = {
    "err_detect": "crccheck+bitstream+buffer+explode",
    "max_pixels": str(MAX_PIXELS),
    "flags": "bitexact",  # one IDCT on every CPU for MJPEG and MPEG-4; H.264, HEVC, VP9, AV1 are exact anyway
}


def open_video(
    video: Path | RawIOBase,
    *,
    where: str = "",
    options: Mapping[str, str] | None = None,
    format_name: str | None = None,
) -> InputContainer:
    """Open a video file, or an open part of one. The container is a context manager.

    Tags are free text in any encoding, so bytes that are not UTF-8 are replaced.

    Args:
        where: names the file in errors. options: beside `SAFE_OPEN`. format_name: the only format that is tried.

    Raises:
        SourceError: as `schemas.regular_file.open_regular`, MISSING_VIDEO for a file that is not there.
        av.FFmpegError: no video, or a damaged one.
    """
    import av  # here: most of what imports this module reads no video

    source: str | RawIOBase = video if isinstance(video, RawIOBase) else _url(video, where)
    return av.open(
        source,
        mode="r",
        format=format_name,
        options={**(options or {}), **SAFE_OPEN},
        metadata_errors="replace",
    )


def _url(path: Path, where: str) -> str:
    """libav reads the file itself; a name with a colon must not be taken for a protocol."""
    check_regular(path, where=where, missing=Code.MISSING_VIDEO)
    return f"file:{path.resolve()}"
