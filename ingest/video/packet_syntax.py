"""What the first bytes of a packet say about its picture: whether decoding begins anew there, and whether anything may refer to it.

Only the stream itself is believed: the flags of a container (keyframe, `sdtp`, discardable) are only claims. What a
reader cannot take apart counts as `REFERENCE`, the answer that leaves nothing out.

Codecs
- H.264 with NAL lengths (`avcC`), frames only: IDR pictures (type 5) begin anew, `nal_ref_idc` 0 is referred to by nothing
  (ITU-T H.264 §7.4.1). A stream that may hold single fields (`frame_mbs_only_flag` 0) has two packets for one picture, so
  it has no reader.
- HEVC with NAL lengths (`hvcC`) and one temporal sub-layer: IDR (19, 20), and the sub-layer non-reference types (even, below 16; ITU-T H.265 table 7-1).
- AV1: a shown keyframe that brings its sequence header (AV1 §7.20, §7.21: it refreshes every reference).
- Motion JPEG: every picture that defines the same tables and segments as the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, auto

_SLICES_H264 = range(1, 6)  # nal_unit_type of ITU-T H.264 table 7-1
_IDR_H264 = 5
_PARAMETER_SETS_H264 = frozenset({7, 8})
_MAX_SPS_BYTES = 1024
_BESIDE_SLICES_H264 = frozenset({6, 9, 12})  # SEI, access unit delimiter, filler
_SLICES_HEVC = range(32)  # nal_unit_type of ITU-T H.265 table 7-1
_PARAMETER_SETS_HEVC = frozenset({32, 33, 34})
_IDR_HEVC = frozenset({19, 20})
_BESIDE_SLICES_HEVC = frozenset({35, 38, 39, 40})  # access unit delimiter, filler, SEI
_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})
_OBU_SEQUENCE, _OBU_DELIMITER, _OBU_FRAME_HEADER, _OBU_METADATA, _OBU_FRAME = 1, 2, 3, 5, 6


class PacketRole(Enum):
    """What leaving out a packet would do to the pictures after it."""

    RESTART = auto()  # decoding begins anew: nothing from here on refers to anything before
    REFERENCE = auto()  # may be referred to until decoding begins anew
    UNREFERENCED = auto()  # nothing refers to it
    SETUP = auto()  # brings parameters that last longer than its own group


Reader = Callable[[memoryview], PacketRole]


def reader_of(codec: str, extradata: bytes | None) -> Reader | None:
    """The reader for packets of a stream; None where all of them must be decoded."""
    if codec == "h264":
        return _h264_reader(extradata or b"")
    if codec == "hevc":
        return _hevc_reader(extradata or b"")
    if codec == "av1":
        return _av1_role
    return _MotionJpeg() if codec == "mjpeg" else None


# -- H.264 and HEVC --------------------------------------------------------------------------------------------------


def nal_length_size(extradata: bytes | None) -> int | None:
    """Bytes of each NAL length in an `avcC` stream (ISO/IEC 14496-15 §5.3.3); None when it is not one."""
    if not extradata or len(extradata) < 7 or extradata[0] != 1:
        return None
    return (extradata[4] & 3) + 1


def nal_units(data: bytes | memoryview, length_size: int) -> Iterator[bytes | memoryview]:
    """The NAL units of a packet, as far as their lengths go; the last one may be cut."""
    at = 0
    while at + length_size < len(data):
        length = int.from_bytes(data[at : at + length_size], "big")
        at += length_size
        if length:
            yield data[at : at + length]
        at += length


def is_idr(data: bytes, length_size: int) -> bool:
    """True when all slices of the access unit are IDR slices (types 1..5 hold slice data)."""
    kinds = {unit[0] & 0x1F for unit in nal_units(data, length_size)}
    return kinds.intersection(_SLICES_H264) == {_IDR_H264}


def is_reference(data: bytes | memoryview, length_size: int) -> bool:
    """Whether another picture may refer to this one: `nal_ref_idc` of a slice is not 0 (ITU-T H.264 §7.4.1)."""
    return any(
        unit[0] & 0x1F in _SLICES_H264 and unit[0] >> 5 & 3 for unit in nal_units(data, length_size)
    )


def _whole_units(data: memoryview, length_size: int) -> list[memoryview]:
    """The NAL units of a packet; none when their lengths do not end where the packet does."""
    units, at, size = [], 0, len(data)
    while at + length_size < size:
        end = at + length_size + int.from_bytes(data[at : at + length_size], "big")
        units.append(data[at + length_size : end])
        at = end
    return units if at == size and all(units) else []


class _H264:
    """Parameter sets repeated in packets are those of the `avcC`; with the first other one everything is `SETUP`."""

    def __init__(self, length_size: int, parameter_sets: frozenset[bytes]) -> None:
        self._length_size = length_size
        self._parameter_sets = parameter_sets
        self._is_over = False

    def __call__(self, data: memoryview) -> PacketRole:
        slices, is_referenced = set(), False
        units = () if self._is_over else _whole_units(data, self._length_size)
        for unit in units:
            kind = unit[0] & 0x1F
            if kind in _SLICES_H264:
                slices.add(kind)
                is_referenced |= bool(unit[0] >> 5 & 3)
            elif kind in _PARAMETER_SETS_H264:
                self._is_over |= bytes(unit) not in self._parameter_sets
            elif kind not in _BESIDE_SLICES_H264:
                return PacketRole.SETUP
        if self._is_over or not slices:
            return PacketRole.SETUP
        if slices == {_IDR_H264}:
            return PacketRole.RESTART
        return (
            PacketRole.REFERENCE
            if is_referenced or _IDR_H264 in slices
            else PacketRole.UNREFERENCED
        )


def _h264_reader(extradata: bytes) -> Reader | None:
    length_size = nal_length_size(extradata)
    if length_size is None:
        return None
    sps, at = _listed(extradata, 6, extradata[5] & 31)
    pps, _ = _listed(extradata, at + 1, extradata[at] if at < len(extradata) else 0)
    if not sps or not all(map(_has_frames_only, sps)):
        return None
    return _H264(length_size, frozenset(sps + pps))


def _listed(data: bytes, at: int, count: int) -> tuple[list[bytes], int]:
    """`count` units, each behind 16 bits of length, and where they end."""
    units = []
    for _ in range(count):
        length = int.from_bytes(data[at : at + 2], "big")
        units.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return units, at


def _has_frames_only(sps: bytes) -> bool:
    """`frame_mbs_only_flag` of a sequence parameter set (ITU-T H.264 §7.3.2.1.1); False where it cannot be read."""
    try:
        return _frame_mbs_only(_Bits(sps[1:_MAX_SPS_BYTES].replace(b"\0\0\3", b"\0\0")))
    except IndexError:
        return False


def _frame_mbs_only(bits: _Bits) -> bool:
    profile = bits.take(8)
    bits.take(16)  # constraint flags, level
    bits.unsigned()  # seq_parameter_set_id
    if profile in _HIGH_PROFILES:
        chroma_format = bits.unsigned()
        if chroma_format == 3:
            bits.take(1)
        bits.unsigned()  # bit depths
        bits.unsigned()
        bits.take(1)
        if bits.take(1):  # seq_scaling_matrix_present_flag
            for index in range(8 if chroma_format != 3 else 12):
                if bits.take(1):
                    _pass_scaling_list(bits, 16 if index < 6 else 64)
    bits.unsigned()  # log2_max_frame_num_minus4
    order_type = bits.unsigned()
    if order_type == 0:
        bits.unsigned()
    elif order_type == 1:
        bits.take(1)
        bits.unsigned()
        bits.unsigned()
        for _ in range(bits.unsigned()):
            bits.unsigned()
    bits.unsigned()  # max_num_ref_frames
    bits.take(1)
    bits.unsigned()  # width and height in macroblocks
    bits.unsigned()
    return bits.take(1) == 1


def _pass_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.unsigned()
            delta = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + delta) % 256
        last = following or last


class _Bits:
    """Bits of a parameter set; IndexError behind its end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """An Exp-Golomb code, ue(v)."""
        num_zeros = 0
        while not self.take(1):
            num_zeros += 1
        return (1 << num_zeros) - 1 + self.take(num_zeros)


class _Hevc:
    """As `_H264`, for one layer and one temporal sub-layer."""

    def __init__(self, length_size: int, parameter_sets: frozenset[bytes]) -> None:
        self._length_size = length_size
        self._parameter_sets = parameter_sets
        self._is_over = False

    def __call__(self, data: memoryview) -> PacketRole:
        slices = set()
        for unit in () if self._is_over else _whole_units(data, self._length_size):
            kind = unit[0] >> 1 & 63
            if len(unit) < 2 or unit[0] & 1 or unit[1] != 1:  # another layer or sub-layer
                self._is_over = True
            elif kind in _SLICES_HEVC:
                slices.add(kind)
            elif kind in _PARAMETER_SETS_HEVC:
                self._is_over |= bytes(unit) not in self._parameter_sets
            elif kind not in _BESIDE_SLICES_HEVC:
                return PacketRole.SETUP
        if self._is_over or not slices:
            return PacketRole.SETUP
        if slices <= _IDR_HEVC:
            return PacketRole.RESTART
        is_unreferenced = all(kind < 16 and kind % 2 == 0 for kind in slices)
        return PacketRole.UNREFERENCED if is_unreferenced else PacketRole.REFERENCE


def _hevc_reader(extradata: bytes) -> Reader | None:
    """For an `hvcC` (ISO/IEC 14496-15 §8.3.3) that states one temporal sub-layer."""
    if len(extradata) < 23 or extradata[0] != 1 or extradata[21] >> 3 & 7 != 1:
        return None
    parameter_sets, at = [], 23
    for _ in range(extradata[22]):
        units, at = _listed(extradata, at + 3, int.from_bytes(extradata[at + 1 : at + 3], "big"))
        parameter_sets += units
    return _Hevc((extradata[21] & 3) + 1, frozenset(parameter_sets))


# -- AV1 -------------------------------------------------------------------------------------------------------------


def _av1_role(data: memoryview) -> PacketRole:
    """Whether a temporal unit begins with a sequence header and a shown keyframe (AV1 §5.5, §5.9.2)."""
    at, has_sequence = 0, False
    try:
        while at < len(data):
            head = data[at]
            kind, at = head >> 3 & 15, at + 1
            if head & 0x84 or not head & 2:  # forbidden bit, layers, or an OBU without its size
                return PacketRole.REFERENCE
            size, at = _leb128(data, at)
            if kind == _OBU_SEQUENCE:
                has_sequence = not data[at] & 0x08  # reduced_still_picture_header
            elif kind in (_OBU_FRAME, _OBU_FRAME_HEADER):
                is_shown_key = data[at] & 0xF0 == 0x10  # not an existing frame, type 0, shown
                return PacketRole.RESTART if has_sequence and is_shown_key else PacketRole.REFERENCE
            elif kind not in (_OBU_DELIMITER, _OBU_METADATA):
                return PacketRole.REFERENCE
            at += size
    except IndexError:
        pass
    return PacketRole.REFERENCE


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for i in range(8):
        value |= (data[at] & 0x7F) << (7 * i)
        at += 1
        if not data[at - 1] & 0x80:
            break
    return value, at


# -- Motion JPEG -----------------------------------------------------------------------------------------------------

_SOI, _SOS, _DQT, _DHT = 0xD8, 0xDA, 0xDB, 0xC4


class _MotionJpeg:
    """A picture inherits nothing when it defines again what the first one defined."""

    def __init__(self) -> None:
        self._first: list[tuple[int, ...]] | None = None

    def __call__(self, data: memoryview) -> PacketRole:
        try:
            segments = list(_jpeg_segments(data))
        except IndexError:
            return PacketRole.SETUP
        if self._first is None:
            self._first = segments
        has_tables = {_DQT, _DHT} <= {segment[0] for segment in segments}
        return PacketRole.RESTART if has_tables and segments == self._first else PacketRole.SETUP


def _jpeg_segments(data: memoryview) -> Iterator[tuple[int, ...]]:
    """(marker, ids of the tables it defines) of each segment before the scan (ITU-T T.81 §B.1, §B.2.4)."""
    if data[0] != 0xFF or data[1] != _SOI:
        raise IndexError
    at = 2
    while data[at + 1] != _SOS:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or length < 2 or at + 2 + length > len(data):
            raise IndexError
        body = data[at + 4 : at + 2 + length]
        if marker in (_DQT, _DHT):
            yield (marker, *_table_ids(body, is_huffman=marker == _DHT))
        else:
            yield (marker,)
        at += 2 + length


def _table_ids(body: memoryview, *, is_huffman: bool) -> Iterator[int]:
    at = 0
    while at < len(body):
        yield body[at]
        at += 17 + sum(body[at + 1 : at + 17]) if is_huffman else 1 + 64 * (1 + (body[at] >> 4))
