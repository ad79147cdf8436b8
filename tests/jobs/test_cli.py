"""The command line as a shell sees it: exit codes, and what a mistake of the caller points to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from jobs.command_table import COMMANDS, option_names
from jobs.ui.arguments import ANY, RENAMED
from schemas import regular_file

# Where an old spelling of other commands is the current one: they are about training.
KEPT = {("train", "--set"), ("train", "--recipe"), ("train", "--steps"), ("train-value", "--steps")}
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
        (["snapshot", "diff", "C", "1", "2", "--jsno"], "--json", "eicorpus snapshot diff --help"),
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
        (["query", "SELECT 1"], "CORPUS is missing", "eicorpus query --help"),
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
    assert "List and compare snapshots" in done.stdout


def test_the_shell_completes_names_of_commands_and_options() -> None:
    asked = {"_EICORPUS_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert ran(**asked, COMP_WORDS="eicorpus sna").stdout.split() == ["snapshot"]
    asked["COMP_CWORD"] = "3"
    assert ran(**asked, COMP_WORDS="eicorpus snapshot list --js").stdout.split() == ["--json"]


@pytest.mark.parametrize(
    ("words", "has_workers"),
    [
        (["ingest", "a", "b"], True),
        (["measure", "corpus"], True),
        (["compact", "corpus"], False),
        (["manifest", "show", "corpus", "build"], False),
        (["digest", "corpus"], False),
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
    [
        ("measure", "use fewer --workers"),
        ("digest", "use fewer --threads"),
        ("compact", "run it on a machine with more memory"),
    ],
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


FORMS = {
    "query": ("query CORPUS SQL", "query SQL"),
    "explain": ("explain CORPUS EPISODE", "explain EPISODE"),
    "measure": ("measure CORPUS", "measure"),
    "manifest verify": ("manifest verify CORPUS NAME", "manifest verify NAME"),
    "snapshot diff": ("snapshot diff CORPUS A B", "snapshot diff A B"),
    "ingest": ("ingest [SOURCE] PATH --out CORPUS", "ingest [SOURCE] PATH"),
}
WITHOUT_CORPUS = {
    "query": ["SELECT 1"],
    "explain": ["uid"],
    "measure": [],
    "manifest verify": ["m"],
    "snapshot diff": ["1", "2"],
    "ingest": ["raw"],
}


@pytest.mark.parametrize("name", FORMS)
def test_without_corpus_and_environment_both_forms_are_shown(name: str) -> None:
    done = ran(*name.split(), *WITHOUT_CORPUS[name], EICORPUS_CORPUS="")
    assert (done.returncode, done.stdout) == (2, "")
    whole, short = (f"eicorpus {form}" for form in FORMS[name])
    assert f"usage: {whole}\n   or: export EICORPUS_CORPUS=CORPUS; {short}\n" in done.stderr


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_needs_no_argument(name: str, option: str) -> None:
    done = ran(*name.split(), option, EICORPUS_CORPUS="", COLUMNS="200")
    assert (done.returncode, done.stderr) == (0, "")
    shown = f" Usage: eicorpus {name} [OPTIONS] "
    first = "[SOURCE] {PATH}" if name == "ingest" else "[CORPUS]"
    assert f"{shown}{first}" in done.stdout


@pytest.mark.parametrize("name", FORMS)
def test_the_environment_names_the_corpus(name: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    words = [str(tmp_path) if word == "raw" else word for word in WITHOUT_CORPUS[name]]
    done = ran(*name.split(), *words, EICORPUS_CORPUS=str(nowhere))
    assert done.returncode == 2
    if name == "ingest":
        assert "the corpus must not be inside the raw data" in done.stderr or (
            "no source matches" in done.stderr
        )
    else:
        assert f"{nowhere}: " in done.stderr


def test_a_corpus_on_the_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    done = ran("query", str(tmp_path / "here"), "SELECT 1", EICORPUS_CORPUS=str(tmp_path / "there"))
    assert done.returncode == 2
    assert f"{tmp_path / 'here'}: " in done.stderr


def test_one_argument_of_ingest_is_a_path_and_two_are_a_source_and_a_path(tmp_path: Path) -> None:
    out = str(tmp_path / "corpus")
    one = ran("ingest", "video_folder", "--out", out)
    assert (one.returncode, "video_folder: no such file or folder" in one.stderr) == (2, True)
    two = ran("ingest", "video_folder", str(tmp_path / "raw"), "--out", out)
    assert f"{tmp_path / 'raw'}: no such file or folder" in two.stderr


def path_of(command: str) -> list[str]:
    return [] if command in ("", ANY) else command.split()


@pytest.mark.parametrize(
    ("command", "old"), [pair for pair in RENAMED if ANY not in pair], ids=" ".join
)
def test_an_old_spelling_of_one_command_is_refused_with_the_new_one(command: str, old: str) -> None:
    done = ran(*path_of(command), old, "x")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error {old} is not valid here; use ")
    assert RENAMED[command, old] in done.stderr


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("tier", "--what-if", "--dry-run"),
        ("manifest build", "--corpus", "the argument CORPUS"),
        ("doctor", "--set", "--dataset"),
        ("ingest", "--recipe", "--config"),
        ("ingest", "--time-limit", "--time-limit-s"),
        ("query", "--timeout-s", "--time-limit-s"),
        ("ingest", "--memory-limit", "--memory-limit-mb"),
        ("query", "--memory-mb", "--memory-limit-mb"),
        ("eval", "--steps", "--sampling-steps"),
        ("serve-policy", "--encoder-weights", "--weights"),
        ("serve-policy", "--encoder-hub-id", "--hub-id"),
        ("latents images", "--num-gpus", "--gpus-per-encoder"),
        ("latents text", "--vlm-pictures", "--vlm-frame-every-s"),
    ],
)
def test_an_old_spelling_is_refused_with_the_new_one(command: str, old: str, new: str) -> None:
    assert (ANY, old) in RENAMED
    done = ran(*command.split(), old, "x")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error {old} is not valid here; use {new}\n")


def test_what_never_was_an_option_of_a_command_has_no_new_spelling() -> None:
    done = ran("tier", "--set", "x")
    assert done.stderr.startswith("error No such option: --set")


def test_latents_needs_images_or_text() -> None:
    for words in (["latents", "corpus"], ["latents", "corpus", "--encoder", "patch_dct"]):
        done = ran(*words)
        assert done.returncode == 2
        assert "eicorpus latents images CORPUS" in done.stderr


def test_no_command_has_an_old_spelling() -> None:
    for command, old in RENAMED:
        for name in COMMANDS if command == ANY else [command.partition(" ")[0]] if command else []:
            if old.startswith("--"):
                options = option_names(command.split()) if command != ANY else option_names([name])
                assert old not in options or (command == ANY and (name, old) in KEPT), (name, old)


def test_help_is_in_groups() -> None:
    shown = ran("--help").stdout
    places = [shown.index(f" {panel} ─") for panel in ("Ingest", "Curate", "Train", "Maintain")]
    assert places == sorted(places)
