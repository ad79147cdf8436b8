"""The tables that a target says it reads are those that its build opens: what is not in them cannot make it stale."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ingest.catalog.catalog import Catalog
from ingest.catalog.views import tables_named
from ingest.corpus import publishing, snapshot, writer
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import submit
from ingest.corpus.snapshot import Snapshot
from ingest.corpus.snapshot import load as load_snapshot
from ingest.curation.captions import prompts
from ingest.storage.local import LocalStorage
from jobs.build import curation, features, outputs
from jobs.build.plan import stages_of
from schemas.catalog import TABLES
from schemas.manifest import load_rows
from tests.ingest.test_reviews import review
from tests.jobs.build_cases import SPEC, build, newest, plan, write_spec

KINDS = {"a": "good", "b": "good", "c": "good", "d": "quarantine"}
MANIFESTS = """\
manifests:
  own: {policy: ei30k, split: {by: copies}}
  tasks: {split: {by: task}}
  train:
"""
# What a stage appends to, and reads to find out what it did before.
WRITES = {
    "tiers": {"tiers", "policies"},
    "duplicates": {"duplicates", "dedups"},
    "captions": {"captions"},
}
# Opened only for copies of an episode, and for policies that ask for measurements.
NOT_HERE = {"duplicates": {"tiers"}}


class Recorder:
    """The tables that are opened while `target` is built, in Python and in SQL."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: dict[str, set[str]] = {}
        self.target = ""
        self._patch = monkeypatch
        self._sql = duckdb.connect()
        self._around(Snapshot, "parts", lambda _, table: {table})
        for name in ("_run_query", "arrow_of_stranger"):
            self._around(Catalog, name, lambda _, text, *rest: self._of(text))
        self._around(Catalog, "table", lambda _, name: tables_named(name))
        self._quiet(Catalog, "__init__")  # views of all tables
        for owner, names in {
            publishing: ("publish", "publish_tables", "newest"),
            snapshot: ("text_of",),
            writer: ("publish_pending", "_at_start", "_recovered"),
            curation: ("tables_sha256",),
            features: ("tables_sha256",),
            outputs: ("tables_sha256",),
        }.items():
            for name in names:
                self._quiet(owner, name)

    def watch(self, stage: Any) -> None:
        build = stage.build

        def watched(context: Any) -> Any:
            self.target = stage.target
            self.opened[self.target] = set()
            try:
                return build(context)
            finally:
                self.target = ""

        object.__setattr__(stage, "build", watched)  # of a frozen dataclass

    def _of(self, text: str) -> set[str]:
        """The tables of a query's syntax tree, and those behind its views."""
        (page,) = self._sql.execute("SELECT json_serialize_sql($1)", [text]).fetchone() or ("{}",)
        names = {each["table_name"] for each in _objects(json.loads(page)) if "table_name" in each}
        return set().union(*map(tables_named, names))

    def _around(self, owner: Any, name: str, tables: Callable[..., Any]) -> None:
        real = getattr(owner, name)

        def recorded(*args: Any, **more: Any) -> Any:
            if self.target:
                self.opened[self.target] |= tables(*args, **more)
            return real(*args, **more)

        self._patch.setattr(owner, name, recorded)

    def _quiet(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def unrecorded(*args: Any, **more: Any) -> Any:
            target, self.target = self.target, ""
            try:
                return real(*args, **more)
            finally:
                self.target = target

        self._patch.setattr(owner, name, unrecorded)


def _objects(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _objects(each)


@pytest.mark.slow
def test_every_target_declares_the_tables_that_its_build_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = "exports:\n  lake: {to: iceberg, warehouse: lake}\n"
    path = write_spec(tmp_path, KINDS, SPEC.replace("manifests:\n  train:\n", MANIFESTS) + export)
    recorder, stages = Recorder(monkeypatch), dict[str, Any]()

    def watched(*words: Any, **options: Any) -> Any:
        stages.update(stages_of(*words, **options))
        for stage in stages.values():
            recorder.watch(stage)
        return stages

    monkeypatch.setattr("jobs.commands.build.stages_of", watched)
    build(path)
    declared = {
        target: set(stage.reads) for target, stage in stages.items() if hasattr(stage, "reads")
    }
    opened = {target: recorder.opened[target] for target in declared}
    kinds: dict[str, set[str]] = {}  # by all targets of a section
    for target in opened:
        section, tables = target.partition(".")[0], opened[target] - WRITES.get(target, set())
        assert tables <= declared[target], f"{target} opens {tables - declared[target]}"
        kinds.setdefault(section, set()).update(tables)
    for target, tables in declared.items():  # nor are there tables that nothing opens
        assert tables - kinds[target.partition(".")[0]] == NOT_HERE.get(target, set()), target


PLAIN = """\
captions: {backend: replay, replay_file: answers.jsonl}
manifests:
  train: {policy: policy.yaml}
  refused: {policy: policy.yaml, where: (SELECT count(*) FROM Quarantine) > 0}
verify: {}
"""


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec without tiers, one of whose manifests reads what only its `where` names."""
    folder = tmp_path_factory.mktemp("where")
    (folder / "answers.jsonl").write_text("")
    path = write_spec(folder, KINDS, f"{SPEC.partition('measures: {}')[0]}{PLAIN}")
    build(path)
    return path


@pytest.fixture
def built(once: Path, tmp_path: Path) -> Path:
    shutil.copytree(once.parent, tmp_path / "copy")
    return tmp_path / "copy/corpus.yaml"


def stale(spec: Path) -> dict[str, str]:
    """Target -> why it is not up to date."""
    return {
        target: line["why"] for target, line in plan(spec).items() if line["state"] != "up to date"
    }


def test_a_corrected_text_is_in_the_next_manifest_of_a_spec_without_tiers(built: Path) -> None:
    corpus = built.parent / "corpus"
    uid = load_snapshot(corpus).read(corpus, "episodes", ["uid"])["uid"][0].as_py()
    submit(CorpusLayout(corpus), [review(1, uid, kind="caption_fix", value="Lift the cup.")])
    reviews = "new reviews"
    assert stale(built) == {
        "manifests.train": reviews,
        "manifests.refused": reviews,
        "verify": reviews,
    }
    assert "manifests.train" in build(built)["built"]
    rows = load_rows(corpus / "manifests/train" / newest(built))
    assert "Lift the cup." in rows["text"].to_pylist()
    assert build(built)["built"] == []


def test_a_table_that_only_a_where_names_makes_its_manifest_stale(built: Path) -> None:
    corpus = CorpusLayout(built.parent / "corpus")
    current, disk = load_snapshot(corpus.root), LocalStorage(corpus.root)
    (row,) = current.read(corpus.root, "verdicts").to_pylist()[:1]
    again = pa.Table.from_pylist([row | {"snapshot": current.number + 1}], TABLES["verdicts"])
    part = snapshot.write_tables(disk, corpus.root, "verdicts", [again])
    publishing.publish(disk, corpus.root, current, {"verdicts": part}, "test")
    assert set(stale(built)) == {"manifests.refused", "verify"}


def test_tables_are_recognised_behind_views_and_however_they_are_written() -> None:
    assert tables_named("uid IN (SELECT uid FROM REDUNDANT)") == {"duplicates", "episodes"}
    assert tables_named('uid IN (SELECT uid FROM "tiers_all")') == {"tiers"}
    assert tables_named("EXISTS (FROM quarantine)") == {"verdicts"}
    assert tables_named("episode = 'x' AND tier <> 'low'") == frozenset()


def test_another_replay_file_or_prompt_makes_captions_stale(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (built.parent / "answers.jsonl").write_text("\n")
    assert stale(built)["captions"] == "changed model or replay file"
    assert "captions" in build(built)["built"]
    monkeypatch.setattr(prompts, "VERSION", "99")
    assert stale(built)["captions"] == "new version of the prompts"


def test_verify_looks_at_new_versions_of_manifests(built: Path) -> None:
    built.write_text(built.read_text().replace("train: {", "train: {text: source, "))
    assert "verify" in build(built)["built"]
    version = built.parent / "corpus/manifests/train" / newest(built)
    shutil.copytree(version, version.parent / "0123456789abcdef")
    assert stale(built) == {"verify": "other manifests"}


def test_what_the_old_limits_refused_is_tried_again_with_other_limits(built: Path) -> None:
    text = built.read_text()
    built.write_text(text.replace("_ratio: 0.5", "_ratio: 0.6"))  # a share refuses no episode
    assert stale(built) == {}
    built.write_text(text.replace("limits: {", "limits: {time_limit_s: 3600, "))
    assert stale(built)["sources.toy"] == "changed limits of an episode"
