"""Tables that are made once by whoever comes first, also where machines share the cache and their locks do not."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from schemas.errors import ConfigError
from schemas.paths import OutsideCorpus
from training.data.actions import default_cache
from training.data.cache import build_once, mapped


def test_two_machines_without_a_common_lock_do_not_destroy_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins and ends while the first is at work."""
    monkeypatch.setattr("fcntl.flock", lambda lock, how: None)
    folder = tmp_path / "cache" / "table"

    def at(machine: str) -> None:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=machine))

    def quick(into: Path) -> None:
        (into / "rows").write_text("the same")

    def slow(into: Path) -> None:
        quick(into)
        at("second")
        build_once(folder, quick)
        (into / "more").write_text("all the same")
        at("first")

    at("first")
    build_once(folder, slow)
    assert (folder / "rows").read_text() == "the same"
    assert not list(folder.parent.glob(".*.half"))


def test_what_cannot_get_its_name_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "table"

    def make(into: Path) -> None:
        folder.write_text("no folder")

    with pytest.raises(ConfigError, match="cannot be written"):
        build_once(folder, make)


@pytest.mark.parametrize("name", ["table", ".table.lock", ".table.here.half"])
def test_a_link_in_the_cache_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A cache lies in a corpus, which can be somebody else's."""
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="here"))
    target = tmp_path / "mine"
    if name == ".table.lock":
        target.write_text("secret")
    else:
        target.mkdir()
        (target / "rows.npy").write_bytes(b"secret")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(target)
    with pytest.raises(ConfigError):
        build_once(tmp_path / "cache" / "table", lambda into: (into / "rows").touch())
    kept = target if target.is_file() else target / "rows.npy"
    assert kept.read_bytes() == b"secret"
    assert sorted(target.parent.rglob("rows*")) == ([] if target.is_file() else [kept])


def test_a_table_behind_a_link_or_of_no_size_is_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(3))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "rows.npy").symlink_to(tmp_path / "rows.npy")
    with pytest.raises(OutsideCorpus):
        mapped(tmp_path / "cache", "rows.npy")
    data = (tmp_path / "rows.npy").read_bytes()
    shape = b"(3,), }" + b" " * 19
    assert shape in data
    (tmp_path / "rows.npy").write_bytes(data.replace(shape, b"(%d,), }" % 10**18 + b" " * 1))
    with pytest.raises(ConfigError, match="damaged"):
        mapped(tmp_path, "rows.npy")


def test_a_cache_of_a_corpus_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "_cache").symlink_to(tmp_path / "mine")
    with pytest.raises(OutsideCorpus, match="_cache: is a link"):
        default_cache(tmp_path)
