"""The command line as a shell sees it: exit codes, and what a mistake of the caller points to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from jobs.commands import option_names
from schemas import regular_file

COMMAND = "import sys; from jobs.cli import main; sys.argv = ['eicorpus', *sys.argv[1:]]; main()"


def ran(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "said", "help_of"),
    [
        (["ingest", "--wrokers", "3"], "--workers", "eicorpus ingest --help"),
        (["snapshot", "diff", "1", "2", "--jsno"], "--json", "eicorpus snapshot diff --help"),
        (["snapshot", "dif"], "'diff'", "eicorpus snapshot --help"),
        (["ingst"], "'ingest'", "eicorpus --help"),
        (
            ["ingest", "a", "b", "--out", "c", "--workers", "x"],
            "'--workers': 'x'; expected a whole number",
            "eicorpus ingest --help",
        ),
        (
            ["ingest", "a", "b", "--out", "c", "--workers", "-1"],
            "'--workers': '-1'; expected at least 0",
            "eicorpus ingest --help",
        ),
        (["query", "SELECT 1"], "--corpus", "eicorpus query --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_names_the_nearest_word_and_the_help_of_its_own_command(
    words: list[str], said: str, help_of: str
) -> None:
    done = ran(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.splitlines()[-1] == f"see {help_of}"
    assert done.stdout == ""


def test_a_command_without_its_subcommand_prints_its_help_and_no_empty_error() -> None:
    done = ran("snapshot")
    assert (done.returncode, done.stderr) == (2, "")
    assert "The history of a catalog" in done.stdout


def test_the_shell_completes_names_of_commands_and_options() -> None:
    asked = {"_EICORPUS_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert ran(**asked, COMP_WORDS="eicorpus sna").stdout.split() == ["snapshot"]
    asked["COMP_CWORD"] = "3"
    assert ran(**asked, COMP_WORDS="eicorpus snapshot list --js").stdout.split() == ["--json"]


@pytest.mark.parametrize(
    ("words", "has_workers"),
    [
        (["ingest", "a", "b"], True),
        (["digest", "corpus"], True),
        (["compact", "corpus"], False),
        (["manifest", "show", "corpus", "build"], False),
        (["export", "iceberg", "corpus"], False),
        (["ingst", "corpus"], False),
        ([], False),
    ],
)
def test_options_of_a_command_are_known_after_it_failed(
    words: list[str], has_workers: bool
) -> None:
    assert ("--workers" in option_names(words)) is has_workers


@pytest.mark.parametrize(
    ("command", "less"),
    [("digest", "fewer --workers need less"), ("compact", "run it where more is free")],
)
def test_out_of_memory_says_while_reading_what_and_names_options_that_are_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    less: str,
) -> None:
    path = tmp_path / "large.json"
    path.touch()
    size = 1 << 61  # no machine has it
    monkeypatch.setattr(regular_file, "_bounded_size", lambda *_: size)

    def run(**_: object) -> None:
        regular_file.read_regular(path, max_bytes=size)

    monkeypatch.setattr(cli, "app", run)
    monkeypatch.setattr(sys, "argv", ["eicorpus", command, "corpus"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert f"out of memory while reading {path}; {less}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["explain", "X", "--corpus", "C"],
            [
                "No such option: --corpus; CORPUS is an argument",
                "usage: eicorpus explain CORPUS EPISODE",
            ],
        ),
        (
            ["manifest", "verify", "N"],
            ["--corpus", "usage: eicorpus manifest verify NAME --corpus CORPUS"],
        ),
        (["query", "C", "SELECT 1"], ["--corpus", "usage: eicorpus query SQL --corpus CORPUS"]),
        (
            ["snapshot", "list", "C"],
            ["--corpus", "usage: eicorpus snapshot list --corpus CORPUS"],
        ),
    ],
    ids=" ".join,
)
def test_an_argument_that_is_written_as_an_option_or_the_other_way_round_shows_the_form(
    words: list[str], lines: list[str]
) -> None:
    done = ran(*words)
    assert done.returncode == 2
    for text, line in zip(lines, done.stderr.splitlines(), strict=False):
        assert text in line
