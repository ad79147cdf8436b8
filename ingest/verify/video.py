"""Is a video what was committed: the bytes, one picture a row at exactly k / fps, H.264 with closed groups of pictures?

Packets are listed, not decoded, but for the first and the last picture; `deep` decodes every one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.corpus.committed_episodes import CommittedEpisode
from ingest.storage.local import within
from ingest.verify.files import differs_from_catalog, problem_opening
from ingest.verify.finding import CheckCode, Finding, finding
from ingest.verify.rows import EpisodePlace
from ingest.video.h264_profile import unplayed_profile
from ingest.video.source import Video, decoded, open_video, pts_of, span_packets
from schemas.errors import SourceError, TransientError

_IDR = 5  # nal_unit_type of ITU-T H.264 table 7-1; 1..5 hold slices of pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a video's packets say, without decoding. Times are exact, in presentation order."""

    num_streams: int
    codec: str
    pix_fmt: str
    size: tuple[int, int]  # width, height
    times_s: Sequence[Fraction]
    instants_ns: Sequence[int]  # the same, as `video_source.decoded` wants them
    key_ranks: Sequence[int]  # presentation ranks of keyframes
    num_open_keys: (
        int  # keyframes that are no IDR: pictures after them may refer to pictures before
    )


def video_findings(
    corpus: Path, stored: CommittedEpisode, camera: str, place: EpisodePlace, *, deep: bool
) -> Iterator[Finding]:
    """Everything about one camera of one episode."""
    path, length = stored.video_path(camera), stored.row.length
    problem = problem_opening(corpus, path)
    if problem is not None:
        yield problem
        return
    artifact = stored.artifact("video", camera)
    if artifact is not None:
        yield from differs_from_catalog(corpus, path, artifact.num_bytes, artifact.sha256)
    try:
        with open_video(str(within(corpus, path)), num_threads=1) as video:
            listing = listed(video, at_most=2 * length + 100)
        yield from listing_findings(path, listing, length, camera, place)
        shown = listing.instants_ns
        if deep and shown:
            _decode(within(corpus, path), shown)
        elif shown:
            _decode(within(corpus, path), shown[:1])
            _decode(within(corpus, path), shown[-1:])
    except (SourceError, TransientError) as error:
        yield finding(
            CheckCode.VIDEO_UNREADABLE, path, error.message, "a video that can be decoded"
        )


def profile_not_played(corpus: Path, path: str) -> str:
    """The name of its H.264 profile, where browsers do not play that; "" of all others, and of a file that `video_findings` reports."""
    if problem_opening(corpus, path) is not None:
        return ""
    try:
        with open_video(str(within(corpus, path)), num_threads=1) as video:
            context = video.stream.codec_context
            return unplayed_profile(context.extradata) if context.name == "h264" else ""
    except (SourceError, TransientError):
        return ""


def listed(video: Video, *, at_most: int) -> Listing:
    """List the packets of a video, `at_most` so many.

    Raises:
        SourceError: the container is damaged.
    """
    context = video.stream.codec_context
    # ISO/IEC 14496-15 §5.3.3: `avcC` states how many bytes each NAL length has
    extradata = context.extradata or b""
    length_size = (extradata[4] & 3) + 1 if len(extradata) > 6 and extradata[0] == 1 else 4
    entries: list[tuple[int, bool]] = []
    num_open_keys = 0
    for packet in islice(span_packets(video, 0), at_most):
        entries.append((pts_of(packet), packet.is_keyframe))
        num_open_keys += packet.is_keyframe and slice_kinds(packet, length_size) != {_IDR}
    entries.sort()
    return Listing(
        num_streams=len(video.container.streams),
        codec=context.codec.canonical_name,
        pix_fmt=context.pix_fmt or "",
        size=(context.width, context.height),
        times_s=[pts * video.time_base for pts, _ in entries],
        instants_ns=[video.ns(pts) for pts, _ in entries],
        key_ranks=[rank for rank, (_, is_key) in enumerate(entries) if is_key],
        num_open_keys=num_open_keys,
    )


def slice_kinds(packet: Packet[VideoStream], length_size: int) -> set[int]:
    """NAL unit types of the picture slices in one packet. Written apart from the writer's own check on purpose."""
    data, at, kinds = bytes(packet), 0, set()
    while at + length_size < len(data):
        kind = data[at + length_size] & 0x1F
        if 1 <= kind <= _IDR:
            kinds.add(kind)
        at += length_size + int.from_bytes(data[at : at + length_size], "big")
    return kinds


def listing_findings(
    path: str, listing: Listing, length: int, camera: str, place: EpisodePlace
) -> Iterator[Finding]:
    """Compare a listing with the rules of design §3.1 and §4."""
    height, width, _ = place.dataset.features[f"observation.images.{camera}"]["shape"]
    is_format = (listing.num_streams, listing.codec, listing.pix_fmt, listing.size)
    required = (1, "h264", "yuv420p", (width, height))
    if is_format != required:
        what = f"streams, codec, pixel format and size {is_format}"
        yield finding(CheckCode.VIDEO_FORMAT, path, what, required)
    if len(listing.times_s) != length:
        what = f"{len(listing.times_s)} pictures"
        yield finding(CheckCode.VIDEO_FRAMES, path, what, f"{length}, one for each row")
    wrong = (
        (k, at_s)
        for k, at_s in enumerate(listing.times_s)
        if at_s != Fraction(k, place.dataset.fps)
    )
    for k, at_s in islice(wrong, 1):
        what = f"picture {k} at {float(at_s):.6f} s"
        expected = f"{float(Fraction(k, place.dataset.fps)):.6f} s exactly"
        yield finding(CheckCode.VIDEO_TIMES, path, what, expected)
    gaps = np.diff([*listing.key_ranks, len(listing.times_s)])
    worst = int(gaps.max(initial=0))
    if worst > place.gop or (listing.times_s and list(listing.key_ranks[:1]) != [0]):
        what = f"keyframes at {list(listing.key_ranks[:5])} …, up to {worst} frames apart"
        yield finding(CheckCode.VIDEO_KEYFRAMES, path, what, f"from 0, at most {place.gop} apart")
    if listing.num_open_keys and listing.codec == "h264":
        what = f"{listing.num_open_keys} keyframes that are not IDR frames"
        yield finding(CheckCode.VIDEO_KEYFRAMES, path, what, "closed groups of pictures (GOPs)")


def _decode(path: Path, instants_ns: Sequence[int]) -> None:
    """Decode the pictures at these instants; SourceError when one does not come out."""
    with open_video(str(path), num_threads=1) as video:
        for _ in decoded(video, np.asarray(instants_ns, dtype=np.int64)):
            pass
