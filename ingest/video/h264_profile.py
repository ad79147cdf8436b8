"""The profile of an H.264 stream: which browsers play it, and its name in a media type.

Ingest copies packets that need no change, whatever their profile: losing nothing is worth more to training than being played. A lossless file of
x264 has the profile High 4:4:4 Predictive although its colour is 4:2:0. Every decoder of FFmpeg reads it; Firefox and Safari do not play it.
"""

from __future__ import annotations

_NAMES = {
    44: "CAVLC 4:4:4 Intra",
    66: "Baseline",
    77: "Main",
    88: "Extended",
    100: "High",
    110: "High 10",
    122: "High 4:2:2",
    244: "High 4:4:4 Predictive",
}  # profile_idc, ITU-T H.264 Annex A
_PLAYED = frozenset({66, 77, 100})


def unplayed_profile(extradata: bytes | None) -> str:
    """The name of a profile that browsers do not play, from the `avcC` of a stream (ISO/IEC 14496-15 §5.3.3); "" for the others."""
    profile = _profile_idc(extradata)
    return "" if profile is None or profile in _PLAYED else _NAMES.get(profile, f"{profile}")


def media_type(extradata: bytes | None) -> str:
    """Of an MP4 file with this stream, with the codec as RFC 6381 §3.3 writes it: what a browser is asked whether it plays."""
    if extradata is None or _profile_idc(extradata) is None:
        return "video/mp4"
    return f'video/mp4; codecs="avc1.{extradata[1:4].hex().upper()}"'


def _profile_idc(extradata: bytes | None) -> int | None:
    is_avcc = extradata is not None and len(extradata) > 6 and extradata[0] == 1
    return extradata[1] if is_avcc and extradata is not None else None
