"""No command fails on a corpus without an episode: all quarantined, all filtered, or the last one forgotten."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs import cli
from jobs.command_table import COMMANDS, loaded
from tests.faults.toy import write_toy

TOY = "tests.faults.toy:Toy"
EMPTY = {  # why there is no episode -> what the raw episodes do
    "quarantined": {"a": "quarantine", "b": "quarantine"},
    "filtered": {"a": "short"},
    "forgotten": {"a": "good"},
}
WELL, REFUSED = (
    0,
    2,
)  # the exit code on an empty corpus: nothing to do, or the caller is told what to run first
# Command -> its other arguments ({uid}: an episode that is known; {out}: a new path), and the exit code.
CASES: dict[str, tuple[list[str], int]] = {
    "query": (["SELECT * FROM episodes"], WELL),
    "measure": (["--workers", "0"], WELL),
    "caption": ([], WELL),
    "tier": ([], WELL),
    "tier --dry-run": (["--dry-run"], WELL),
    "explain": (["{uid}"], WELL),
    "view": (["{uid}", "--save", "{out}.rrd"], REFUSED),
    "dedup": ([], WELL),
    "dedup --dry-run": (["--dry-run"], WELL),
    "dedup --against val": (["--against", "val"], REFUSED),
    "latents images": (["--encoder", "patch_dct", "--workers", "0"], WELL),
    "latents text": (["--vlm", "nowhere"], REFUSED),
    "latents actions": (["--lam", "nowhere"], REFUSED),
    "list manifests": ([], WELL),
    "manifest build": (["m"], REFUSED),
    "manifest show": (["m"], REFUSED),
    "manifest diff": (["a", "b"], REFUSED),
    "manifest verify": (["m"], REFUSED),
    "report": (["--html", "{out}.html"], WELL),
    "stale": ([], WELL),
    "snapshot list": ([], WELL),
    "snapshot diff": (["1", "1"], WELL),
    "compact": ([], WELL),
    "gc": ([], WELL),
    "forget": (["{uid}", "--dry-run"], WELL),
    "review import": (["{out}.csv"], REFUSED),
    "review export": (["--out", "{out}.csv"], WELL),
    "review sample": (["--measurement", "idle_share"], WELL),
    "review agreement": ([], WELL),
    "export": (["--to", "iceberg", "--warehouse", "{out}"], WELL),
    "verify": ([], WELL),
    "digest": ([], WELL),
}


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for part, inner in command.commands.items():
            yield from leaves(inner, f"{name} {part}")
    else:
        yield name, command


def of_corpus() -> set[str]:
    """Every command whose first argument is a corpus."""
    found = (leaf for name in COMMANDS for leaf in leaves(loaded(name), name))
    return {
        name for name, command in found if command.params and command.params[0].name == "corpus"
    }


def run(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["eicorpus", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each kind, by the commands themselves."""
    from typer.testing import CliRunner

    made = {}
    for why, kinds in EMPTY.items():
        folder = tmp_path_factory.mktemp(why)
        raw, out = write_toy(folder / "raw", kinds), folder / "corpus"
        words = ["ingest", TOY, str(raw), "--out", str(out), "--workers", "0", "--json"]
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code in (0, 1), done.output
        if why == "forgotten":
            words = ["query", str(out), "SELECT uid FROM episodes", "--json"]
            rows = json.loads(CliRunner().invoke(cli.app, words).stdout)["result"]["rows"]
            assert CliRunner().invoke(cli.app, ["forget", str(out), *_uids(rows)]).exit_code == 0
        made[why] = out
    return made


def _uids(rows: list[Any]) -> list[str]:
    return [row["uid"] if isinstance(row, dict) else row[0] for row in rows]


def test_every_command_that_opens_a_corpus_is_tried() -> None:
    assert {name.partition(" --")[0] for name in CASES} == of_corpus()


@pytest.mark.parametrize("why", EMPTY)
@pytest.mark.parametrize("case", CASES)
def test_an_empty_corpus_is_no_bug_of_ours(
    case: str,
    why: str,
    corpora: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = case.partition(" --")[0]
    words, wanted = CASES[case]
    root = Path(shutil.copytree(corpora[why], tmp_path / "corpus"))
    uid = _known_uid(root)
    given = [word.format(uid=uid, out=tmp_path / "out") for word in words]
    code, out, err = run([*name.split(), str(root), *given], capsys, monkeypatch)
    assert "Traceback" not in err, err
    assert code == wanted, (out, err)


def _known_uid(root: Path) -> str:
    from ingest.catalog.catalog import Catalog

    with Catalog.open(root) as catalog:
        known = catalog.sql("SELECT uid FROM verdicts UNION SELECT uid FROM tombstones").to_series()
    return str(known.to_list()[0])


def test_dedup_says_that_there_is_nothing_to_compare(
    corpora: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(["dedup", str(corpora["quarantined"])], capsys, monkeypatch)
    assert code == 0
    assert "nothing to compare: snapshot" in out
