"""TFRecord framing: checksums, walking without payloads, and every way a shard is known to break."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from adapters.containers import tfrecord
from adapters.containers.tfrecord import Record, masked_crc, read_record, walk
from jobs.demo.raw.oxe import masked, record_bytes, write_records
from schemas.errors import Code, SourceError

PAYLOADS = [b"first", b"", b"the third record"]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "set-train.tfrecord-00000-of-00001"
    write_records(path, PAYLOADS)
    return path


def code_of(path: Path, record: Record) -> Code:
    with pytest.raises(SourceError) as caught:
        read_record(path, record.offset, record.num_bytes)
    return caught.value.code


def test_masked_crc_has_the_published_value() -> None:
    # CRC-32C("123456789") is 0xE3069283 (RFC 3720); rotated right by 15 and shifted by the constant, by hand:
    # (0xE3069283 >> 15 | 0xE3069283 << 17) mod 2^32 = 0x2507C60D, + 0xA282EAD8 = 0xC78AB0E5.
    assert masked_crc(b"123456789") == 0xC78AB0E5


def test_offsets_are_those_of_the_framing(shard: Path) -> None:
    assert [(r.offset, r.num_bytes) for r in walk(shard)] == [(0, 5), (21, 0), (37, 16)]


def test_every_payload_comes_back(shard: Path) -> None:
    assert [read_record(shard, r.offset, r.num_bytes) for r in walk(shard)] == PAYLOADS


def test_walk_reads_headers_only(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    opened = tfrecord.open_regular

    def counting(path: Path, **kwargs: Any) -> object:
        file = opened(path, **kwargs)
        read = file.read

        class Spy:
            def __enter__(self) -> Spy:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def fileno(self) -> int:
                return file.fileno()

            def seek(self, at: int) -> None:
                file.seek(at)

            def read(self, size: int) -> object:
                sizes.append(size)
                return read(size)

        return Spy()

    monkeypatch.setattr(tfrecord, "open_regular", counting)
    list(walk(shard))
    assert sizes == [12, 12, 12]


@pytest.mark.parametrize("lost", [1, 4, 15, 20, 31])
def test_truncated_shard_keeps_the_whole_records(shard: Path, lost: int) -> None:
    shard.write_bytes(shard.read_bytes()[:-lost])
    *whole, rest = walk(shard)
    assert [r.offset for r in whole] == [0, 21]
    assert rest.is_rest
    assert rest.offset == 37
    assert rest.problem is not None
    assert rest.problem[0] is Code.TRUNCATED


def test_wrong_payload_crc_is_one_record_only(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[13] ^= 1  # inside "first"
    shard.write_bytes(data)
    records = list(walk(shard))
    assert [r.problem for r in records] == [None, None, None]
    assert code_of(shard, records[0]) is Code.WRONG_CRC
    assert read_record(shard, records[2].offset, records[2].num_bytes) == PAYLOADS[2]


@pytest.mark.parametrize("byte", [0, 5, 8, 11])
def test_wrong_length_crc_loses_the_rest(shard: Path, byte: int) -> None:
    data = bytearray(shard.read_bytes())
    data[21 + byte] ^= 1
    shard.write_bytes(data)
    first, rest = walk(shard)
    assert (first.offset, first.problem) == (0, None)
    assert (rest.offset, rest.is_rest) == (21, True)
    assert rest.problem is not None
    assert rest.problem[0] is Code.WRONG_CRC


def test_hostile_length_is_truncated_without_allocation(tmp_path: Path) -> None:
    length = struct.pack("<Q", 2**60)
    path = tmp_path / "hostile"
    path.write_bytes(record_bytes(b"fine") + length + struct.pack("<I", masked(length)) + b"x" * 9)
    *whole, rest = walk(path)
    assert len(whole) == 1
    assert rest.problem is not None
    assert rest.problem[0] is Code.TRUNCATED
    assert code_of(path, Record(offset=rest.offset, num_bytes=2**60)) is Code.TRUNCATED


def test_a_record_beyond_what_protobuf_allows_is_too_large(
    shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecord, "MAX_RECORD_BYTES", 10)
    records = list(walk(shard))
    assert [r.problem[0] if r.problem else None for r in records] == [None, None, Code.TOO_LARGE]
    assert code_of(shard, records[2]) is Code.TOO_LARGE


def test_shard_rewritten_after_discovery(shard: Path) -> None:
    records = list(walk(shard))
    write_records(shard, [b"other length", *PAYLOADS[1:]])
    assert code_of(shard, records[0]) is Code.CORRUPT_RECORD


def test_shard_gone_after_discovery(shard: Path) -> None:
    records = list(walk(shard))
    shard.unlink()
    assert code_of(shard, records[0]) is Code.MISSING_FILE
    with pytest.raises(SourceError, match="missing_file"):
        list(walk(shard))


def test_a_directory_in_place_of_a_shard(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="unreadable"):
        list(walk(tmp_path))
