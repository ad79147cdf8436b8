"""`eicorpus caption` as a user types it: counts, audits, exit codes, words about what is missing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ingest.corpus.layout import CorpusLayout
from jobs.cli import app
from schemas.errors import ConfigError
from tests.curation.caption.cases import NUM
from tests.curation.caption.fake_endpoint import endpoint

ASKED = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m")


def command(*words: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["caption", *words], env=env)


def test_the_command_counts_captions_and_audits(corpus: CorpusLayout, tmp_path: Path) -> None:
    at = str(corpus.root)
    assert json.loads(command(at, "--dry-run", "--json").stdout)["result"]["to_do"] == NUM
    found = command(at, "--json", "--limit", "2")
    told = json.loads(found.stdout)["result"]
    assert (found.exit_code, told["captioned"], told["left"]) == (0, 2, 1)
    assert command(at).exit_code == 0
    found = command(at, "--audit", str(tmp_path / "audit"))
    assert found.exit_code == 0, found.output
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert page.count("data:image/jpeg") == NUM
    csv = tmp_path / "audit" / "audit.csv"
    csv.write_text(csv.read_text().replace(",\n", ",yes\n"))
    found = command(at, "--audited", str(csv), "--json")
    assert json.loads(found.stdout)["result"]["why"].startswith(f"{NUM} of {NUM} correct")
    assert found.exit_code == 1  # three of three are not yet four fifths
    found = command(at, "--audit", str(tmp_path / "b"), "--backend", "replay", "--json")
    assert json.loads(found.stdout)["result"]["captions"] == 0  # of that backend there are none
    told = command(at, "--only-missing", "--dry-run", "--json", "--backend", "openai", *ASKED)
    assert json.loads(told.stdout)["result"]["to_do"] == 0
    inside = command(at, "--audit", str(corpus.root / "x"))
    assert isinstance(inside.exception, ConfigError)


def test_the_command_fails_with_a_dead_endpoint_and_never_shows_the_key(
    corpus: CorpusLayout, tmp_path: Path
) -> None:
    with endpoint(then="echo") as fake:
        recipe = tmp_path / "caption.yaml"
        recipe.write_text(
            f"backend: openai\nmodel: tiny\nendpoint: {{url: '{fake.url}', api_key_env: MY_KEY, tries: 1, failures_to_stop: 1, concurrency: 1}}\n"
        )
        found = command(str(corpus.root), "--config", str(recipe), "--json", MY_KEY="s3cret")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["result"]["stopped"]
    assert "s3cret" not in found.output
    assert fake.headers[0]["Authorization"] == "Bearer s3cret"
    assert not any(b"s3cret" in p.read_bytes() for p in corpus.root.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "openai"], "needs --model"),
        (["--backend", "openai", "--model", "m"], "needs --endpoint URL; there is no default"),
        (["--backend", "replay"], "needs --replay FILE"),
        (["--backend", "replay", "--replay", "absent.jsonl"], "not a replay file"),
        (["--backend", "transformers", "--model", "absent"], "not a model folder"),
        (["--backend", "gpt"], "backend: 'gpt'; expected"),
        (["--config", "absent.yaml"], "cannot be read"),
    ],
)
def test_what_is_not_said_is_asked_for(
    corpus: CorpusLayout, words: list[str], message: str
) -> None:
    found = command(
        str(corpus.root), *words, EICORPUS_CAPTION_ENDPOINT="", EICORPUS_CAPTION_MODEL=""
    )
    assert isinstance(found.exception, ConfigError)
    assert message in str(found.exception)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a mapping"),
        ("endpoint: x", "expected a mapping"),
        ("a: {", "not valid YAML"),
        ("api_key: abc", "api_key: unknown key"),
        ("sheet: {max_frames: 1000}", "sheet.max_frames"),
        (
            "{backend: openai, model: m, endpoint: {url: 'http://127.0.0.1:9', api_key_env: NO_SUCH}}",
            "NO_SUCH",
        ),
    ],
)
def test_a_wrong_recipe_is_named(
    corpus: CorpusLayout, tmp_path: Path, text: str, message: str
) -> None:
    recipe = tmp_path / "caption.yaml"
    recipe.write_text(text)
    found = command(str(corpus.root), "--config", str(recipe))
    assert isinstance(found.exception, ConfigError)
    assert message in str(found.exception)


def test_a_line_that_is_no_record_is_named(corpus: CorpusLayout, tmp_path: Path) -> None:
    replay = tmp_path / "replay.jsonl"
    good = {"uid": "u", "start": 0, "end": 1, "pass": "describe", "text": "{}"}
    replay.write_text(f"{json.dumps(good)}\n\n{{}}\n")
    found = command(str(corpus.root), "--backend", "replay", "--replay", str(replay))
    assert "line 3: uid: is missing" in str(found.exception)


@pytest.mark.slow
def test_an_interrupt_is_heard_while_a_server_is_silent(
    corpus: CorpusLayout, tmp_path: Path
) -> None:
    told = "endpoint: {timeout_s: 60}\n"
    (tmp_path / "caption.yaml").write_text(told)
    words = ("--backend", "openai", "--model", "m", "--config", str(tmp_path / "caption.yaml"))
    with endpoint(then="hang") as fake:
        code = (
            "import sys; from jobs.cli import main; sys.argv = ['eicorpus', *sys.argv[1:]]; main()"
        )
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                code,
                "caption",
                str(corpus.root),
                *words,
                "--endpoint",
                fake.url,
            ]
        )
        fake.wait_for(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
