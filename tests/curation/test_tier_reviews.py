"""Reviews decide tiers, captions of manifests and the agreement with a policy; measurements and stored content stay as they are."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ingest.corpus import snapshot
from ingest.corpus.layout import CorpusLayout
from ingest.corpus.reviews import read, submit
from ingest.corpus.writer import writing
from ingest.curation.captions.checks import wilson
from ingest.curation.reviews.agreement import agreement
from ingest.curation.reviews.sample import near_threshold
from ingest.curation.tiers.explain import explain
from ingest.curation.tiers.last_run import is_up_to_date
from ingest.curation.tiers.tier import judge
from ingest.storage.file_system import FileSystem
from ingest.storage.local import LocalStorage
from schemas.errors import ConfigError
from schemas.manifest import load
from schemas.review import Review
from tests.curation.manifest_cases import ask, build, invoke
from tests.curation.tier_corpus import (
    FINE,
    TEXT,
    Given,
    decisions,
    judged,
    policy_of,
    run,
    write_corpus,
)
from tests.generators.corpus import uid_of
from tests.ingest.test_reviews import HOSTILE, review

POLICY = policy_of(TEXT)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four high episodes of 100 timesteps, and one that carries no actions."""
    still = Given(whole=FINE, row={"supervises": ["visual_forecasting"]})
    return write_corpus(tmp_path / "corpus", [*[Given(whole=FINE)] * 4, still])


def publish(corpus: Path, *rows: Review) -> snapshot.Snapshot:
    layout = CorpusLayout(corpus)
    submit(layout, rows)
    with writing(layout, LocalStorage(corpus)):
        pass
    return snapshot.load(corpus)


def override(number: int, index: int, tier: str, **fields: Any) -> Review:
    return review(number, uid_of(index), kind="tier_override", value=tier, **fields)


def tiers(corpus: Path, text: str = TEXT) -> list[list[tuple[int, int, str]]]:
    rows = decisions(judged(corpus, policy_of(text)))
    return [[(row["start"], row["end"], row["tier"]) for row in each] for each in rows]


def test_a_person_overrides_the_rules_of_a_part(corpus: Path) -> None:
    publish(
        corpus,
        override(1, 0, "low", start=30, end=70),
        review(2, uid_of(1), kind="exclude", value="not ours"),
        override(3, 4, "high"),
        review(4, uid_of(2), kind="accept", value=""),
        review(5, uid_of(3)),
    )
    whole = [(0, 100, "high")]
    assert tiers(corpus) == [
        [(0, 30, "high"), (30, 70, "low"), (70, 100, "high")],
        [(0, 100, "excluded")],
        whole,
        whole,
        [(0, 100, "actionless")],
    ]
    rows = decisions(judged(corpus, POLICY))
    assert [(r["code"], r["text"]) for r in rows[0][1]["reasons"]] == [
        ("review", "reviewed by Ada")
    ]
    assert [r["code"] for r in rows[4][0]["reasons"]] == ["review", "supervision_limit"]
    assert [r["code"] for r in rows[0][0]["reasons"]] == ["sound"] * 2


def test_the_newest_that_nothing_supersedes_holds(corpus: Path) -> None:
    one, two = override(1, 0, "low"), override(2, 0, "actionless")
    publish(corpus, two, one)
    assert tiers(corpus)[0] == [(0, 100, "actionless")]
    publish(corpus, review(3, uid_of(0), supersedes=two.review_id))
    assert tiers(corpus)[0] == [(0, 100, "low")]
    publish(corpus, review(4, uid_of(1), supersedes=one.review_id))  # of another episode
    assert tiers(corpus)[0] == [(0, 100, "low")]


def test_a_policy_that_names_a_fact_of_reviews_decides_itself(corpus: Path) -> None:
    publish(corpus, override(1, 0, "low"), review(2, uid_of(1), kind="exclude", value=""))
    rule = """rules:
  - {code: doubted, tier: actionless, text: doubted, when: {fact: review_exclude, is: true}}
"""
    own = tiers(corpus, TEXT.replace("rules:\n", rule))
    assert own[0] == [(0, 100, "high")]
    assert own[1] == [(0, 100, "actionless")]


def test_facts_of_reviews_are_known_without_any_review(corpus: Path) -> None:
    rule = """rules:
  - {code: asked, tier: low, text: asked, when: {any: [{fact: review_accept, is: true}, {fact: review_tier, known: true}]}}
"""
    assert tiers(corpus, TEXT.replace("rules:\n", rule)) == tiers(corpus)


def test_newer_reviews_make_tiers_stale_and_explain_shows_them(corpus: Path) -> None:
    current = run(corpus, POLICY)
    assert is_up_to_date(corpus, current, POLICY)
    layout = CorpusLayout(corpus)
    submit(layout, [override(1, 0, "low")])
    pending = explain(corpus, current, uid_of(0), POLICY)
    assert [(row["value"], row["is_pending"]) for row in pending.reviews] == [("low", True)]
    assert pending.stored == "same"
    current = publish(corpus)
    assert not is_up_to_date(corpus, current, POLICY)
    now = explain(corpus, current, uid_of(0), POLICY)
    assert now.stored == "differs"
    assert [segment["decided_by"] for segment in now.segments] == ["review"]
    assert [row["is_pending"] for row in now.reviews] == [False]
    assert invoke("explain", str(corpus), uid_of(0)).exit_code == 0
    current = run(corpus, POLICY)
    assert is_up_to_date(corpus, current, POLICY)


def test_agreement_is_of_the_policy_without_the_reviews(corpus: Path) -> None:
    current = publish(
        corpus,
        override(1, 0, "low"),
        review(2, uid_of(1), kind="accept", value=""),
        override(3, 2, "high"),
    )
    judged = judge(corpus, current, POLICY)
    by_tier = {each.tier: each for each in agreement(corpus, current, judged)}
    high, low = by_tier["high"], by_tier["low"]
    assert (high.precision.correct, high.precision.total) == (2, 3)
    assert (high.precision.low, high.precision.high) == wilson(2, 3)
    assert (high.recall.correct, high.recall.total, high.recall.value) == (2, 2, 1.0)
    assert (low.precision.total, low.precision.value) == (0, None)
    assert (low.recall.correct, low.recall.total) == (0, 1)
    answer = json.loads(invoke("review", "agreement", str(corpus), "--json").stdout)
    assert answer["ok"]
    assert invoke("review", "agreement", str(corpus)).exit_code == 0


def test_the_nearest_to_a_threshold_are_listed_first(tmp_path: Path) -> None:
    values = [0.9, 0.51, 0.5, 0.1, 0.49, None]
    given = [Given(whole={**FINE, "idle_share": value}) for value in values]
    corpus = write_corpus(tmp_path / "corpus", given)
    current = snapshot.load(corpus)
    nearest = near_threshold(corpus, current, POLICY, "idle_share", 3, 0)
    assert nearest[0].uid == uid_of(2)
    assert {each.uid for each in nearest[1:]} == {uid_of(1), uid_of(4)}
    assert nearest == near_threshold(corpus, current, POLICY, "idle_share", 3, 0)
    with pytest.raises(ConfigError, match="no threshold on values"):
        near_threshold(corpus, current, POLICY, "success_share", 3, 0)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_is_exported_is_imported_unchanged(suffix: str, corpus: Path, tmp_path: Path) -> None:
    rows = [
        review(1, uid_of(0), value=HOSTILE),
        override(2, 1, "low", start=1, end=9, supersedes=str(UUID(int=9))),
    ]
    submit(CorpusLayout(corpus), rows)
    out = str(tmp_path / f"out.{suffix}")
    assert invoke("review", "export", str(corpus), "--out", out).exit_code == 0
    other = write_corpus(tmp_path / "other", [Given(whole=FINE)] * 2)
    for new in (2, 0):
        answer = json.loads(invoke("review", "import", str(other), out, "--json").stdout)
        assert answer["result"] == {"rows": 2, "new": new}
    current = publish(other)
    assert sorted(current.rows(other, Review), key=lambda row: row.at) == rows


def test_a_short_table_is_completed_and_a_wrong_row_is_named(corpus: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"uid,kind,value\n{uid_of(0)},exclude,\n")
    for _ in range(2):
        assert invoke("review", "import", str(corpus), str(path), "--author", "Bo").exit_code == 0
    current = publish(corpus)
    [row] = current.rows(corpus, Review)
    assert (row.author, row.kind, row.start, row.snapshot) == ("Bo", "exclude", None, 1)
    for text, message in (
        (f"uid,kind\n{uid_of(0)},delete\n", "row 1: kind"),
        (f"uid,kind,colour\n{uid_of(0)},exclude,red\n", "column 'colour'"),
        (f"uid,kind,start,end\n{uid_of(0)},exclude,a,3\n", "invalid literal"),
        ("uid,kind\nx,exclude,more\n", "column 'None'"),
    ):
        path.write_text(text)
        refused(corpus, path, message)
    path.write_bytes(b"\xff\xfe")
    refused(corpus, path, "cannot be read")
    refused(corpus, tmp_path / "no.csv", "cannot be read")
    refused(corpus, tmp_path / "no.txt", "expected .csv")


def test_rows_without_an_id_are_as_many_reviews_as_they_say(corpus: Path, tmp_path: Path) -> None:
    path, author = tmp_path / "mine.csv", ("--author", "Bo")

    def new_of(*lines: str) -> int:
        path.write_text("\n".join(lines) + "\n")
        answer = invoke("review", "import", str(corpus), str(path), *author, "--json").stdout
        new: int = json.loads(answer)["result"]["new"]
        return new

    row = f"{uid_of(0)},tier_override,"
    lines = ("uid,kind,value", f"{row}high", f"{row}low", f"{row}high")
    assert [new_of(*lines), new_of(*lines)] == [3, 0]
    assert new_of(*lines[:2]) == 0  # without a time it is the first `high` again
    stored = [each.review for each in read(CorpusLayout(corpus))]
    assert [each.value for each in stored] == ["high", "low", "high"]
    assert [(b.at - a.at).microseconds for a, b in pairwise(stored)] == [1, 1]
    days = [f"2026-01-0{day}T00:00:00+00:00" for day in (3, 2, 1)]
    timed = ("uid,kind,value,at", *(f"{row}high,{day}" for day in (*days, days[0])))
    assert [new_of(*timed), new_of(*timed)] == [3, 0]


def test_an_export_replaces_no_file_and_a_failed_one_leaves_none(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(CorpusLayout(corpus), [review(1, uid_of(0))])
    out = tmp_path / "out.csv"
    words = ("review", "export", str(corpus), "--out", str(out))
    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "_named", full_disk)
        assert "cannot be written" in str(invoke(*words).exception)
    assert list(tmp_path.glob("*out*")) == []
    assert invoke(*words).exit_code == 0
    before = out.read_bytes()
    submit(CorpusLayout(corpus), [review(2, uid_of(0))])
    assert "the file exists" in str(invoke(*words).exception)
    assert out.read_bytes() == before
    with monkeypatch.context() as patched:
        patched.setattr(FileSystem, "rename", full_disk)
        assert "cannot be written" in str(invoke(*words, "--overwrite").exception)
    assert out.read_bytes() == before
    assert invoke(*words, "--overwrite").exit_code == 0
    assert len(out.read_text().splitlines()) == 3
    inside = invoke("review", "export", str(corpus), "--out", str(corpus / "out.csv"))
    assert "inside the corpus" in str(inside.exception)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def refused(corpus: Path, path: Path, message: str) -> None:
    wrong = invoke("review", "import", str(corpus), str(path), "--author", "Bo")
    assert isinstance(wrong.exception, ConfigError)
    assert message in str(wrong.exception)


def test_a_corrected_caption_wins_in_a_manifest(corpus: Path) -> None:
    run(corpus, POLICY)
    assert build(corpus, "before").exit_code == 0
    fix = review(1, uid_of(0), kind="caption_fix", value="pick up the cup")
    older = replace(
        review(2, uid_of(0), kind="caption_fix", value="older"), at=fix.at.replace(year=2020)
    )
    publish(corpus, fix, older)
    run(corpus, POLICY)
    for name, words in (("after", ()), ("source", ("--text", "source"))):
        result = build(corpus, name, *words)
        assert result.exit_code == 0, result.output
    texts = {name: load(corpus / "manifests" / name) for name in ("before", "after", "source")}
    at = texts["after"].rows["uid"].to_pylist().index(uid_of(0))
    first = {name: each.row(at) for name, each in texts.items()}
    assert (first["after"].text, first["after"].caption_id) == ("pick up the cup", fix.review_id)
    assert first["source"].text == first["before"].text != "pick up the cup"
    assert texts["before"].facts.reviews_sha256 == ""
    assert len(texts["after"].facts.reviews_sha256) == 64
    assert ask(corpus, "verify", "after") is not None
