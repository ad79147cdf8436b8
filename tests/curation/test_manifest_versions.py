"""A manifest with versions: a name opens the newest, a version stays what it is, and manifests without versions stay readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.corpus.known_files import is_known
from ingest.corpus.layout import open_corpus
from ingest.corpus.manifest_folders import manifest_names, version_of
from ingest.corpus.snapshot_list import manifests_by_snapshot
from ingest.curation.manifests.manifest import ManifestRequest
from jobs.stages.manifest import ManifestResult, run_manifest
from jobs.stages.resources import Resources
from schemas.errors import ConfigError
from schemas.manifest import FACTS_FILE, NEWEST_FILE, is_version, load, newest_version
from schemas.split import Shares
from tests.curation.manifest_cases import ask, build, invoke, policy
from tests.ingest.verify_corpus import build_toy

HERE = Resources(workers=0)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = build_toy(tmp_path / "toy", tmp_path / "corpus", run_id="first")
    assert invoke("tier", str(folder), "--policy", policy(tmp_path)).exit_code == 0
    return folder


def publish(corpus: Path, name: str = "m", **changes: object) -> ManifestResult:
    request = ManifestRequest(name=name, shares=Shares(val=0.0, test=0.0), **changes)  # type: ignore[arg-type]
    return run_manifest(open_corpus(corpus), request, HERE, is_versioned=True)


def test_a_name_opens_the_newest_version_and_a_version_stays(corpus: Path) -> None:
    first = publish(corpus)
    second = publish(corpus, where="episode_id <> 'a'")
    assert first.folder is not None
    assert second.folder is not None
    assert {first.is_new, second.is_new} == {True}
    folder = corpus / "manifests/m"
    assert newest_version(folder) == second.folder
    assert len(load(folder)) == len(load(second.folder)) < len(load(first.folder))
    assert load(folder).corpus == load(first.folder).corpus == corpus
    versions = [f"m/{each.folder.name}" for each in (first, second) if each.folder]
    assert manifest_names(corpus) == sorted(versions)
    assert ask(corpus, "show", "m")["num_rows"] == len(load(folder))
    assert ask(corpus, "show", versions[0])["num_rows"] == len(load(first.folder))
    assert ask(corpus, "diff", versions[0], "m")["num_rows"] > 0
    assert invoke("manifest", "verify", str(corpus), "m").exit_code == 0


def test_the_same_content_is_the_same_version_and_is_not_written_again(corpus: Path) -> None:
    first = publish(corpus)
    assert first.folder is not None
    before = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    publish(corpus, where="episode_id <> 'a'")
    again = publish(corpus)
    assert (again.folder, again.is_new) == (first.folder, False)
    assert newest_version(corpus / "manifests/m") == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_a_version_does_not_depend_on_runs_or_snapshots(corpus: Path, tmp_path: Path) -> None:
    """Nor on which corpus has it: its uid and its run ids are others there."""
    first = publish(corpus)
    other = build_toy(tmp_path / "toy2", tmp_path / "other", run_id="second")
    for _ in range(2):  # more snapshots
        text = policy(tmp_path, "q.yaml", above=99.0)
        assert invoke("tier", str(other), "--policy", text).exit_code == 0
        assert invoke("tier", str(other), "--policy", policy(tmp_path)).exit_code == 0
    second = publish(other)
    assert second.facts.snapshot > first.facts.snapshot
    assert first.folder is not None
    assert second.folder is not None
    assert first.folder.name == second.folder.name


def test_a_setting_that_changes_no_row_is_another_version(corpus: Path) -> None:
    facts = publish(corpus).facts
    split = facts.split.model_copy(update={"keeps_source_splits": False})
    others = [
        version_of(facts, has_statistics=False),
        version_of(facts.model_copy(update={"where": "true"}), has_statistics=True),
        version_of(facts.model_copy(update={"split": split}), has_statistics=True),
    ]
    assert len({version_of(facts, has_statistics=True), *others}) == 4
    renamed = facts.model_copy(update={"name": "n", "snapshot": 99, "corpus_uid": "x"})
    same = version_of(renamed, has_statistics=True)
    assert same == version_of(facts, has_statistics=True)


def test_manifests_with_and_without_versions_do_not_share_a_name(corpus: Path) -> None:
    assert build(corpus, "old").exit_code == 0
    publish(corpus, "new")
    with pytest.raises(ConfigError, match="has no versions"):
        publish(corpus, "old")
    refused = build(corpus, "new").exception
    assert isinstance(refused, ConfigError)
    assert "versions" in str(refused)
    assert len(load(corpus / "manifests/old")) == len(load(corpus / "manifests/new"))
    assert invoke("manifest", "verify", str(corpus), "old").exit_code == 0


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 3}', '{"version": "../old"}', '{"version": "x/../../.."}']
)
def test_a_damaged_pointer_is_refused_and_a_version_still_opens(corpus: Path, text: str) -> None:
    first = publish(corpus)
    assert first.folder is not None
    (corpus / "manifests/m" / NEWEST_FILE).write_text(text)
    with pytest.raises(ConfigError):
        load(corpus / "manifests/m")
    assert len(load(first.folder)) == first.facts.num_rows
    assert publish(corpus).folder == first.folder  # and the next build writes it again
    assert newest_version(corpus / "manifests/m") == first.folder


def test_a_pointer_to_a_version_that_is_gone_is_refused(corpus: Path) -> None:
    publish(corpus)
    (corpus / "manifests/m" / NEWEST_FILE).write_text(json.dumps({"version": "0" * 16}))
    with pytest.raises(ConfigError):
        load(corpus / "manifests/m")


def test_a_changed_version_is_named_and_mended_by_a_build(corpus: Path) -> None:
    folder = publish(corpus).folder
    assert folder is not None
    page = folder / FACTS_FILE
    page.write_text(json.dumps(json.loads(page.read_text()) | {"where": "true"}))
    done = invoke("manifest", "verify", str(corpus), "m", "--json")
    (flaw,) = json.loads(done.stdout)["result"]["flaws"]
    assert flaw["what"] == f"manifests/m/{folder.name}/manifest.json"
    assert "run `eicorpus build`" in flaw["message"]


def test_gc_keeps_the_snapshot_of_every_version(corpus: Path, tmp_path: Path) -> None:
    first = publish(corpus)
    text = policy(tmp_path, "q.yaml", above=99.0)
    assert invoke("tier", str(corpus), "--policy", text).exit_code == 0
    second = publish(corpus)
    held = manifests_by_snapshot(corpus)
    assert set(held) == {first.facts.snapshot, second.facts.snapshot}
    assert invoke("tier", str(corpus), "--policy", policy(tmp_path)).exit_code == 0
    done = invoke("gc", str(corpus), "--keep", "1", "--older-than", "0")
    assert done.exit_code == 0, done.output
    for each in (first, second):
        assert (corpus / f"catalog/_snapshots/{each.facts.snapshot:08d}.json").is_file()
    assert first.folder is not None
    assert len(load(first.folder)) == first.facts.num_rows


def test_forget_takes_rows_out_of_every_version(corpus: Path) -> None:
    first = publish(corpus)
    second = publish(corpus, where="episode_id <> 'a'")
    assert first.folder is not None
    assert second.folder is not None
    uid = load(second.folder).rows["uid"][0].as_py()
    assert invoke("forget", str(corpus), uid).exit_code == 0
    for each in (first, second):
        assert each.folder is not None
        rows = load(each.folder)
        assert uid not in rows.rows["uid"].to_pylist()
        assert rows.num_erased >= 1
    assert invoke("verify", str(corpus)).exit_code == 0


def test_every_file_of_versions_is_known(corpus: Path) -> None:
    publish(corpus)
    below = [path for path in (corpus / "manifests").rglob("*") if path.is_file()]
    names = [path.relative_to(corpus).as_posix() for path in below]
    assert [name for name in names if not is_known(name) and "_cache" not in name] == []
    assert not is_known("manifests/m/0123/manifest.json")
    assert not is_known("manifests/m/0123456789abcdeg/manifest.json")
    assert not is_known("build/x/y.json")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("c/manifests/m/0123456789abcdef", True),
        ("c/manifests/0123456789abcdef", False),
        ("manifests/manifests/0123456789abcdef", False),
        ("c/manifests/m/0123456789abcdeF", False),
    ],
)
def test_what_is_a_version(path: str, is_one: bool) -> None:
    assert is_version(Path("/x") / path) == is_one
