"""What is no regular file is refused with a code, at once; what only looks like one is named."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from schemas.errors import Code, SourceError, TransientError
from schemas.regular_file import (
    LFS_HEAD,
    blocks_of_regular,
    bytes_hint,
    check_regular,
    lines_of_regular,
    open_regular,
    read_regular,
)

POINTER = LFS_HEAD + b".github.com/spec/v1\noid sha256:00\nsize 5\n"


def code_of(path: Path) -> Code:
    with pytest.raises(SourceError) as caught, open_regular(path):
        pass
    return caught.value.code


def test_a_regular_file_is_read_whole_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link", max_bytes=10) == b"0123456789"
    assert check_regular(tmp_path / "link") == 10


def test_a_fifo_a_folder_a_device_and_a_socket_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
        for path in (tmp_path / "fifo", tmp_path / "folder", tmp_path / "socket", Path(os.devnull)):
            assert code_of(path) is Code.UNREADABLE


def test_links_to_nowhere_and_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("annex/objects/SHA256-1")
    (tmp_path / "loop").symlink_to("loop")
    assert code_of(tmp_path / "dangling") is Code.MISSING_FILE
    assert code_of(tmp_path / "loop") is Code.UNREADABLE
    with pytest.raises(SourceError, match=r"annex/objects/SHA256-1.*download"):
        check_regular(tmp_path / "dangling")


def test_a_missing_file_has_the_code_that_the_caller_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for path in (tmp_path / "none", tmp_path / "a" / "below"):
        with pytest.raises(SourceError) as caught:
            check_regular(path, missing=Code.MISSING_VIDEO)
        assert caught.value.code is Code.MISSING_VIDEO


def test_what_cannot_be_a_path_at_all() -> None:
    assert code_of(Path("a\0b")) is Code.UNSAFE_PATH
    assert code_of(Path("a" * 5000)) is Code.UNSAFE_PATH


def test_a_git_lfs_pointer_is_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_bytes(POINTER)
    with pytest.raises(SourceError, match="git lfs pull"):
        read_regular(tmp_path / "episodes.jsonl", max_bytes=1000)
    (tmp_path / "long").write_bytes(POINTER + b"x" * 2000)  # starts like one, but is a file
    assert check_regular(tmp_path / "long") > 2000


def test_reading_takes_the_memory_of_the_file_and_not_of_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "a", max_bytes=1 << 50) == b"0123456789"


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with pytest.raises(SourceError) as caught:
        read_regular(tmp_path / "a", max_bytes=4)
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_the_machines_trouble_is_worth_another_try(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(TransientError):
        check_regular(tmp_path / "a")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "pointer").write_bytes(POINTER)
    before = len(os.listdir("/proc/self/fd"))
    for name in ("fifo", "pointer"):
        code_of(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_hint_never_raises(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "dangling").symlink_to("none")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    paths = [tmp_path / name for name in ("a", "dangling", "loop", "fifo", "none", "a/b", "x\0")]
    assert bytes_hint(*paths, tmp_path, tmp_path / "a") == 10


def test_lines_come_one_by_one_and_none_is_longer_than_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n\nthree\nfour")
    assert list(lines_of_regular(path, max_bytes=15, max_line_bytes=6)) == [
        *(b"one\n", b"\n", b"three\n", b"four")
    ]
    assert b"".join(blocks_of_regular(path)) == path.read_bytes()
    with pytest.raises(SourceError, match="line 3 is longer than 5 bytes"):
        list(lines_of_regular(path, max_bytes=15, max_line_bytes=5))
    with pytest.raises(SourceError, match="15 bytes; expected at most 14"):
        list(lines_of_regular(path, max_bytes=14, max_line_bytes=6))
