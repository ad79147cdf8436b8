"""Folders in folders: all of them, in one order, and a thousand in each other are refused and no bug of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.storage.file_tree import MAX_DEPTH, entries_below, paths_below
from schemas.paths import OutsideCorpus


def test_everything_by_name_but_what_lies_in_leaves(tmp_path: Path) -> None:
    for name in ("b/x/1", "b/x/2", "a/y/3", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "to_a").symlink_to("a")
    names = [Path(each.path).relative_to(tmp_path).as_posix() for each in entries_below(tmp_path)]
    assert names == ["a", "b", "c", "to_a", "a/y", "a/y/3", "b/x", "b/x/1", "b/x/2"]
    without = [each.name for each in entries_below(tmp_path, lambda relative: relative == "b/x")]
    assert without == ["a", "b", "c", "to_a", "y", "3", "x"]
    assert list(paths_below(tmp_path, "[12]")) == [tmp_path / "b/x/1", tmp_path / "b/x/2"]
    assert list(paths_below(tmp_path / "absent")) == []


def test_as_many_folders_in_each_other_as_a_corpus_may_have_and_one_more(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * MAX_DEPTH)
    deepest.mkdir(parents=True)
    assert len(list(entries_below(tmp_path))) == MAX_DEPTH
    (deepest / "d").mkdir()
    with pytest.raises(OutsideCorpus, match="more than 64 nested folders") as caught:
        list(entries_below(tmp_path))
    assert caught.value.exit_code == 2
    assert caught.value.where.startswith(str(tmp_path))


def test_a_path_that_is_longer_than_any_the_system_takes(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    with pytest.raises(OutsideCorpus, match="nested folders"):
        list(entries_below(tmp_path))


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised, or handed over, and then the others follow."""
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
    scandir = os.scandir

    def scan(path: str) -> object:
        if path.endswith("/a"):
            raise PermissionError(13, "no", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(PermissionError):
        list(entries_below(tmp_path))
    refused: list[OSError] = []
    names = [each.name for each in entries_below(tmp_path, on_error=refused.append)]
    assert names == ["a", "b", "c"]
    assert [error.filename for error in refused] == [str(tmp_path / "a")]
