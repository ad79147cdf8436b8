"""The command line as a shell sees it: exit codes, and what a mistake of the caller points to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
