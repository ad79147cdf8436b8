"""The HDF5 reader: values come through, everything that could lead elsewhere or exhaust memory is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from adapters.containers.hdf5 import Hdf5File
from schemas.errors import Code, SourceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["state/x"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file["state/flag"] = np.array([True, False])
        file["name"] = "pick cup"
        file["pictures"] = np.array([[1, 2, 0], [3, 0, 0]], np.uint8)
        ragged = file.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype(np.uint8))
        ragged[0], ragged[1] = np.array([1, 2], np.uint8), np.array([7], np.uint8)
        file["state"].attrs["rate"] = 30
        file["state"].attrs["sim"] = "yes"
    return path


def code_of(path: Path, key: str, **options: int) -> tuple[Code, str]:
    with Hdf5File(path) as file, pytest.raises(SourceError) as caught:
        file.array(key, **options)
    return caught.value.code, str(caught.value)


def test_values_shapes_and_keys(path: Path) -> None:
    with Hdf5File(path) as file:
        x = file.array("state/x")
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, [[0, 1, 2], [3, 4, 5]])
        assert file.array("state/flag").tolist() == [True, False]
        assert file.shape("/state/x") == (2, 3)
        assert file.keys() == ("name", "pictures", "ragged", "state/flag", "state/x")
        assert "state/x" in file
        assert "state/y" not in file
        assert "state/x/deeper" not in file
        assert file.texts("name") == ("pick cup",)
        assert file.blobs("pictures") == (b"\x01\x02\x00", b"\x03\x00\x00")
        assert file.blobs("ragged") == (b"\x01\x02", b"\x07")
        assert file.attribute("state", "rate") == 30
        assert file.attribute("state", "sim") == "yes"


def test_missing_key_names_what_is_there(path: Path) -> None:
    code, text = code_of(path, "state/end/position")
    assert code is Code.MISSING_CHANNEL
    assert "state contains ['flag', 'x']" in text
    assert code_of(path, "state")[0] is Code.MISSING_CHANNEL  # a group is no data set
    with Hdf5File(path) as file, pytest.raises(SourceError, match="available: \\['rate', 'sim'\\]"):
        file.attribute("state", "hz")


@pytest.mark.parametrize("kind", ["external", "soft", "soft_group", "storage", "virtual"])
def test_what_leads_elsewhere_is_refused(path: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as other:
        other["g/x"] = np.arange(3)
    (tmp_path / "secret.bin").write_bytes(b"\x01" * 12)
    with h5py.File(path, "r+") as file:
        if kind == "external":
            file["bad/x"] = h5py.ExternalLink(str(secret), "/g/x")
        elif kind == "soft":
            file["bad/x"] = h5py.SoftLink("/state/x")
        elif kind == "soft_group":
            file["bad"] = h5py.SoftLink("/state")
        elif kind == "storage":
            stored = [(str(tmp_path / "secret.bin"), 0, 12)]
            file.create_dataset("bad/x", (3,), dtype="i4", external=stored)
        else:
            layout = h5py.VirtualLayout((3,), dtype="i8")
            layout[:] = h5py.VirtualSource(str(secret), "g/x", (3,))
            file.create_virtual_dataset("bad/x", layout)
    assert code_of(path, "bad/x")[0] is Code.UNSAFE_CONTENT


def test_declared_size_is_checked_before_reading(path: Path) -> None:
    with h5py.File(path, "r+") as file:  # 8 TB in a few hundred bytes
        file.create_dataset("bomb", (10**6, 10**6), dtype="f8", chunks=(100, 100))
        file.create_dataset("chunk", (10,), maxshape=(None,), dtype="f8", chunks=(1 << 20,))
    assert code_of(path, "bomb")[0] is Code.TOO_LARGE
    assert code_of(path, "chunk", max_bytes=1 << 20)[0] is Code.TOO_LARGE
    assert code_of(path, "state/x", max_bytes=23)[0] is Code.TOO_LARGE
    with Hdf5File(path) as file:
        assert file.array("state/x", max_bytes=24).nbytes == 24
        with pytest.raises(SourceError) as caught:
            file.blobs("ragged", max_bytes=2)
    assert caught.value.code is Code.TOO_LARGE


def test_rows_of_any_length_are_counted_as_they_are_read(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        long = file.create_dataset("long", (2,), dtype=h5py.vlen_dtype(np.uint8))
        long[0], long[1] = np.zeros(100, np.uint8), np.zeros(100, np.uint8)
    with Hdf5File(path) as file:
        assert [len(row) for row in file.blobs("long", max_bytes=200)] == [100, 100]
        with pytest.raises(SourceError, match="more than 199 bytes in 2 rows") as caught:
            file.blobs("long", max_bytes=199)
    assert caught.value.code is Code.TOO_LARGE


def test_objects_are_not_numbers(path: Path) -> None:
    assert code_of(path, "name")[0] is Code.UNSAFE_CONTENT
    with h5py.File(path, "r+") as file:
        file["ref"] = np.array([file["state"].ref], dtype=h5py.ref_dtype)
    assert code_of(path, "ref")[0] is Code.UNSAFE_CONTENT


@pytest.mark.parametrize(
    ("keep", "code"),
    [(0, Code.TRUNCATED), (100, Code.TRUNCATED), (-10, Code.TRUNCATED), (None, Code.UNREADABLE)],
)
def test_damaged_files(path: Path, keep: int | None, code: Code) -> None:
    path.write_bytes(path.read_bytes()[:keep] if keep is not None else b"no hdf5 " * 1000)
    with pytest.raises(SourceError) as caught, Hdf5File(path):
        pass
    assert caught.value.code is code


def test_absent_file_and_folder(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "no.h5", Code.MISSING_FILE), (tmp_path, Code.UNREADABLE)):
        with pytest.raises(SourceError) as caught, Hdf5File(path):
            pass
        assert caught.value.code is code


def test_damage_inside_a_compressed_dataset(tmp_path: Path) -> None:
    path = tmp_path / "z.h5"
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", data=np.arange(4000), chunks=(4000,), compression="gzip")
        offset = x.id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset : offset + 200] = b"\xff" * 200
    path.write_bytes(raw)
    assert code_of(path, "x")[0] is Code.CORRUPT_RECORD


def test_a_damaged_global_heap_is_refused_before_the_library_loops_in_it(path: Path) -> None:
    """An object of free space with the size zero: libhdf5 2.0 never comes back from it (found by tests/fuzz)."""
    data = path.read_bytes()
    at = data.index(b"GCOL\x01") + 16
    path.write_bytes(data[:at] + bytes(64) + data[at + 64 :])
    for key in ("name", "ragged"):
        assert code_of(path, key)[0] == Code.CORRUPT_RECORD
    with Hdf5File(path) as file, pytest.raises(SourceError, match="global heap") as caught:
        file.attribute("state", "sim")
    assert caught.value.code == Code.CORRUPT_RECORD
    with Hdf5File(path) as file:
        assert file.array("state/x").shape == (2, 3)  # needs no heap


def test_a_name_that_is_no_text_and_a_type_that_is_none(tmp_path: Path) -> None:
    """h5py gives undecodable names as bytes, and says ValueError for a float type of no machine (found by tests/fuzz)."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["abcdef"] = np.zeros(3)
        file["x"] = np.zeros(3)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"abcdef\0", b"\xff\xfe\xffdef\0"))
    with Hdf5File(path) as file, pytest.raises(SourceError) as caught:
        file.children("")
    assert caught.value.code == Code.CORRUPT_RECORD
    # The exponent of an IEEE double: 11 bits at bit 52 behind 52 bits, with the bias 1023; here with another bias.
    double = b"\x34\x0b\x00\x34\xff\x03\x00\x00"
    assert double in data
    path.write_bytes(data.replace(double, b"\x34\x0b\x00\x34\xff\x03\x40\x00"))
    for read in (Hdf5File.array, Hdf5File.shape, Hdf5File.blobs):
        with Hdf5File(path) as file, pytest.raises(SourceError) as caught:
            read(file, "x")
        assert caught.value.code == Code.CORRUPT_RECORD
