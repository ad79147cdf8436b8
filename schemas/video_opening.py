"""How a video file is opened, whoever looks at it: nothing else is followed, pictures are bounded, and damage is an error.

By default libavcodec paints over damaged slices and carries on (measured: a HEVC file with 20 flipped bytes gave 44 of 60
pictures and no error at all).
"""

from __future__ import annotations

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
