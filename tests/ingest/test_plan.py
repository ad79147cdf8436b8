"""The plan: what is asked for, less what is done, with every episode in exactly one pile."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.base import SourceInfo
from adapters.registry import ADAPTERS, adapter_for
from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout, open_corpus
from ingest.corpus.snapshot import Snapshot
from ingest.pipeline.plan import Plan, Request, discover, make_plan, survey
from ingest.recipe import Recipe
from schemas.episode import EpisodeRef
from schemas.errors import Code, ConfigError, SourceError
from tests.faults.runs import TOY, facts, run, tree
from tests.faults.toy import Toy, write_toy

HERE = "tests.ingest.test_plan"


class Doubled(Toy):
    """Names every episode twice."""

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        for ref in super().discover(root, info):
            yield from (ref, ref)


class Newer(Toy):
    version = 2


class Unreadable(Toy):
    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        raise PermissionError(13, "Permission denied", str(root))


class Hostile(Toy):
    """A file of the set as a whole is damaged, as a survey or a discovery finds it."""

    def survey(self, root: Path, options: Mapping[str, str]) -> SourceInfo:
        if "survey" in options:
            raise SourceError(Code.TRUNCATED, "no footer", where="meta/info.json")
        return super().survey(root, {})

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        yield from list(super().discover(root, info))[:1]
        raise SourceError(Code.CORRUPT_RECORD, "no index", where="meta/episodes.jsonl")


class Endless(Toy):
    """Shows that `--limit` stops discovery: it would never end."""

    def discover(self, root: Path, info: SourceInfo) -> Iterator[EpisodeRef]:
        number = 0
        while True:
            yield EpisodeRef(
                source="toy",
                dataset="toy",
                episode_id=f"e{number}",
                root=str(root),
                duration_hint_s=1800.0,
                bytes_hint=10,
                problem=("truncated", "cut") if number % 2 else None,
            )
            number += 1


def request(raw: Path, source: str = TOY, **changes: Any) -> Request:
    return Request(**{"source": source, "root": raw, "options": {}, "recipe": Recipe(), **changes})


def ids(refs: Any) -> list[str]:
    return [ref.episode_id for ref in refs]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "raw", dict.fromkeys(["a/1", "a/2", "b/1", "b/10"], "good"))


def plan_for(asked: Request, out: Path | None = None) -> Plan:
    if out is None:
        return make_plan(asked, None, Snapshot())
    corpus = open_corpus(out)
    return make_plan(asked, corpus, snapshot.load(out))


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, ["a/1", "a/2", "b/1", "b/10"]),
        ({"limit": 2}, ["a/1", "a/2"]),
        ({"select": "b/*"}, ["b/1", "b/10"]),
        ({"select": "*/1"}, ["a/1", "b/1"]),
        ({"select": "?/1*"}, ["a/1", "b/1", "b/10"]),
        ({"select": "b/*", "limit": 1}, ["b/1"]),
        ({"limit": 99}, ["a/1", "a/2", "b/1", "b/10"]),
    ],
)
def test_what_is_asked_for(raw: Path, changes: dict[str, Any], want: list[str]) -> None:
    assert ids(plan_for(request(raw, **changes)).todo) == want


def test_nothing_matches(raw: Path) -> None:
    with pytest.raises(ConfigError, match=r"no episode matches 'B/\*'"):
        plan_for(request(raw, select="B/*"))
    with pytest.raises(ConfigError, match="the raw data contains no episode"):
        plan_for(request(write_toy(raw / "empty", {})))


def test_a_second_episode_of_one_name_is_set_aside(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    tally = run(raw, out, source=f"{HERE}:Doubled")
    assert tally.adds_up
    assert tally.committed == tally.quarantined == tally.codes["bad_annotation"]
    aside = [v["episode_id"] for v in facts(out, "verdicts") if v["state"] == "quarantined"]
    kept = [e["episode_id"] for e in facts(out, "episodes")]
    assert sorted(aside) == sorted(f"{name}#2" for name in kept)


def test_the_callers_mistakes(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        survey(request(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot be read"):
        survey(request(raw, f"{HERE}:Unreadable"))
    with pytest.raises(ConfigError, match="did you mean lerobot"):
        survey(request(raw, "lerobott"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        survey(request(raw, f"{HERE}:Nobody"))
    with pytest.raises(ConfigError, match="cannot be imported"):
        survey(request(raw, "no.such.module:Toy"))


def test_a_damaged_file_of_the_whole_set_stops_the_run_before_any_work(raw: Path) -> None:
    asked = request(raw, f"{HERE}:Hostile")
    with pytest.raises(ConfigError, match=r"\[truncated\] meta/info.json") as caught:
        survey(replace(asked, options={"survey": "no"}))
    assert caught.value.exit_code == 2
    info, _ = survey(asked)
    with pytest.raises(ConfigError, match=r"\[corrupt_record\] meta/episodes.jsonl"):
        discover(asked, info)


def test_every_registered_source_can_be_loaded() -> None:
    for name in ADAPTERS:
        assert adapter_for(name).name == name


def test_a_limit_stops_discovery_and_hints_add_up(raw: Path) -> None:
    asked = request(raw, f"{HERE}:Endless", limit=4)
    info, _ = survey(asked)
    assert ids(discover(asked, info)) == ["e0", "e1", "e2", "e3"]
    plan = plan_for(asked)
    assert (plan.hours, plan.num_bytes, plan.known_broken, plan.discovered) == (2.0, 40, 2, 4)


def test_what_is_done_is_skipped(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    run(raw, out, limit=2, run_id="1")
    plan = plan_for(request(raw), out)
    assert (ids(plan.todo), plan.done, plan.stale) == (["b/1", "b/10"], 2, 0)
    assert plan.discovered == 4
    plan = plan_for(request(raw, limit=2), out)  # the limit counts what is asked for, done or not
    assert (plan.todo, plan.done) == ((), 2)


@pytest.mark.parametrize("changes", [{"recipe": Recipe(gap_ms=100)}, {"source": f"{HERE}:Newer"}])
def test_what_was_made_otherwise_is_stale_and_kept(
    raw: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "corpus"
    run(raw, out, limit=2, run_id="1")
    before = tree(out / "datasets")
    plan = plan_for(request(raw, **changes), out)
    assert (ids(plan.todo), plan.done, plan.stale) == (["b/1", "b/10"], 0, 2)
    if "source" in changes:
        tally = run(raw, out, limit=2, run_id="2", **changes)
        assert (tally.committed, tally.stale, tally.adds_up) == (2, 2, True)
        assert tree(out / "datasets") == before


def test_quarantined_and_filtered_episodes_are_tried_again(tmp_path: Path) -> None:
    raw = write_toy(tmp_path / "raw", {"a": "quarantine", "b": "short", "c": "good"})
    run(raw, tmp_path / "corpus", run_id="1")
    plan = plan_for(request(raw), tmp_path / "corpus")
    assert (ids(plan.todo), plan.done) == (["a", "b"], 1)


def test_poison_is_set_aside_unless_asked(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    run(raw, out, limit=1, run_id="1")
    uid = plan_for(request(raw, select="b/1")).todo[0].uid
    event = {"event": "end", "uid": uid, "state": "quarantined", "code": "worker_died"}
    line = json.dumps(event | {"message": "SIGSEGV"})
    (CorpusLayout(out).ledger / "0.jsonl").write_text(line + "\n")
    plan = plan_for(request(raw), out)
    assert ids(plan.todo) == ["a/2", "b/10"]
    assert [(ref.episode_id, code) for ref, code, _ in plan.poisoned] == [("b/1", "worker_died")]
    assert plan.discovered == len(plan.todo) + plan.done + plan.stale + len(plan.poisoned) == 4
    assert ids(plan_for(request(raw, retry_crash_looping=True), out).todo) == ["a/2", "b/1", "b/10"]


def test_a_set_that_has_moved_is_still_the_same_set(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    run(raw, out, run_id="1")
    moved = tmp_path / "moved"
    raw.rename(moved)
    with pytest.raises(ConfigError, match="--moved"):  # it might as well be another set
        plan_for(request(moved), out)
    plan = plan_for(request(moved, has_moved=True), out)
    assert (plan.todo, plan.done) == ((), 4)
    assert plan.other_roots == (str(raw),)
