"""`eicorpus verify` and `eicorpus digest`: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from ingest.recipe import Recipe, VideoSettings
from ingest.verify.digest import digest
from ingest.verify.finding import CheckCode
from ingest.verify.peer import Peer
from jobs.commands import verify as job
from jobs.commands.peer import PYTHON_VARIABLE
from schemas.errors import ConfigError, SourceError
from tests.ingest.verify_corpus import (
    build_mixed,
    build_toy,
    data_file,
    dataset,
    edit,
    rewrite_column,
    video_file,
)
from tests.peer.reader import PEER

FAKE = """
import json, sys
from pathlib import Path
for name in sys.argv[1:]:
    print(json.dumps({{"dataset": name, "episodes": 4, "frames": 41, "reader": "fake", **{answer}}}))
{then}
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("command")
    return build_toy(root / "toy", root / "corpus")


@pytest.fixture
def corpus(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "corpus"))


def call(*words: str) -> int:
    """The exit code of a command, as `jobs.cli.main` calls it; our errors are raised."""
    app = typer.Typer()
    app.command("verify")(job.command)
    app.command("digest")(job.digest_command)
    return int(app(words, standalone_mode=False) or 0)


def answer_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Standard output must be one JSON object and nothing else."""
    out: dict[str, Any] = json.loads(capsys.readouterr().out)["result"]
    return out


def test_a_sound_corpus_is_well(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", str(sound)) == 0
    assert "OK: 4 episodes, 41 timesteps, 1 datasets" in capsys.readouterr().out
    assert call("verify", str(sound), "--json") == 0
    answer = answer_of(capsys)
    assert answer["ok"] is True
    assert answer["findings"] == []
    assert answer["peer"] is None
    assert [answer[key] for key in ("datasets", "episodes", "frames")] == [1, 4, 41]


def test_a_damaged_corpus_says_where_what_and_what_to_do(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.stdout, "width", 300)
    rewrite_column(data_file(corpus), "index", lambda v: v + 1)
    edit(dataset(corpus) / "meta/tasks.jsonl", "do e", "do [e]")
    assert call("verify", str(corpus)) == 1
    said = capsys.readouterr().out
    assert "data/chunk-000/episode_000001.parquet" in said
    assert "found index 11 in row 0 (12 of 12 rows differ); expected 10" in said
    assert "do [e]" in said  # brackets are no markup
    assert "meta_differs (1): remove this dataset's meta/eicorpus.json and run" in said
    assert call("verify", str(corpus), "--json") == 1
    answer = answer_of(capsys)
    assert answer["ok"] is False
    assert {f["check"] for f in answer["findings"]} == {
        "data_index",
        "file_changed",
        "meta_differs",
    }
    assert all(f.keys() == {"check", "path", "message", "remedy"} for f in answer["findings"])


def test_an_unreadable_catalog_is_a_finding_too(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    max((corpus / "catalog/_snapshots").iterdir()).write_text('{"snapshot": 4,')
    assert call("verify", str(corpus), "--json") == 1
    [found] = answer_of(capsys)["findings"]
    assert found["check"] == CheckCode.SNAPSHOT


@pytest.mark.parametrize("command", ["verify", "digest"])
def test_no_corpus_is_the_callers_mistake(command: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no corpus\.json") as error:
        call(command, str(tmp_path))
    assert error.value.exit_code == 2


def test_digest_prints_the_hex(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("digest", str(sound)) == 0
    said = capsys.readouterr()
    assert said.out == digest(sound).sha256 + "\n"
    assert call("digest", str(sound), "--json") == 0
    assert answer_of(capsys) == {"digest": digest(sound).sha256, "episodes": 4, "changed": 0}


def test_digest_warns_of_content_that_changed(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video_file(corpus).write_bytes(b"other")
    assert call("digest", str(corpus)) == 0
    assert "1 of 4 episodes changed after their commit" in capsys.readouterr().err
    video_file(corpus).unlink()
    with pytest.raises(SourceError) as error:
        call("digest", str(corpus))
    assert error.value.exit_code == 1


# --- the peer, played by a script -------------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a peer that gives this answer for every dataset, and then does something."""

    def install(answer: dict[str, Any], then: str = "") -> None:
        script = tmp_path / "check.py"
        script.write_text(FAKE.format(answer=answer, then=then))
        peer = Peer(python=Path(sys.executable), script=script)
        monkeypatch.setattr(job, "reference_reader", lambda: peer)

    return install


def test_the_peers_word_is_in_the_answer(
    sound: Path, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake({"ok": True, "problems": []}, then="print('noise', file=sys.stderr); sys.exit(1)")
    assert call("verify", str(sound), "--peer", "--json") == 0
    assert answer_of(capsys)["peer"] == {
        "ok": True,
        "reader": "fake",
        "datasets": 1,
        "episodes": 4,
        "frames": 41,
    }
    assert call("verify", str(sound), "--peer") == 0
    assert "4 episodes read by fake" in capsys.readouterr().out


def test_the_peers_problems_are_findings(
    sound: Path, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake({"ok": False, "problems": ["episode 0: KeyError: 7"]})
    assert call("verify", str(sound), "--peer", "--json") == 1
    answer = answer_of(capsys)
    [found] = answer["findings"]
    assert (found["check"], found["path"]) == ("peer", dataset(sound).relative_to(sound).as_posix())
    assert "KeyError: 7" in found["message"]
    assert answer["peer"]["ok"] is False


@pytest.mark.parametrize(
    "answer", [{"ok": False, "problems": []}, {"ok": "perhaps", "problems": 3}]
)
def test_a_peer_that_is_not_content_without_a_reason_is_a_finding(
    sound: Path, fake: Any, capsys: pytest.CaptureFixture[str], answer: dict[str, Any]
) -> None:
    fake(answer)
    assert call("verify", str(sound), "--peer", "--json") == 1
    assert [f["check"] for f in answer_of(capsys)["findings"]] == ["peer"]


def test_a_peer_that_dies_is_a_finding_with_its_last_words(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "check.py"
    script.write_text("import sys\nsys.exit('no torch here')\n")
    peer = Peer(python=Path(sys.executable), script=script)
    monkeypatch.setattr(job, "reference_reader", lambda: peer)
    assert call("verify", str(sound), "--peer", "--json") == 1
    [found] = answer_of(capsys)["findings"]
    assert "no result, exit status 1: no torch here" in found["message"]


def test_a_dataset_without_info_is_not_given_to_the_peer(
    corpus: Path, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fake({"ok": True, "problems": []})
    (dataset(corpus) / "meta/info.json").unlink()
    assert call("verify", str(corpus), "--peer", "--json") == 1
    assert [f["check"] for f in answer_of(capsys)["findings"]] == ["meta_missing", "peer"]


def test_without_a_peer_the_caller_is_told_how_to_get_one(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="eicorpus peer") as error:
        call("verify", str(sound), "--peer")
    assert error.value.exit_code == 2


class TestWithLeRobot:
    """The true peer, when `eicorpus peer` has been run."""

    pytestmark = PEER

    def test_it_reads_a_corpus_of_two_sources_and_finds_what_we_find(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """That it finds nothing where there is nothing: tests/peer/test_corpus.py, of every source."""
        corpus = build_mixed(tmp_path)
        rewrite_column(data_file(corpus), "timestamp", lambda v: v * 2)
        assert call("verify", str(corpus), "--peer", "--json") == 1
        toy = dataset(corpus).relative_to(corpus).as_posix()
        answer = answer_of(capsys)
        assert (answer["peer"]["reader"], answer["peer"]["datasets"]) == ("lerobot 0.3.3", 2)
        found = {(f["check"], f["path"]) for f in answer["findings"]}
        assert ("peer", toy) in found
        assert ("data_timestamp", f"{toy}/data/chunk-000/episode_000001.parquet") in found


def test_videos_that_browsers_do_not_play_are_a_notice(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are what a recipe without loss makes, and nothing is wrong with them."""
    lossless = Recipe(video=VideoSettings(crf=0))
    corpus = build_toy(tmp_path / "toy", tmp_path / "corpus", recipe=lossless)
    assert call("verify", str(corpus), "--json") == 0
    answer = answer_of(capsys)
    assert answer["ok"]
    assert answer["findings"] == []
    (notice,) = answer["notices"]
    assert notice.startswith(
        "4 videos have the H.264 profile High 4:4:4 Predictive, which Firefox and Safari do not play"
    )
    assert video_file(corpus, episode=0).relative_to(corpus).as_posix() in notice
    assert call("verify", str(corpus)) == 0
    assert f"Note: {notice}" in capsys.readouterr().out
    assert call("verify", str(sound), "--json") == 0
    assert answer_of(capsys)["notices"] == []
