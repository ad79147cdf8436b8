"""Walking a tar shard: what Python's own tarfile wrote is found byte for byte; what is hostile is named, not followed."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.containers import tar_shard
from adapters.containers.tar_shard import TarMember, samples, tar_members
from schemas.errors import Code, SourceError


def write(path: Path, files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def problems(path: Path) -> list[tuple[str, str]]:
    return [(m.name, m.problem[0]) for m in tar_members(path) if m.problem]


def healthy(path: Path) -> list[TarMember]:
    return [m for m in tar_members(path) if not m.problem]


LONG = "a/" * 60 + "b" * 90 + ".mp4"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_put_them(tmp_path: Path, form: int) -> None:
    files = {"a.mp4": b"x" * 512, "a.json": b"", "b/c.mp4": b"y" * 513, "./d.txt": b"z"}
    files |= {LONG: b"long"} | ({} if form == tarfile.USTAR_FORMAT else {"küche.mp4": b"u"})
    path = write(tmp_path / "s.tar", files, form)
    data = path.read_bytes()
    found = {m.name: data[m.start : m.end] for m in tar_members(path)}
    assert found == {name.removeprefix("./"): value for name, value in files.items()}


@given(st.lists(st.binary(max_size=1500), max_size=6), st.integers(0, 20_000))
def test_a_cut_shard_gives_every_whole_member_and_one_truncated(
    parts: list[bytes], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "s.tar", {f"{i}.bin": d for i, d in enumerate(parts)})
        whole = {m.name: m for m in tar_members(path)}
        data = path.read_bytes()[:cut]
        path.write_bytes(data)
        if 0 < cut < 512 and parts:
            with pytest.raises(SourceError) as caught:
                list(tar_members(path))
            assert caught.value.code is Code.UNKNOWN_LAYOUT
            return
        found = list(tar_members(path))
        kept = [m for m in found if not m.problem]
        assert kept == [m for m in whole.values() if m.end <= cut]
        has_mark = cut >= max([0, *(-(-m.end // 512) * 512 for m in whole.values())]) + 512
        broken = [m.problem[0] for m in found if m.problem]
        assert broken == ([] if has_mark else ["truncated"])


def test_one_byte_less_is_one_member_less(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", {"a": b"x" * 600, "b": b"y" * 700})
    data = path.read_bytes()
    for cut, names in ((1024 + 88, ["a"]), (1024 + 87, []), (2048 + 512 + 188, ["a", "b"])):
        path.write_bytes(data[:cut])
        assert [m.name for m in healthy(path)] == names
        assert problems(path) == [("", "truncated")]


def test_links_devices_and_paths_that_lead_out_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("soft.mp4", tarfile.SYMTYPE),
            ("hard.mp4", tarfile.LNKTYPE),
            ("pipe.mp4", tarfile.FIFOTYPE),
            ("disk.mp4", tarfile.BLKTYPE),
            ("old.mp4", tarfile.GNUTYPE_SPARSE),
            ("folder.mp4", tarfile.DIRTYPE),
            ("../out.mp4", tarfile.REGTYPE),
            ("/etc/out.mp4", tarfile.REGTYPE),
            ("a/../../out.mp4", tarfile.REGTYPE),
            ("..\\out.mp4", tarfile.REGTYPE),
            ("C:out.mp4", tarfile.REGTYPE),
            ("twice.mp4", tarfile.REGTYPE),
            ("twice.mp4", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [m.name for m in healthy(path)] == ["twice.mp4"]
    codes = dict.fromkeys(
        ("soft.mp4", "hard.mp4", "pipe.mp4", "disk.mp4", "old.mp4"), "unsafe_content"
    )
    out = ("../out.mp4", "/etc/out.mp4", "a/../../out.mp4", "..\\out.mp4", "C:out.mp4")
    codes |= dict.fromkeys(out, "unsafe_path") | {"twice.mp4": "unsafe_content"}
    assert problems(path) == list(codes.items())


def pax(path: Path, headers: dict[str, str], *, kind: bytes = b"x") -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.mp4")
        info.size, info.pax_headers = 4, headers if kind == b"x" else {}
        if kind == b"g":
            archive.pax_headers = headers
            archive.fileobj.write(info.create_pax_global_header(headers))
            archive.offset = archive.fileobj.tell()
        archive.addfile(info, io.BytesIO(b"data"))
    return path


def test_pax_records(tmp_path: Path) -> None:
    (member,) = tar_members(pax(tmp_path / "a.tar", {"path": "b/c.mp4", "comment": "hello"}))
    assert member.name == "b/c.mp4"
    assert (tmp_path / "a.tar").read_bytes()[member.start : member.end] == b"data"
    # one header for all members could rename and resize everything
    (member,) = tar_members(pax(tmp_path / "g.tar", {"path": "evil.mp4", "size": "1"}, kind=b"g"))
    assert (member.name, member.end - member.start) == ("a.mp4", 4)
    assert problems(pax(tmp_path / "s.tar", {"GNU.sparse.realsize": "9" * 15})) == [
        ("a.mp4", "unsafe_content")
    ]
    assert problems(pax(tmp_path / "p.tar", {"path": "../../x"})) == [("../../x", "unsafe_path")]
    assert problems(pax(tmp_path / "l.tar", {"size": "9" * 15})) == [("", "truncated")]


def test_a_name_record_as_large_as_the_disk_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 << 20
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(4 << 20)
    assert problems(path) == [("", "unsafe_content")]


def test_a_broken_header_ends_the_walk(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tar", {"a": b"1", "b": b"2", "c": b"3"})
    data = bytearray(path.read_bytes())
    data[1024 + 5] ^= 0xFF
    path.write_bytes(data)
    assert [m.name for m in healthy(path)] == ["a"]
    assert problems(path) == [("", "corrupt_record")]


def test_numbers_in_base_256(tmp_path: Path) -> None:
    """GNU tar writes sizes from 8 GiB on so; here of a member that is not all there."""
    path = tmp_path / "s.tar"
    info = tarfile.TarInfo("big.mp4")
    info.size = 9 << 30
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert problems(path) == [("", "truncated")]
    with path.open("r+b") as file:  # sparse on this disk
        file.truncate((9 << 30) + 512 + 1024)
    assert [(m.start, m.end) for m in tar_members(path)] == [(512, 512 + (9 << 30))]


@pytest.mark.parametrize("head", [b"\x1f\x8b\x08", b"PK\x03\x04", b"version https://git-lfs"])
def test_what_is_no_plain_tar_is_said_so(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(head + b"\x01" * 2000)
    with pytest.raises(SourceError) as caught:
        list(tar_members(path))
    assert caught.value.code is Code.UNKNOWN_LAYOUT
    with pytest.raises(SourceError) as caught:
        list(tar_members(tmp_path / "none.tar"))
    assert caught.value.code is Code.MISSING_FILE


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_shard, "MAX_MEMBERS", 2)
    path = write(tmp_path / "s.tar", {"a": b"", "b": b"", "c": b""})
    assert [m.name for m in healthy(path)] == ["a", "b"]
    assert problems(path) == [("", "unsafe_content")]


def test_samples_share_a_name_up_to_the_first_dot(tmp_path: Path) -> None:
    names = ("f/x.0.mp4", "f/x.JSON", "f.1/y.mp4", "noext", "../z.mp4", "f/x.txt")
    path = write(tmp_path / "s.tar", dict.fromkeys(names, b"1"))
    found = list(samples(path))
    assert [(s.key, sorted(s.files)) for s in found[:2]] == [
        ("f/x", ["0.mp4", "json", "txt"]),
        ("f.1/y", ["mp4"]),
    ]
    assert [(s.key, s.problem and s.problem[0]) for s in found[2:]] == [("../z.mp4", "unsafe_path")]
