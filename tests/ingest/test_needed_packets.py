"""Leaving out packets changes no picture: against a plain decode of everything, over codecs, clocks and damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from ingest.recipe import VideoSettings
from ingest.video import needed_packets, source
from ingest.video.camera_video import frame_clock, nearest_frames, write_video
from ingest.video.needed_packets import NeededPackets
from ingest.video.packet_syntax import PacketRole, reader_of
from ingest.video.source import decoded, open_video, window_times
from schemas.episode import Camera, VideoWindow
from schemas.errors import Code, SourceError
from schemas.rate import NS_PER_S, instants_ns
from tests.ingest.video_files import CODECS, textured, write_source

TEN = Fraction(10)
X264 = "keyint=12:scenecut=0:b-adapt=0"
# name -> (encoder, options, suffix); beside tests.ingest.video_files.CODECS
MORE = {
    "h264_pyramid": ("libx264", {"x264-params": f"{X264}:bframes=5:b-pyramid=normal:ref=4"}, ".mp4"),
    "h264_strict_pyramid": ("libx264", {"x264-params": f"{X264}:bframes=4:b-pyramid=strict"}, ".mkv"),
    "h264_no_b": ("libx264", {"x264-params": f"{X264}:bframes=0"}, ".mp4"),
    "h264_long_group": ("libx264", {"x264-params": "keyint=infinite:bframes=3"}, ".mp4"),
    "h264_two_frame_groups": ("libx264", {"g": "2", "bf": "0"}, ".mp4"),
    "h264_intra_refresh": ("libx264", {"x264-params": "keyint=12:intra-refresh=1:bframes=0"}, ".mp4"),
    "h264_slices": ("libx264", {"x264-params": f"{X264}:bframes=3:slices=4"}, ".mp4"),
    "h264_interlaced": ("libx264", {"x264-params": f"{X264}:bframes=3:interlaced=1"}, ".mp4"),
    "hevc": ("libx265", {"x265-params": "keyint=12:open-gop=0:log-level=none:pools=1"}, ".mp4"),
    "hevc_sublayers": ("libx265", {"x265-params": "keyint=12:open-gop=0:temporal-layers=3:log-level=none:pools=1"}, ".mp4"),
    "av1_long_group": ("libsvtav1", {"preset": "10", "g": "12"}, ".mp4"),
    "av1_two_frame_groups": ("libsvtav1", {"preset": "12", "g": "2"}, ".mp4"),
}  # fmt: skip
ALL = {name: how for name, how in CODECS.items() if name != "av1"} | MORE
# at least one picture of 90 is left out for a 10 Hz grid; the others have no reader or nothing to leave out
LEAVES_OUT = {
    "h264_b", "h264_open_gop", "h264_mkv", "h264_pyramid", "h264_strict_pyramid", "h264_no_b", "h264_long_group",
    "h264_two_frame_groups", "h264_slices", "hevc_open_gop", "hevc", "av1_long_group", "av1_two_frame_groups", "mjpeg",
}  # fmt: skip
NUM_FRAMES = 90

Facts = tuple[int, str, int, int, int, int, str]


def clip(folder: Path, name: str, **how: object) -> Path:
    codec, options, suffix = ALL[name]
    pictures = (textured(i, 128, 96) for i in range(NUM_FRAMES))
    path = folder / f"{name}{suffix}"
    return write_source(path, pictures, codec=codec, options=options, **how)  # type: ignore[arg-type]


def facts_of(frame: VideoFrame) -> Facts:
    """All that the pipeline reads of a picture."""
    assert frame.pts is not None
    digest = hashlib.sha256(b"".join(bytes(plane) for plane in frame.planes)).hexdigest()
    color = int(frame.colorspace), int(frame.color_range), int(frame.color_primaries)
    return frame.pts, frame.format.name, *color, int(frame.rotation), digest


@dataclass(frozen=True)
class Outcome:
    """The pictures, or the code of the error, and which packets were sent to the decoder."""

    pictures: tuple[Facts, ...] = ()
    code: Code | None = None
    num_left_out: int = 0


def plain(path: Path, wanted_ns: np.ndarray) -> Outcome:
    """Everything decoded with a probed container: the oracle."""
    try:
        with open_video(str(path), num_threads=1) as video:
            return Outcome(tuple(facts_of(f) for f in decoded(video, wanted_ns)))
    except SourceError as error:
        return Outcome(code=error.code)


def needed(path: Path, wanted_ns: np.ndarray) -> Outcome:
    with counted() as made:
        try:
            with open_video(str(path), num_threads=1, probes=False) as video:
                pictures = tuple(facts_of(f) for f in decoded(video, wanted_ns, needed_only=True))
            code = None
        except SourceError as error:
            pictures, code = (), error.code
    return Outcome(pictures, code, sum(each.num_left_out for each in made))


@contextmanager
def counted() -> Iterator[list[NeededPackets]]:
    made: list[NeededPackets] = []

    class Kept(NeededPackets):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(self)

    before = source.NeededPackets
    source.NeededPackets = Kept  # type: ignore[misc]
    try:
        yield made
    finally:
        source.NeededPackets = before  # type: ignore[misc]


def clock_of(path: Path, end_s: float = 100.0) -> np.ndarray:
    """Of all pictures up to `end_s`, those before 0 too."""
    with open_video(str(path)) as video:
        return window_times(video, -100 * NS_PER_S, round(end_s * NS_PER_S))


def selections(clock_ns: np.ndarray) -> Mapping[str, np.ndarray]:
    """Which pictures a run may want: a 10 Hz grid, late starts, few, all, an irregular choice."""
    rng = np.random.default_rng(len(clock_ns))
    chance = clock_ns[rng.random(len(clock_ns)) < 0.2]
    return {
        "10 Hz": clock_ns[::3],
        "late": clock_ns[50::3],
        "1 Hz": clock_ns[7::30],
        "two": clock_ns[[3, -2]],
        "all": clock_ns,
        "by chance": chance,
        "pairs": clock_ns[np.sort(np.concatenate([np.arange(2, 80, 11), np.arange(3, 80, 11)]))],
    }


def check_same(path: Path) -> int:
    """Packets left out for the 10 Hz grid."""
    clock_ns, num_left_out = clock_of(path), 0
    for why, wanted_ns in selections(clock_ns).items():
        expected, got = plain(path, wanted_ns), needed(path, wanted_ns)
        assert expected.code is None, why
        assert got.code is None, why
        assert got.pictures == expected.pictures, why
        num_left_out = got.num_left_out if why == "10 Hz" else num_left_out
    return num_left_out


@pytest.mark.parametrize("name", sorted(set(ALL) - {"vp9", "mpeg4_b", "mpeg4_avi"}))
def test_pictures_are_those_of_a_plain_decode(tmp_path: Path, name: str) -> None:
    num_left_out = check_same(clip(tmp_path, name))
    assert (num_left_out > 0) == (name in LEAVES_OUT)


@pytest.mark.parametrize("name", ["vp9", "mpeg4_b", "mpeg4_avi"])
def test_codecs_without_a_reader_are_decoded_whole(tmp_path: Path, name: str) -> None:
    assert check_same(clip(tmp_path, name)) == 0


@pytest.mark.parametrize("name", ["h264_pyramid", "hevc_open_gop"])
def test_variable_frame_rate(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(3)
    ticks = np.cumsum(rng.integers(20, 60, NUM_FRAMES)).tolist()
    path = clip(tmp_path, name, ticks=ticks, tick_s=Fraction(1, 1000))
    assert check_same(path) > 0


@pytest.mark.parametrize("name", ["h264_pyramid", "hevc", "av1_two_frame_groups", "mjpeg"])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_stored_video_is_the_same_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, threads: int
) -> None:
    path = clip(tmp_path, name)
    camera = Camera(name="c", frames=VideoWindow(path=str(path), start_s=0.4, end_s=9.0))
    clock_ns = frame_clock(camera)
    written = {}
    for reader in (reader_of, lambda *_: None):
        monkeypatch.setattr(needed_packets, "reader_of", reader)
        grid_ns, out = instants_ns(25, TEN), tmp_path / "out.mp4"
        facts = write_video(camera, clock_ns, grid_ns, out, VideoSettings(), num_threads=threads)
        written[reader] = (facts.sha256, facts.source_rate_hz, facts.color, facts.repeats)
    assert len(set(map(str, written.values()))) == 1


def remux(path: Path, out: Path, change: Callable[[int, av.Packet], None], **how: str) -> Path:
    """The packets of `path` in another file, each after `change(rank in decode order, packet)`."""
    with av.open(str(path)) as reader, av.open(str(out), "w", options=how) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for rank, packet in enumerate(p for p in reader.demux(video=0) if p.size):
            packet.stream = stream
            change(rank, packet)
            writer.mux(packet)
    return out


@pytest.mark.parametrize("name", ["h264_pyramid", "hevc_open_gop"])
def test_times_that_start_before_zero_are_cut_by_an_edit_list(tmp_path: Path, name: str) -> None:
    """The first pictures are decoded and not shown."""

    def earlier(rank: int, packet: av.Packet) -> None:
        shift = int(Fraction(3, 10) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift

    how = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    path = remux(clip(tmp_path, name), tmp_path / "early.mp4", earlier, **how)
    with av.open(str(path)) as container:
        num_hidden = sum(p.is_discard for p in container.demux(video=0) if p.size)
    assert num_hidden > 0
    assert len(clock_of(path)) == NUM_FRAMES - num_hidden
    assert check_same(path) > 0


REAL = [
    "lerobot_v20_gr1_picknplace/videos/chunk-000/observation.images.ego_view/episode_000000.mp4",
    "ego4d_lavila/3c0dffd0-e38e-4643-bc48-d513943dc20b_012_014.mp4",
    "dex_retargeting/human_hand_video.mp4",
]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_video(samples: Path, name: str) -> None:
    path = samples / name
    clock_ns = clock_of(path, 8.0)
    for wanted_ns in (clock_ns[::3], clock_ns[::2], clock_ns[10::30]):
        got = needed(path, wanted_ns)
        assert got.pictures == plain(path, wanted_ns).pictures
        assert got.num_left_out > 0


# -- what is waiting -------------------------------------------------------------------------------------------------


def sent(path: Path, wanted_ns: np.ndarray) -> list[int]:
    """PTS of the packets that reach the decoder."""
    with open_video(str(path), num_threads=1) as video:
        due = set(wanted_ns.tolist())
        chosen = NeededPackets(video.stream, lambda pts: video.ns(pts) in due, len(due))
        return [p.pts for p in chosen.among(source.span_packets(video, int(wanted_ns[0])))]


def test_packets_wait_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one group: those that wait go to the decoder when they are too many."""
    path = clip(tmp_path, "h264_long_group")
    clock_ns = clock_of(path)
    longest = 0
    taken = NeededPackets._taken

    def watched(self: NeededPackets, *packets: av.Packet) -> Iterator[av.Packet]:
        nonlocal longest
        longest = max(longest, len(self._waiting))
        yield from taken(self, *packets)

    monkeypatch.setattr(NeededPackets, "_taken", watched)
    wanted_ns = clock_ns[[0, -1]]
    monkeypatch.setattr(needed_packets, "MAX_WAITING", 5)
    few = sent(path, wanted_ns)
    assert longest <= 6
    monkeypatch.setattr(needed_packets, "MAX_WAITING", 10**6)
    monkeypatch.setattr(needed_packets, "MAX_WAITING_BYTES", 1)
    assert sent(path, wanted_ns) == few
    assert needed(path, wanted_ns).pictures == plain(path, wanted_ns).pictures


def test_nothing_behind_the_last_picture_is_read(tmp_path: Path) -> None:
    path = clip(tmp_path, "h264_no_b")
    clock_ns = clock_of(path)
    assert (
        len(sent(path, clock_ns[:20:3])) == 19 - 2
    )  # pictures 0 to 18; 10 and 11 end the first group


def test_whole_groups_are_left_out(tmp_path: Path) -> None:
    path = clip(tmp_path, "h264_two_frame_groups")
    clock_ns = clock_of(path)
    assert len(sent(path, clock_ns[::6])) == 15  # of 90


# -- damage ----------------------------------------------------------------------------------------------------------


def places(path: Path) -> list[tuple[int, int, int]]:
    """(byte, size, PTS) of each packet in decode order."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.pts) for p in container.demux(video=0) if p.size]


def test_damage_in_a_picture_that_nothing_needs_is_not_seen(tmp_path: Path) -> None:
    path = clip(tmp_path, "h264_pyramid")
    wanted_ns = clock_of(path)[::3]
    expected, kept = plain(path, wanted_ns), set(sent(path, wanted_ns))
    at, size, _ = next(p for p in places(path) if p[2] not in kept)
    data = bytearray(path.read_bytes())
    data[at + 8 : at + size] = bytes(size - 8)
    path.write_bytes(data)
    assert plain(path, wanted_ns).code is Code.CORRUPT_VIDEO
    assert needed(path, wanted_ns).pictures == expected.pictures


def test_trouble_without_a_packet_is_no_trouble_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that lies about what refers to what: then all is decoded, from where the first way came to."""
    path = clip(tmp_path, "hevc")
    wanted_ns = clock_of(path)[::3]
    monkeypatch.setattr(
        needed_packets, "reader_of", lambda *_: lambda data: PacketRole.UNREFERENCED
    )
    got = needed(path, wanted_ns)
    assert got.num_left_out > 0
    assert got.pictures == plain(path, wanted_ns).pictures


def test_a_stream_that_hides_how_far_it_reorders_is_decoded_again(tmp_path: Path) -> None:
    """Its SPS has no `bitstream_restriction`; only probing learns the delay."""
    path = clip(tmp_path, "h264_pyramid")
    data = path.read_bytes()
    at = data.index(b"avcC") + 4
    with av.open(str(path)) as container:
        extradata = container.streams.video[0].codec_context.extradata
    length = int.from_bytes(extradata[6:8], "big")
    sps = at + 8
    assert data[sps] & 31 == 7
    path.write_bytes(data[: sps + length - 3] + bytes([0x80, 0, 0]) + data[sps + length :])
    wanted_ns = clock_of(path)[::3]
    expected = plain(path, wanted_ns)
    got = needed(path, wanted_ns)
    assert (got.pictures, got.code) == (expected.pictures, expected.code)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["h264_pyramid", "h264_two_frame_groups", "hevc_open_gop", "av1_two_frame_groups", "mjpeg"])  # fmt: skip
def test_mutated_files_end_as_a_plain_decode_does(tmp_path: Path, name: str) -> None:
    """What decodes plainly decodes to the same. Where only the plain way fails, it fails at a packet that the other leaves out."""
    whole = clip(tmp_path, name)
    wanted_ns, data = clock_of(whole)[::3], whole.read_bytes()
    path, num_unlike = tmp_path / f"bad{whole.suffix}", 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        bad = bytearray(data)
        for at in rng.integers(0, len(bad), int(rng.integers(1, 5))).tolist():
            bad[at] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bad if seed % 5 else bad[: int(rng.integers(100, len(bad)))])
        expected, got = plain(path, wanted_ns), needed(path, wanted_ns)
        if got.code == expected.code and got.pictures == expected.pictures:
            continue
        num_unlike += 1
        assert expected.code is not None, seed
        assert got.code is None, seed
        assert failing_packet(path) not in sent(path, wanted_ns), seed
    assert num_unlike < 50


def failing_packet(path: Path) -> int | None:
    """PTS of the first packet that the decoder refuses, or flags as damaged, when it gets all."""
    with open_video(str(path), num_threads=1) as video:
        for packet in video.container.demux(video.stream):
            try:
                for frame in video.stream.codec_context.decode(packet):
                    if frame.is_corrupt:
                        return frame.pts
            except av.FFmpegError:
                return packet.pts
    raise AssertionError("every packet decodes")


def test_grid_choice_of_the_tests_is_that_of_the_pipeline(tmp_path: Path) -> None:
    clock_ns = clock_of(clip(tmp_path, "h264_no_b"))
    assert np.array_equal(nearest_frames(clock_ns, instants_ns(30, TEN)), np.arange(0, 90, 3))
