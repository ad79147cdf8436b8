"""`--json`: one object for results and errors of every command, which fits the schema of the page."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs import cli
from jobs.ui.envelope import ERROR_CODES, EXIT_CODES, SCHEMA, Running, failure_of
from schemas import errors
from schemas.errors import Code, ConfigError, PipelineError, SourceError
from tests.faults.toy import write_toy

TOY = "tests.faults.toy:Toy"


def check(answer: dict[str, Any]) -> dict[str, Any]:
    """`answer`, after it was compared with the schema: the few keywords that the schema uses."""
    assert list(answer) == SCHEMA["required"]
    assert answer["version"] == version("eicorpus")
    error, wanted = answer["error"], SCHEMA["properties"]["error"]
    assert answer["ok"] == (error is None)
    if error is not None:
        assert list(error) == wanted["required"]
        assert error["code"] in {*ERROR_CODES, *Code}
        assert error["exit_code"] in wanted["properties"]["exit_code"]["enum"]
        assert all(error[name] is None or error[name] for name in ("where", "remedy"))
    return answer


def run(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, Any], str]:
    monkeypatch.setattr(sys, "argv", ["eicorpus", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), check(json.loads(out)), err


def test_a_result_is_in_the_envelope(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = write_toy(tmp_path / "raw", {"a": "good"}), tmp_path / "corpus"
    words = ["ingest", TOY, str(raw), "--out", str(out), "--workers", "0", "--json"]
    code, answer, _ = run(words, capsys, monkeypatch)
    assert (code, answer["command"], answer["result"]["committed"]) == (0, "ingest", 1)
    code, answer, _ = run(["snapshot", "list", str(out), "--json"], capsys, monkeypatch)
    assert (code, answer["command"], answer["ok"]) == (0, "snapshot list", True)


def test_a_failed_check_has_a_result_and_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = write_toy(tmp_path / "raw", {"a": "good", "b": "quarantine"}), tmp_path / "corpus"
    words = ["ingest", TOY, str(raw), "--out", str(out), "--workers", "0", "--json"]
    code, answer, err = run(words, capsys, monkeypatch)
    assert (code, answer["ok"], answer["result"]["quarantined"]) == (1, False, 1)
    assert answer["error"]["code"] == "check_failed"
    assert f"exit 1: {answer['error']['message']}" in err


@pytest.mark.parametrize(
    ("words", "command", "where", "remedy"),
    [
        (["tier", "{nowhere}"], "tier", "{nowhere}", None),
        (["tier", "{nowhere}", "--what-if"], "tier", None, " tier CORPUS\n   or: "),
        (["manifest", "show", "--json", "m"], "manifest show", None, "EICORPUS_CORPUS"),
        (["snapshot", "lst"], "", None, " snapshot --help"),
        (["no-such-command"], "", None, " --help"),
    ],
)
def test_an_error_of_the_caller_is_in_the_envelope(
    words: list[str],
    command: str,
    where: str | None,
    remedy: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("EICORPUS_CORPUS", raising=False)
    monkeypatch.setattr(Running, "command", "")
    nowhere = str(tmp_path / "nowhere")
    filled = [word.format(nowhere=nowhere) for word in words]
    code, answer, err = run([*filled, "--json"], capsys, monkeypatch)
    error = answer["error"]
    assert (code, answer["command"], answer["result"]) == (2, command, None)
    assert (error["code"], error["exit_code"]) == ("usage", 2)
    assert error["where"] == (where and where.format(nowhere=nowhere))
    assert (remedy or "") in (error["remedy"] or "")
    assert error["remedy"] is None or error["remedy"] == error["remedy"].strip()
    assert error["message"] in err


def test_a_bug_of_ours_is_in_the_envelope(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("here")

    monkeypatch.setattr(cli, "app", broken)
    code, answer, err = run(["verify", "corpus", "--json"], capsys, monkeypatch)
    assert (code, answer["error"]["code"]) == (3, "bug")
    assert "RuntimeError: here" in err


def every_error(kind: type[PipelineError]) -> list[type[PipelineError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in every_error(below))]


def test_every_error_of_ours_has_a_code_and_a_known_exit_code() -> None:
    assert len(every_error(PipelineError)) > 5
    for kind in every_error(PipelineError):
        if kind.__module__.startswith("jobs.service."):
            continue  # an answer over HTTP, with a status of its own: tests/service
        if issubclass(kind, SourceError):
            failure = failure_of(SourceError(Code.TRUNCATED, "m", where="w"))
            assert failure.code == "truncated"
            continue
        failure = failure_of(kind("m", where="w"))
        assert failure.code in ERROR_CODES, kind
        assert failure.exit_code in EXIT_CODES, kind


def test_the_remedy_of_an_error_is_printed_after_its_message() -> None:
    error = ConfigError("no manifest 'm'", where="corpus", remedy="run eicorpus list manifests")
    assert str(error) == "corpus: no manifest 'm'; run eicorpus list manifests"
    assert failure_of(error).remedy == "run eicorpus list manifests"
    assert errors.ConfigError("a").remedy == ""


def test_a_command_prints_one_object_and_nothing_else(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["list", "policies", "--json"])
    assert len(done.stdout.splitlines()) == 1
    assert check(json.loads(done.stdout))["command"] == "list policies"


def test_the_command_has_its_name_under_python_m_too() -> None:
    words = [sys.executable, "-m", "jobs", "latents", "images", "nowhere", "--what-if", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    answer = check(json.loads(done.stdout))
    assert answer["command"] == "latents images"
    assert answer["error"]["message"] == "--what-if is not valid here; use --dry-run"
