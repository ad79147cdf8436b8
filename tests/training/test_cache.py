"""Tables that are made once by whoever comes first, also where machines share the cache and their locks do not."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from schemas.errors import ConfigError
from training.data.cache import made_once


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
        made_once(folder, quick)
        (into / "more").write_text("all the same")
        at("first")

    at("first")
    made_once(folder, slow)
    assert (folder / "rows").read_text() == "the same"
    assert not list(folder.parent.glob(".*.half"))


def test_what_cannot_get_its_name_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "table"

    def make(into: Path) -> None:
        folder.write_text("no folder")

    with pytest.raises(ConfigError, match="cannot be written"):
        made_once(folder, make)
