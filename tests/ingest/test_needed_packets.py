"""Leaving out packets changes no picture: against a plain decode of everything, over codecs, clocks and damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from ingest.recipe import VideoSettings
from ingest.video import needed_packets, source
from ingest.video.camera_video import frame_clock, nearest_frames, write_video
from ingest.video.needed_packets import NeededPackets
from ingest.video.packet_syntax import PacketRole, reader_of
from ingest.video.source import Video, decoded, open_video, window_times
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
    """The pictures, or the code of the error; how many packets were left out, and whether all was decoded again."""

    pictures: tuple[Facts, ...] = ()
    code: Code | None = None
    num_left_out: int = 0
    is_repeated: bool = False


def plain(path: Path, wanted_ns: np.ndarray) -> Outcome:
    """Everything decoded with a probed container: the oracle."""
    try:
        with open_video(str(path), num_threads=1) as video:
            return Outcome(tuple(facts_of(f) for f in decoded(video, wanted_ns)))
    except SourceError as error:
        return Outcome(code=error.code)


def needed(path: Path, wanted_ns: np.ndarray) -> Outcome:
    with counted() as (made, repeated):
        try:
            with open_video(str(path), num_threads=1, probes=False) as video:
                pictures = tuple(facts_of(f) for f in decoded(video, wanted_ns, needed_only=True))
            code = None
        except SourceError as error:
            pictures, code = (), error.code
    return Outcome(pictures, code, sum(each.num_left_out for each in made), bool(repeated))


@contextmanager
def counted() -> Iterator[tuple[list[NeededPackets], list[Video]]]:
    """The choices made, and the videos that were decoded again."""
    made: list[NeededPackets] = []
    repeated: list[Video] = []
    opened_again = source._opened_again

    class Kept(NeededPackets):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            made.append(self)

    def watched(video: Video) -> AbstractContextManager[Video]:
        repeated.append(video)
        return opened_again(video)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "NeededPackets", Kept)
        patch.setattr(source, "_opened_again", watched)
        yield made, repeated


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
        if why == "10 Hz":
            num_left_out = got.num_left_out
            assert not got.is_repeated
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


# -- readers ---------------------------------------------------------------------------------------------------------

SEQUENCE, DELIMITER = b"\x0a\x02\x00\x00", b"\x12\x00"


@pytest.mark.parametrize(
    ("unit", "role"),
    [
        (DELIMITER + SEQUENCE + b"\x32\x02\x10\x00", PacketRole.RESTART),
        (DELIMITER + b"\x32\x02\x10\x00", PacketRole.REFERENCE),  # no sequence header
        (DELIMITER + b"\x0a\x02\x08\x00" + b"\x32\x02\x10\x00", PacketRole.REFERENCE),  # a still picture's
        (DELIMITER + SEQUENCE + b"\x32\x02\x00\x00", PacketRole.REFERENCE),  # not shown
        (DELIMITER + SEQUENCE + b"\x32\x02\x30\x00", PacketRole.REFERENCE),  # refers to others
        (DELIMITER + SEQUENCE + b"\x1a\x02\x90\x00", PacketRole.REFERENCE),  # shown again
        (DELIMITER + b"\x0e\x00\x02\x00\x00" + b"\x32\x02\x10\x00", PacketRole.REFERENCE),  # of a layer
        (DELIMITER + SEQUENCE + b"\x32", PacketRole.REFERENCE),  # cut
        (b"", PacketRole.REFERENCE),
    ],
)  # fmt: skip
def test_reader_of_av1(unit: bytes, role: PacketRole) -> None:
    reader = reader_of("av1", None)
    assert reader is not None
    assert reader(memoryview(unit)) is role


def hvcc(*, num_sublayers: int = 1) -> bytes:
    """One array of one parameter set, `SET`; NAL lengths of 4 bytes."""
    head = bytes([1] + 20 * [0] + [num_sublayers << 3 | 3, 1])
    return head + b"\x21\x00\x01" + len(SET).to_bytes(2, "big") + SET


SET = b"\x42\x01\x07"


def nal(kind: int, *, layer: int = 0, sublayer: int = 0, rest: bytes = b"\x80") -> bytes:
    unit = bytes([kind << 1 | layer >> 5, (layer & 31) << 3 | sublayer + 1]) + rest
    return len(unit).to_bytes(4, "big") + unit


@pytest.mark.parametrize(
    ("packet", "role"),
    [
        (nal(35) + nal(39) + nal(19), PacketRole.RESTART),
        (nal(20), PacketRole.RESTART),
        (nal(21), PacketRole.REFERENCE),  # CRA: leading pictures refer to what is before it
        (nal(1), PacketRole.REFERENCE),
        (nal(0), PacketRole.UNREFERENCED),
        (nal(0) + nal(1), PacketRole.REFERENCE),
        (nal(0, sublayer=1), PacketRole.SETUP),
        (nal(0, layer=1), PacketRole.SETUP),
        (nal(33, rest=b"\x07") + nal(19), PacketRole.RESTART),  # repeated
        (nal(33, rest=b"\x08") + nal(19), PacketRole.SETUP),  # another
        (nal(36), PacketRole.SETUP),  # end of sequence
        (nal(0)[:-1], PacketRole.SETUP),  # cut
        (b"", PacketRole.SETUP),
    ],
)
def test_reader_of_hevc(packet: bytes, role: PacketRole) -> None:
    reader = reader_of("hevc", hvcc())
    assert reader is not None
    assert reader(memoryview(packet)) is role


def test_a_stream_that_turns_out_otherwise_has_no_more_to_leave_out() -> None:
    reader = reader_of("hevc", hvcc())
    assert reader is not None
    for packet in (nal(0, sublayer=1), nal(0), nal(19)):
        assert reader(memoryview(packet)) is PacketRole.SETUP
    assert reader_of("hevc", hvcc(num_sublayers=2)) is None
    assert reader_of("hevc", None) is None
    assert reader_of("h264", None) is None
    assert reader_of("h264", b"\x01\x64\x00\x1f\xff\xe1") is None  # cut before its parameter set


def test_reader_of_motion_jpeg() -> None:
    data = cv2.imencode(".jpg", textured(1, 64, 48))[1].tobytes()
    huffman = data.index(b"\xff\xc4")
    length = int.from_bytes(data[huffman + 2 : huffman + 4], "big")
    without = data[:huffman] + data[huffman + 2 + length :]
    with_more = data[:2] + b"\xff\xee\x00\x04ab" + data[2:]  # APP14 says how colours are stored
    for odd in (without, with_more, data[:100], b""):
        reader = reader_of("mjpeg", None)
        assert reader is not None
        assert reader(memoryview(data)) is PacketRole.RESTART
        assert reader(memoryview(odd)) is PacketRole.SETUP
        assert reader(memoryview(data)) is PacketRole.RESTART


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
    assert got.is_repeated
    assert got.pictures == plain(path, wanted_ns).pictures


def test_a_stream_that_hides_how_far_it_reorders(tmp_path: Path) -> None:
    """The flag `bitstream_restriction` of its SPS is cleared: the decoder learns the delay as it goes."""
    path = clip(tmp_path, "h264_pyramid")
    with av.open(str(path)) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None
    sps = extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]
    data = path.read_bytes()
    shorter = without_restriction(sps)
    assert data.count(sps) == 1
    path.write_bytes(data.replace(sps, shorter))
    wanted_ns = clock_of(path)
    expected, got = plain(path, wanted_ns), needed(path, wanted_ns)
    assert expected.code is None
    assert got.pictures == expected.pictures


def without_restriction(sps: bytes) -> bytes:
    """x264 ends an SPS with the flag, a bit, six Exp-Golomb numbers of which the first two are 0, and the stop bit."""
    bits = "".join(f"{byte:08b}" for byte in sps.replace(b"\0\0\3", b"\0\0")).rstrip("0")[:-1]
    at = next(
        i for i in range(len(bits)) if bits[i : i + 4] == "1111" and is_numbers(bits[i + 2 :], 6)
    )
    bits = bits[:at] + "0" + "1"
    bits += "0" * (-len(bits) % 8)
    changed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return changed.replace(b"\0\0", b"\0\0\3").ljust(len(sps), b"\0")


def is_numbers(bits: str, count: int) -> bool:
    """Whether they are exactly `count` Exp-Golomb codes."""
    for _ in range(count):
        num_zeros = len(bits) - len(bits.lstrip("0"))
        if len(bits) < 2 * num_zeros + 1:
            return False
        bits = bits[2 * num_zeros + 1 :]
    return not bits


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
