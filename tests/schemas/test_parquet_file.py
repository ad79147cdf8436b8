"""The one door to Parquet of a corpus: every damage is one error, with the file, what is damaged and what to do."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from schemas.errors import InvariantError
from schemas.parquet_file import (
    FREE_VALUES,
    DamagedParquet,
    checked,
    collect,
    open_parquet,
    read_batches,
    read_footer,
    read_schema,
    read_table,
    reading,
)

ROWS = pa.table({"a": list(range(5000)), "b": [f"text {n % 7}" for n in range(5000)]})


def _scan(path: Path) -> pl.DataFrame:
    return collect(pl.scan_parquet(checked(path), glob=False), path)


def _whole(path: Path) -> pa.Table:
    with open_parquet(path) as file:
        return file.read()


READS: dict[str, Callable[[Path], object]] = {
    "read_table": read_table,
    "read_batches": lambda path: list(read_batches(path, 100)),
    "open_parquet": _whole,
    "collect": _scan,
}
FOOTER_READS: dict[str, Callable[[Path], object]] = {
    "read_schema": read_schema,
    "read_footer": read_footer,
}


def _magic(data: bytes) -> bytes:
    return data[:-4] + b"PARX"


def _footer(data: bytes) -> bytes:
    """A byte of the Thrift footer, for which pyarrow raises a bare OSError."""
    size = int.from_bytes(data[-8:-4], "little")
    return data[: -8 - size] + b"\xff" * 40 + data[-8 - size + 40 :]


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _empty(data: bytes) -> bytes:
    return b""


def _pages(data: bytes) -> bytes:
    return data[:4] + b"\xa5" * 400 + data[404:]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pq.write_table(ROWS, tmp_path / "part.parquet", compression="zstd")
    return tmp_path / "part.parquet"


@pytest.mark.parametrize("name", [*READS, *FOOTER_READS])
@pytest.mark.parametrize("damage", [_magic, _footer, _cut, _empty])
def test_a_damaged_file_is_named_with_what_to_do(
    path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedParquet, match="eicorpus verify") as caught:
        (READS | FOOTER_READS)[name](path)
    assert caught.value.exit_code == 2
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", READS)
def test_damaged_pages_and_an_absent_file_are_refused(path: Path, name: str) -> None:
    path.write_bytes(_pages(path.read_bytes()))
    with pytest.raises(DamagedParquet, match="damaged"):
        READS[name](path)
    path.unlink()
    with pytest.raises(DamagedParquet, match="eicorpus verify"):
        READS[name](path)


@pytest.mark.parametrize("name", [*READS, *FOOTER_READS])
def test_a_whole_file_is_read(path: Path, name: str) -> None:
    assert (READS | FOOTER_READS)[name](path) is not None


def test_a_column_that_is_absent_or_of_another_type(path: Path) -> None:
    with pytest.raises(DamagedParquet):
        read_table(path, ["c"])
    with pytest.raises(DamagedParquet):
        read_table(path, ["b"], schema=pa.schema([("b", pa.int64())]))
    assert read_table(path, ["a"], schema=pa.schema([("a", pa.int32())])).num_rows == 5000


def test_the_remedy_loses_no_episode(path: Path) -> None:
    """To remove a snapshot would: recovery removes the files of episodes that no snapshot names."""
    path.write_bytes(_magic(path.read_bytes()))
    with pytest.raises(DamagedParquet) as caught:
        read_table(path)
    assert "restore it from a copy" in caught.value.remedy
    assert "remove no snapshot" in caught.value.remedy


def _many_rows(path: Path) -> None:
    some = FREE_VALUES // 16
    row = pa.table({"a": [7] * some, "b": ["text"] * some})
    with pq.ParquetWriter(path, row.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(row)


def _long_lists(path: Path) -> None:
    """Few rows, of many values each."""
    row = pa.table({"a": [7], "b": [["text"] * (FREE_VALUES // 4)]})
    with pq.ParquetWriter(path, row.schema, compression="zstd") as writer:
        for _ in range(5):
            writer.write_table(row)


def _long_texts(path: Path) -> None:
    row = pa.table({"a": [7] * 10, "b": ["x" * 2**20] * 10})
    with pq.ParquetWriter(path, row.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(20):
            writer.write_table(row)


@pytest.mark.parametrize("name", [*READS, *FOOTER_READS])
@pytest.mark.parametrize("write", [_many_rows, _long_lists, _long_texts])
def test_a_small_file_that_unpacks_to_gigabytes_is_refused(
    path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(path)
    with pytest.raises(DamagedParquet, match="do not use it"):
        (READS | FOOTER_READS)[name](path)


def test_reading_ends_after_so_many_rows(path: Path) -> None:
    assert read_table(path, ["a"], most_rows=10)["a"].to_pylist() == list(range(10))
    some = read_table(path, ["a"], filters=pc.field("b") == "text 3", most_rows=2)
    assert some["a"].to_pylist() == [3, 10]


def test_what_is_no_damage_passes_through() -> None:
    """A hiccup is worth another try, and an error of ours keeps its type."""
    with pytest.raises(OSError, match="busy"), reading("a"):
        raise OSError(errno.EIO, "busy")
    with pytest.raises(InvariantError), reading("a"):
        raise InvariantError("ours")
