"""`eicorpus compact --latents` as it is typed: what it says, exit codes, and refusals before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ingest.corpus.layout import LINK
from ingest.corpus.remote_link import Link
from ingest.models.encoder import ImageEncoder
from jobs.cli import app
from schemas.errors import ConfigError
from tests.faults.runs import tree
from tests.latents.corpora import encode, rows_of


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["compact", *map(str, words), "--latents"])


@pytest.fixture
def loose(corpus: Path, tiny: ImageEncoder) -> Path:
    encode(corpus, tiny, run_id="20260101")  # before today, as the command names its run
    return corpus


def test_only_a_dry_run_says_that_it_is_one(loose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(loose)
    dry = typed(loose, "--dry-run")
    assert dry.exit_code == 0
    assert "3 files of latents in 1 packs" in dry.stdout
    assert "dry run: nothing was changed" in dry.stdout
    assert tree(loose) == before
    done: list[int] = []
    shown: list[int | None] = []

    @contextmanager
    def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        shown.append(total)
        yield done.append

    monkeypatch.setattr("jobs.commands.compact.progress_of", progress)
    found = typed(loose)
    assert (found.exit_code, shown, done) == (0, [1], [1])
    assert "3 of 3 files of latents in 1 packs" in found.stdout
    assert "snapshot" in found.stdout
    assert "dry run" not in found.stdout
    again = typed(loose)
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, "nothing to pack")


def test_what_is_left_out_ends_it_with_1_also_when_nothing_else_is_to_do(loose: Path) -> None:
    path = loose / rows_of(loose)[0]["path"]
    path.unlink()
    dry = typed(loose, "--dry-run")
    assert dry.exit_code == 0
    assert "2 files of latents in 1 packs" in dry.stdout
    assert "left out: 1 missing" in dry.stdout
    found = typed(loose)
    assert found.exit_code == 1
    assert "2 of 3 files of latents in 1 packs" in found.stdout
    assert "exit 1: 1 of 3 files left out" in found.stderr
    again = typed(loose)
    assert again.exit_code == 1
    assert "dry run" not in again.stdout
    answer = json.loads(typed(loose, "--json").stdout)
    assert answer["error"]["message"] == "1 of 1 files left out"
    assert (answer["result"]["committed"], answer["result"]["left_out"]) == (False, {"missing": 1})


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_corpus_in_a_bucket_is_refused_before_any_work(
    loose: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (loose / LINK).write_bytes(Link(uri="s3://bucket/corpus", corpus_uid="x").data)
    monkeypatch.setattr("jobs.stages.bucket_corpus.opened_folder", lambda folder, *_: folder)
    before = tree(loose)
    found = typed(loose, *options)
    assert isinstance(found.exception, ConfigError)
    assert "eicorpus pull s3://bucket/corpus" in str(found.exception.remedy)
    assert tree(loose) == before
