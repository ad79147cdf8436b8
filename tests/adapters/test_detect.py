"""The source of raw data is detected from the data: what every generator writes is read by the source it is made for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adapters.detect import GENERAL, matches
from adapters.registry import ADAPTERS, dataset_owner
from jobs.cli import app
from schemas.errors import ConfigError
from tests import generators

# Data that another source reads too: the user chooses.
ALIKE = {"rh20t": {"rh20t_human"}}  # robot scenes hold the demonstration of a person


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_generated_data_is_of_its_own_source(name: str, tmp_path: Path) -> None:
    written = generators.write(name, tmp_path / "raw")
    sources = {each.source for each in matches(written.root, written.options)}
    assert sources == {name, *ALIKE.get(name, ())}


def test_the_command_names_the_source_and_how_sure_it_is(tmp_path: Path) -> None:
    written = generators.write("robomimic", tmp_path / "raw")
    words = ["ingest", str(written.root), "--out", str(tmp_path / "c"), "--dry-run", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "source: robomimic, " in done.stderr
    assert "(sure: no other source matches)" in done.stderr
    assert '"source": "robomimic"' in done.stdout


def test_a_general_source_is_unsure(tmp_path: Path) -> None:
    assert "video_folder" in GENERAL
    written = generators.write("video_folder", tmp_path / "raw")
    words = ["ingest", str(written.root), "--out", str(tmp_path / "c"), "--dry-run"]
    assert "(unsure: any " in CliRunner().invoke(app, words).stderr


def test_two_sources_are_both_offered_with_their_commands(tmp_path: Path) -> None:
    raw = tmp_path / "raw dir"
    for name in ("robomimic", "droid"):
        written = generators.write(name, tmp_path / name)
        shutil.copytree(written.root, raw, dirs_exist_ok=True)
    done = CliRunner().invoke(app, ["doctor", str(raw)])
    assert isinstance(done.exception, ConfigError)
    assert "2 sources match this data" in str(done.exception)
    for name in ("droid", "robomimic"):
        assert f"  eicorpus doctor {name} '{raw}'  # " in str(done.exception)


def test_data_of_no_source_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "notes.txt").write_text("nothing")
    none = CliRunner().invoke(app, ["doctor", str(tmp_path / "raw")]).exception
    assert isinstance(none, ConfigError)
    assert "no source matches this data" in str(none)
    missing = CliRunner().invoke(app, ["doctor", str(tmp_path / "absent")]).exception
    assert "no such file or folder" in str(missing)


@pytest.mark.parametrize(
    ("name", "datasets"),
    [
        ("bridge", ["bridge_dataset", "bridge_oxe", "bridge_orig"]),
        ("droid_100", ["droid"]),
        ("fractal20220817_data", ["fractal20220817_data"]),
        ("oxe", None),
        ("egodex", None),
        ("tests.faults.toy:Toy", None),
        ("nothing_like_it", None),
    ],
)
def test_the_name_of_a_dataset_leads_to_its_source(name: str, datasets: list[str] | None) -> None:
    assert dataset_owner(name) == (datasets and ("oxe", datasets))


def test_a_dataset_as_source_is_answered_with_the_command(tmp_path: Path) -> None:
    words = ["ingest", "bridge", "raw", "--out", str(tmp_path / "c")]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, ConfigError)
    assert f"run eicorpus ingest oxe raw --out {tmp_path / 'c'}" in str(error)
