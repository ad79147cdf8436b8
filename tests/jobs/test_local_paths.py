"""`scheme://` is refused for every path of every command."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from adapters.registry import ADAPTERS, adapter_for
from jobs.cli import app
from jobs.command_table import COMMANDS, loaded
from schemas.errors import ConfigError
from schemas.paths import check_local
from tests.training.corpus import Trainable, make


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    return make(tmp_path_factory.mktemp("trainable"))


def callbacks(command: Any, name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for below, each in getattr(command, "commands", {}).items():
        yield from callbacks(each, f"{name} {below}")
    if not getattr(command, "commands", None):
        yield name, command.callback.__wrapped__  # typer's own wrapper remembers what it was given


def paths_of(callback: Callable[..., Any]) -> list[str]:
    hints = get_type_hints(inspect.unwrap(callback))
    return [k for k, hint in hints.items() if hint is Path or Path in leaves(hint)]


def leaves(hint: Any) -> set[Any]:
    return {hint}.union(*(leaves(each) for each in get_args(hint)))


def test_every_path_of_every_command_must_be_of_this_machine() -> None:
    seen = 0
    for name in COMMANDS:
        for full, callback in callbacks(loaded(name), name):
            for parameter in paths_of(callback):
                with pytest.raises(ConfigError, match="s3://"):
                    callback(**{parameter: Path("s3://bucket/c")})
                with pytest.raises(ConfigError, match="hf://"):
                    callback(**{parameter: [Path("a"), Path("hf://b")]})
                seen += 1
            assert full
    assert seen > 40


@pytest.mark.parametrize("text", ["s3:/b", "gs://b/c", "hf://datasets/x", "https://h/x", "S3://b"])
def test_a_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a local path"):
        check_local(Path(text), "--out")


@pytest.mark.parametrize("text", ["/a/s3:/b", "a:b/c", "c", "./x", "C:/data", "a/https:/x"])
def test_a_path_with_a_colon_is_a_path(text: str) -> None:
    check_local(Path(text), "--out")


def test_nothing_is_made(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    arguments = ["ingest", "video_folder", "raw", "--out", "ftp://bucket/c"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--out" in done.stderr
    assert "ftp://" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["raw"]


PATH_OPTIONS = [
    (name, option) for name in ADAPTERS for option in getattr(adapter_for(name), "path_options", ())
]


@pytest.mark.parametrize(("source", "option"), PATH_OPTIONS)
@pytest.mark.parametrize("command", ["ingest", "doctor"])
def test_an_option_that_is_a_path_is_of_this_machine(
    command: str, source: str, option: str, tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    words = [command, source, str(tmp_path / "raw"), "--option", f"{option}=s3://bucket/labels"]
    words += ["--out", str(tmp_path / "c")] if command == "ingest" else []
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"--option {option}: s3://bucket/labels is a URL")


def test_an_option_that_is_no_path_may_be_a_url(tmp_path: Path) -> None:
    """A licence lies where it lies; what is refused here is the empty folder."""
    assert ("lerobot", "mapping") in PATH_OPTIONS
    (tmp_path / "raw").mkdir()
    for name in ("lerobot", "video_folder"):
        words = ["ingest", name, str(tmp_path / "raw"), "--out", str(tmp_path / "c")]
        given = ["--option", "licence=https://creativecommons.org/licenses/by/4.0/"]
        done = CliRunner().invoke(app, [*words, *given])
        assert "URL" not in str(done.exception)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["--recipe", "s3://b/mine.yaml"], "--recipe"),
        (["--set", "text.kind=online", "--set", "text.model=s3://b/qwen"], "text.model"),
    ],
)
def test_a_recipe_and_the_model_that_it_names_are_of_this_machine(
    words: list[str], where: str, trainable: Trainable, tmp_path: Path
) -> None:
    given = ["train", str(trainable.manifest), "--out", str(tmp_path / "run"), "--dry-run"]  # fmt: skip
    done = CliRunner().invoke(app, [*given, *words])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"{where}: s3://b/")
