"""Packages of another distribution that hide ours are named with both places, by `--version` and by `doctor`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.own_packages import foreign_packages
from tests.test_architecture import ROOT


def test_ours_are_ours() -> None:
    assert foreign_packages() == ""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder before ours on sys.path, in which another distribution has a package `training`."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("raise SystemExit('it was imported')")
    return tmp_path


@pytest.mark.parametrize("words", [("--version",), ("doctor", "droid", "no_such_folder")])
def test_a_stranger_is_named_in_one_line(site: Path, words: tuple[str, ...]) -> None:
    code = f"import sys; sys.argv[1:] = {list(words)}; from jobs.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=site,
        env={"PATH": "", "PYTHONPATH": f"{site}:{ROOT}", "HOME": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if "another distribution" in line]
    assert str(site / "training") in line
    assert str(ROOT) in line
    assert "ingest (" not in line
