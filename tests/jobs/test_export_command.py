"""`eicorpus export CORPUS --manifest NAME --to FORMAT --out DIR` and `eicorpus verify DIR --as FORMAT`, as a user runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest.corpus.layout import CorpusLayout, writer_lock
from ingest.corpus.manifest_folders import page_bytes, rows_bytes
from ingest.corpus.snapshot import load
from ingest.export.datasets.groot import Groot
from ingest.export.datasets.lerobot_shared_files import LeRobotV3
from ingest.export.datasets.run import run_export
from jobs.stages import export_datasets
from schemas.manifest import FACTS_FILE, FOLDER, ROWS_FILE
from tests.ingest.export_cases import manifest_of, numbered_corpus, plan_of
from tests.jobs.build_cases import invoke, refused

LICENCES = ["permissive", "unknown", "permissive"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = numbered_corpus(tmp_path_factory.mktemp("numbered"))
    for name, licences in (("chosen", "permissive"), ("mixed", LICENCES)):
        segments = [("a", 0, 37), ("b", 3, 20), ("c", 0, 12)]
        chosen = manifest_of(corpus, segments, licence_class=licences)
        facts = chosen.facts.model_copy(update={"name": name})
        folder = corpus / FOLDER / name
        folder.mkdir(parents=True)
        (folder / ROWS_FILE).write_bytes(rows_bytes(chosen.rows))
        (folder / FACTS_FILE).write_bytes(page_bytes(facts))
    return corpus


def words(corpus: Path, out: Path, name: str = "chosen") -> list[str]:
    return ["export", str(corpus), "--manifest", name, "--to", "lerobot-v3", "--out", str(out)]


def test_an_export_is_planned_written_found_and_verified(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = invoke(*words(corpus, out), "--dry-run")
    assert planned.exit_code == 0
    assert "3 segments, about " in planned.stdout
    assert "dry run: nothing was written" in planned.stdout
    assert not out.exists()
    written = json.loads(invoke(*words(corpus, out), "--workers", "0", "--json").stdout)["result"]
    assert (written["segments"], written["units_written"]) == (3, 1)
    again = invoke(*words(corpus, out), "--workers", "0")
    assert f"unchanged: {written['export']['sha256']}" in again.stdout
    assert invoke("verify", str(out), "--as", "lerobot-v3").exit_code == 0
    next(out.glob("*/data/*/*.parquet")).write_bytes(b"")
    damaged = invoke("verify", str(out), "--as", "lerobot-v3", "--json")
    assert damaged.exit_code == 1
    assert json.loads(damaged.stdout)["result"]["findings"][0].endswith("parquet: changed")


def test_a_small_export_of_packets_starts_no_workers(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker takes longer to start than the packets to copy; what decodes, and what is large, still has workers."""
    chosen = manifest_of(corpus, [("a", 0, 37), ("b", 0, 24)])
    packets, decoded = plan_of(corpus, chosen, LeRobotV3()), plan_of(corpus, chosen, Groot())
    assert export_datasets._usual_workers(packets) == 0
    assert export_datasets._usual_workers(decoded) is None
    for limit in ("SMALL_SEGMENTS", "SMALL_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(export_datasets, limit, 1)
            assert export_datasets._usual_workers(packets) is None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--to", "lerobot-v3"], "--to lerobot-v3 needs --manifest NAME and --out DIR"),
        (["--to", "iceberg", "--out", "x"], "--out does not go with --to iceberg"),
        (["--to", "lerobot-v3", "--warehouse", "x"], "--warehouse does not go with"),
        (["--to", "groot", "--size", "64x64"], "--size does not go with --to groot"),
        (["--to", "openpi", "--low-tier", "forecasting"], "--low-tier does not go with"),
        (["--to", "lda", "--low-tier", "all", "--manifest", "chosen", "--out", "x"], "--low-tier"),
        (
            ["--to", "lingbot-va", "--manifest", "chosen", "--out", "x"],
            "pass --weights DIR with Wan-AI",
        ),
        (
            ["--to", "lingbot-va", "--size", "64", "--manifest", "chosen", "--out", "x"],
            "expected HxW",
        ),
        (["--to", "iceberg", "--dry-run"], "--dry-run does not go with --to iceberg"),
        (["--to", "lerobot-v3", "--manifest", "no", "--out", "x"], "no manifest.json"),
    ],
)
def test_options_that_do_not_fit_are_refused(more: list[str], told: str, corpus: Path) -> None:
    assert told in refused("export", str(corpus), *more)


def test_an_export_into_the_corpus_is_refused(corpus: Path) -> None:
    assert "inside the corpus" in refused(*words(corpus, corpus / "out"))


def test_a_licence_is_refused_with_what_allows_it(corpus: Path, tmp_path: Path) -> None:
    message = refused(*words(corpus, tmp_path / "out", "mixed"))
    assert "1 segments are unknown" in message
    assert "--allow-licence unknown" in message
    assert not (tmp_path / "out").exists()
    done = invoke(
        *words(corpus, tmp_path / "out", "mixed"), "--allow-licence", "unknown", "--workers", "0"
    )
    assert done.exit_code == 0


def test_what_is_no_export_is_said(corpus: Path, tmp_path: Path) -> None:
    assert "no finished export" in refused("verify", str(tmp_path), "--as", "lerobot-v3")


def exports_of(corpus: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load(corpus).read(corpus, "exports").to_pylist()
    return rows


def test_an_erasure_names_the_exports_that_hold_the_episode(corpus: Path, tmp_path: Path) -> None:
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    before = len(exports_of(own))
    for _ in range(2):  # recorded once
        assert invoke(*words(own, tmp_path / "all"), "--workers", "0").exit_code == 0
    begun, row = exports_of(own)[before:]
    assert (begun["sha256"], begun["uids"]) == ("", row["uids"])
    assert (row["location"], row["num_segments"]) == (str(tmp_path / "all"), 3)
    uid = next(iter(row["uids"]))
    looked = json.loads(invoke("forget", str(own), uid, "--dry-run", "--json").stdout)["result"]
    assert str(tmp_path / "all") in looked["exports"]
    done = invoke("forget", str(own), uid)
    assert f"the export {tmp_path / 'all'} holds them" in done.stdout
    # Erased episodes stay named: the folder is there until someone removes it.
    again = json.loads(invoke("forget", str(own), uid, "--dry-run", "--json").stdout)["result"]
    assert str(tmp_path / "all") in again["exports"]
    assert "another export" in refused(*words(own, tmp_path / "all"), "--workers", "0")


def test_an_export_that_cannot_be_recorded_does_not_begin(corpus: Path, tmp_path: Path) -> None:
    """Otherwise an erasure would not know of what a stopped one has copied, and a corpus nobody may write to would say so at the end."""
    out, before = tmp_path / "out", len(exports_of(corpus))
    with writer_lock(CorpusLayout(corpus)):
        assert "is writing to this corpus" in refused(*words(corpus, out), "--workers", "0")
    assert not out.exists()
    assert len(exports_of(corpus)) == before
    assert invoke(*words(corpus, out), "--workers", "0").exit_code == 0
    assert len(exports_of(corpus)) == before + 2


def _stop(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_an_erasure_names_an_export_that_was_stopped(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, out = tmp_path / "corpus", tmp_path / "out"
    shutil.copytree(corpus, own)
    before = len(exports_of(own))
    with monkeypatch.context() as patched:
        patched.setattr("jobs.stages.export_datasets.run_export", _stop)
        assert invoke(*words(own, out), "--workers", "0").exit_code != 0
    (row,) = exports_of(own)[before:]
    assert (row["location"], row["sha256"]) == (str(out), "")
    done = json.loads(invoke("forget", str(own), row["uids"][0], "--dry-run", "--json").stdout)
    assert str(out) in done["result"]["exports"]


def test_an_episode_that_is_erased_while_it_is_exported_is_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, out = tmp_path / "corpus", tmp_path / "out"
    shutil.copytree(corpus, own)

    def run_and_forget(*arguments: Any) -> Any:
        done = run_export(*arguments)
        uid = next(iter(exports_of(own)[-1]["uids"]))
        assert str(out) in invoke("forget", str(own), uid).stdout
        return done

    monkeypatch.setattr("jobs.stages.export_datasets.run_export", run_and_forget)
    assert "1 episodes were erased while" in refused(*words(own, out), "--workers", "0")


def test_a_dry_run_refuses_the_folder_too(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out, told in ((tmp_path, "not empty"), (tmp_path / "file" / "out", "is a file")):
        for more in ([], ["--dry-run"]):
            assert told in refused(*words(corpus, out), *more)
