"""One corpus of every registered source: `eicorpus verify --peer` finds nothing, and LeRobot 0.3.3 reads every episode of it.

The sources share catalog, snapshots and numbering as a user's would. The commands run in this process: to start Python for
each source would cost more than the work.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapters.registry import ADAPTERS
from benchmarks.raw import mano_model
from ingest.verify import peer
from jobs.cli import app
from tests import generators
from tests.faults.runs import facts
from tests.peer.reader import PEER

pytestmark = PEER


@dataclass(frozen=True)
class Looked:
    """What the catalog has, what the command said of it, and what LeRobot told the command of each dataset."""

    rows: list[dict[str, Any]]  # of `episodes`
    discovered: Counter[str]  # by source
    answer: dict[str, Any]
    reports: dict[str, dict[str, Any]]  # by the dataset's path in the corpus


def told(*words: str | Path) -> dict[str, Any]:
    """What a command says in JSON."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, (words, result.output, result.exception)
    answer: dict[str, Any] = json.loads(result.stdout)["result"]
    return answer


def ingest(source: str, folder: Path, corpus: Path, mano_dir: Path) -> int:
    """Write the source's synthetic data and add it to the corpus; the number of its episodes, all of which are committed."""
    folder.mkdir(parents=True)
    written = generators.write(source, folder)
    options = [f"--option={key}={value}" for key, value in written.options.items()]
    if written.needs_mano:
        options.append(f"--mano-dir={mano_dir}")
    tally = told("ingest", source, written.root, "--out", corpus, "--workers", "0", *options)
    assert tally["committed"] == tally["discovered"] >= 2, f"{source}: {tally}"
    return int(tally["discovered"])


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Looked:
    root = tmp_path_factory.mktemp("every")
    corpus, mano_dir = root / "corpus", mano_model.write(root / "mano")
    discovered = Counter({s: ingest(s, root / "raw" / s, corpus, mano_dir) for s in ADAPTERS})
    reports: dict[str, dict[str, Any]] = {}
    read = peer._report

    def kept(path: str, line: str) -> Any:
        reports[path] = json.loads(line)  # all of it: the command takes less
        return read(path, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer, "_report", kept)
        answer = told("verify", corpus, "--peer")
    rows = facts(corpus, "episodes")
    return Looked(rows=rows, discovered=discovered, answer=answer, reports=reports)


def test_a_corpus_of_every_source_is_all_well(looked: Looked) -> None:
    assert Counter(row["source"] for row in looked.rows) == looked.discovered
    assert looked.answer["findings"] == []
    assert looked.answer["ok"] is True
    datasets = {row["dataset_path"] for row in looked.rows}
    assert {Path(path).parts[1] for path in datasets} >= looked.discovered.keys()
    assert looked.reports.keys() == datasets
    assert looked.answer["peer"] == {  # every episode of the catalog, so of every source
        "ok": True,
        "reader": "lerobot 0.3.3",
        "datasets": len(datasets),
        "episodes": len(looked.rows),
        "frames": sum(row["length"] for row in looked.rows),
    }


@pytest.mark.parametrize("source", ADAPTERS)
def test_lerobot_reads_every_episode_of(source: str, looked: Looked) -> None:
    lengths: dict[str, list[int]] = {}
    for row in looked.rows:
        if row["source"] == source:
            lengths.setdefault(row["dataset_path"], []).append(row["length"])
    assert lengths
    for path, of_it in lengths.items():
        report = looked.reports[path]
        assert report["problems"] == []
        assert (report["episodes"], report["frames"]) == (len(of_it), sum(of_it))
        assert report["values_compared"] > 0
