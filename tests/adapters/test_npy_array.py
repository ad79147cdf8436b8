"""Numbers from a .npy file, and what is no such file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.containers.array_files import npy_array
from schemas.errors import Code, SourceError


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_numbers_of_any_width_and_order(tmp_path: Path, dtype: type) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    found = npy_array(tmp_path / "a.npy", "a")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)
    (tmp_path / "a.npy").unlink()  # nothing holds the file open


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: b"", Code.CORRUPT_RECORD),
        (lambda data: b"PK" + data, Code.CORRUPT_RECORD),
        (lambda data: data[:-1], Code.CORRUPT_RECORD),
        (lambda data: data.replace(b"(3, 3)", b"(9, 9)"), Code.CORRUPT_RECORD),
        (lambda data: data.replace(b"(3, 3), ", b"(-1,-1)"), Code.CORRUPT_RECORD),
        (lambda data: data.replace(b"(3, 3)", b"((((((")[:-8], Code.CORRUPT_RECORD),
        (lambda data: data.replace(b"<f8", b"|O8"), Code.CORRUPT_RECORD),
        (lambda data: data.replace(b"<f8", b"|S8"), Code.CORRUPT_RECORD),
    ],
)
def test_what_is_no_array_of_numbers(
    tmp_path: Path, change: Callable[[bytes], bytes], code: Code
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.eye(3))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SourceError) as caught:
        npy_array(path, "a")
    assert caught.value.code is code, str(caught.value)


def test_missing_and_too_large(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    for path, limit, code in (
        (tmp_path / "b.npy", 1 << 20, Code.MISSING_FILE),
        (tmp_path / "a.npy", 100, Code.TOO_LARGE),
    ):
        with pytest.raises(SourceError) as caught:
            npy_array(path, "a", max_bytes=limit)
        assert caught.value.code is code
