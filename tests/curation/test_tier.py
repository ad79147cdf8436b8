"""From measurements to tiers, by hand: which segments, which tier, which tasks, which reasons; and what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ingest.catalog.catalog import Catalog
from ingest.corpus import snapshot
from ingest.corpus.layout import open_corpus
from ingest.curation.tiers import frame as frame_module
from ingest.curation.tiers.count import Count, cap_counts, judged_counts, rule_counts, stored_counts
from ingest.curation.tiers.explain import explain, policy_in_force
from ingest.curation.tiers.last_run import is_up_to_date
from ingest.curation.tiers.policy import QualityPolicy, load_policy
from ingest.curation.tiers.policy_sql import required
from ingest.curation.tiers.tier import commit, judge
from ingest.storage.local import LocalStorage
from jobs.cli import app
from jobs.demo.raw import oxe
from schemas.errors import ConfigError
from tests.curation.tier_corpus import (
    ALL_TASKS,
    FINE,
    TEXT,
    Given,
    decisions,
    judged,
    measurement,
    policy_of,
    run,
    write_corpus,
)
from tests.faults.runs import run as run_ingest
from tests.faults.runs import tree
from tests.generators.corpus import commit as append
from tests.generators.corpus import uid_of, verdict


@pytest.fixture
def policy() -> QualityPolicy:
    return policy_of(TEXT)


def tiers_of(root: Path, policy: QualityPolicy) -> list[list[tuple[int, int, str]]]:
    found = decisions(judged(root, policy))
    return [[(s["start"], s["end"], s["tier"]) for s in segments] for segments in found]


def only(root: Path, policy: QualityPolicy) -> dict[str, Any]:
    ((segment,),) = decisions(judged(root, policy))
    return segment


def test_an_expert_with_a_failed_try_in_the_middle_is_high_low_high(
    tmp_path: Path, policy: QualityPolicy
) -> None:
    expert = Given(whole=FINE, stretches={"regrasp": [(40, 62, 2.2)], "pause_s": []})
    root = write_corpus(tmp_path / "c", [expert])
    assert tiers_of(root, policy) == [[(0, 40, "high"), (40, 62, "low"), (62, 100, "high")]]
    (segments,) = decisions(judged(root, policy))
    assert segments[1]["reasons"] == [
        {
            "code": "retry",
            "text": "a second try: share of regrasp at_least 0.5",
            "value": 1.0,
            "threshold": 0.5,
        }
    ]
    assert segments[1]["tasks"] == list(ALL_TASKS[1:])
    assert segments[0]["tasks"] == list(ALL_TASKS)


def test_a_short_failed_try_is_set_apart_not_diluted(tmp_path: Path, policy: QualityPolicy) -> None:
    """1.2 s in a policy of at least 2 s: widened to [46, 66), of which it is 60 %."""
    expert = Given(whole=FINE, stretches={"regrasp": [(50, 62, 1.2)]})
    root = write_corpus(tmp_path / "c", [expert])
    assert tiers_of(root, policy) == [[(0, 46, "high"), (46, 66, "low"), (66, 100, "high")]]


def test_an_interval_below_the_bounds_of_its_edge_does_not_cut(
    tmp_path: Path, policy: QualityPolicy
) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole=FINE, stretches={"pause_s": [(40, 54, 1.4)]})])
    assert tiers_of(root, policy) == [[(0, 100, "high")]]


def test_what_is_not_observed_is_cut_out_and_short_gaps_are_not(
    tmp_path: Path, policy: QualityPolicy
) -> None:
    given = [
        Given(whole=FINE, valid=[(0, 30), (60, 100)]),
        Given(whole=FINE, valid=[(0, 30), (40, 100)]),  # 1 s, shorter than a segment
        Given(whole=FINE, valid=[]),
    ]
    root = write_corpus(tmp_path / "c", given)
    assert tiers_of(root, policy) == [
        [(0, 30, "high"), (30, 60, "actionless"), (60, 100, "high")],
        [(0, 100, "high")],
        [(0, 100, "actionless")],
    ]


def test_annotated_subtasks_cut(tmp_path: Path, policy: QualityPolicy) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole=FINE, subtasks=[(0, 35), (35, 90)])])
    assert tiers_of(root, policy) == [[(0, 35, "high"), (35, 100, "high")]]


def test_a_threshold_itself_is_not_above_itself(tmp_path: Path, policy: QualityPolicy) -> None:
    given = [Given(whole=FINE | {"idle_share": v}) for v in (0.5, 0.5000001)]
    root = write_corpus(tmp_path / "c", given)
    assert tiers_of(root, policy) == [[(0, 100, "high")], [(0, 100, "low")]]


def test_what_was_never_measured_is_not_high(tmp_path: Path, policy: QualityPolicy) -> None:
    given = [Given(), Given(whole={"idle_share": None}), Given(whole={"idle_share": 0.1})]
    root = write_corpus(tmp_path / "c", given)
    assert tiers_of(root, policy) == [[(0, 100, "low")], [(0, 100, "low")], [(0, 100, "high")]]
    found = decisions(judged(root, policy))
    assert [r["code"] for r in found[0][0]["reasons"]] == ["rest"]


def test_the_first_rule_that_holds_decides(tmp_path: Path, policy: QualityPolicy) -> None:
    bad = {"idle_share": 0.9, "unusable_share.best": 0.9}
    root = write_corpus(tmp_path / "c", [Given(whole=bad)])
    segment = only(root, policy)
    assert (segment["tier"], segment["tasks"]) == ("excluded", [])
    assert [r["code"] for r in segment["reasons"]] == ["blind"]


def test_every_rule_of_the_tier_is_a_reason_and_of_an_any_only_what_holds(
    tmp_path: Path, policy: QualityPolicy
) -> None:
    stretches = {"regrasp": [(0, 100, 3.0)], "pause_s": [(0, 100, 1.0)]}  # long, yet max is 1 only
    root = write_corpus(tmp_path / "c", [Given(whole={"idle_share": 0.8}, stretches=stretches)])
    reasons = only(root, policy)["reasons"]
    assert [(r["code"], r["value"]) for r in reasons] == [("retry", 1.0), ("dull", 0.8)]
    stretches = {"pause_s": [(30, 70, 4.0)]}
    root = write_corpus(tmp_path / "d", [Given(whole=FINE, stretches=stretches)])
    reasons = decisions(judged(root, policy))[0][1]["reasons"]
    assert [(r["value"], r["threshold"]) for r in reasons] == [(4.0, 1.0), (4.0, 2.0)]


@pytest.mark.parametrize(
    ("supervises", "tier", "tasks"),
    [
        (list(ALL_TASKS), "high", list(ALL_TASKS)),
        (list(ALL_TASKS[1:]), "low", list(ALL_TASKS[1:])),
        (["visual_forecasting", "inverse_dynamics"], "low", list(ALL_TASKS[2:])),
        (["visual_forecasting"], "actionless", ["visual_forecasting"]),
        (["juggling"], "excluded", []),
        ([], "excluded", []),
    ],
)
def test_nothing_makes_an_episode_teach_more_than_its_facts_carry(
    tmp_path: Path, policy: QualityPolicy, supervises: list[str], tier: str, tasks: list[str]
) -> None:
    root = write_corpus(tmp_path / "c", [Given(whole=FINE, row={"supervises": supervises})])
    segment = only(root, policy)
    assert (segment["tier"], segment["tasks"]) == (tier, tasks)
    expected = "sound" if tier == "high" else "supervision_limit"
    assert {r["code"] for r in segment["reasons"]} == {expected}


def test_a_rule_may_say_worse_than_the_facts(tmp_path: Path, policy: QualityPolicy) -> None:
    """Low by its facts, excluded by a rule: the rule is the reason."""
    bad = Given(whole={"unusable_share.best": 1.0}, row={"supervises": list(ALL_TASKS[1:])})
    segment = only(write_corpus(tmp_path / "c", [bad]), policy)
    assert (segment["tier"], segment["reasons"][0]["code"]) == ("excluded", "blind")


def test_facts_are_compared(tmp_path: Path) -> None:
    text = f"{TEXT.split('rules:')[0]}rules:\n" + "".join(
        f"  - {{code: {code}, tier: low, text: t, when: {when}}}\n"
        for code, when in {
            "failed": "{fact: success, is: false}",
            "guess": "{fact: success, known: false}",
            "brand": "{fact: source, in: [it's, other]}",
            "body": "{not: {fact: embodiment, is: franka_panda}}",
            "short": "{fact: duration_s, at_least: 3, below: 5, origin: ours}",
            "little": "{fact: segment_s, below: 7, origin: ours}",
            "poor": "{fact: action_coverage, at_most: 0.5, origin: ours}",
            "plain": "{not: {fact: supervises, has: policy}}",
            "moves": "{fact: camera_motion_removed, is: false}",
        }.items()
    )
    text += "otherwise: {code: rest, tier: high, text: t}\n"
    sound = {"success": True, "source": "a", "embodiment": "franka_panda"}
    changes: dict[str, dict[str, Any]] = {
        "failed": {"success": False},
        "guess": {"success": None},
        "brand": {"source": "it's"},
        "body": {"embodiment": "ur5"},
        "poor": {"action_coverage": 0.5},
        "plain": {"supervises": ["visual_forecasting"]},
        "moves": {"camera_motion_removed": False},
        "rest": {},
    }
    given = [Given(row=sound | change) for change in changes.values()]
    given += [Given(length=30, row=sound), Given(length=60, row=sound), Given(length=50, row=sound)]
    found = judged(write_corpus(tmp_path / "c", given), policy_of(text))
    rule, _ = found.decided
    codes = [*(r.code for r in found.policy.rules), "rest"]
    expected = [*changes, "short", "little", "little"]
    assert [codes[i] for i in rule] == expected


def test_a_short_recording_among_others_of_its_task(tmp_path: Path) -> None:
    text = f"{TEXT.split('rules:')[0]}rules:\n" + (
        "  - {code: cut_off, tier: low, text: t, when: {fact: length_fence, below: -1.5, origin: o}}\n"
        "otherwise: {code: rest, tier: high, text: t}\n"
    )
    row = {"tasks": ["fold the towel"], "task_counts": [1], "embodiment": "ur5"}
    lengths = [100, 104, 98, 102, 96, 101, 40]
    given = [Given(length=n, row=row) for n in lengths]
    # of no task: nothing to compare with
    given += [Given(length=n, row=row | {"tasks": [""]}) for n in lengths]
    root = write_corpus(tmp_path / "c", given)
    found = [s[0][2] for s in tiers_of(root, policy_of(text))]
    assert found == ["high"] * 6 + ["low"] + ["high"] * 7


# --- stored -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    given = [
        Given(whole=FINE, stretches={"regrasp": [(40, 62, 2.2)]}, row={"source": "egodex"}),
        Given(length=360, whole=FINE, row={"source": "oxe"}),
        Given(whole={"idle_share": 0.9}, row={"source": "oxe"}),
    ]
    return write_corpus(tmp_path / "corpus", given)


def test_counts_by_source_and_tier(corpus: Path, policy: QualityPolicy) -> None:
    found = judge(corpus, snapshot.load(corpus), policy)
    expected = {
        ("egodex", "high"): Count(episodes=1, segments=2, hours=78 / 36000),
        ("egodex", "low"): Count(episodes=1, segments=1, hours=22 / 36000),
        ("oxe", "high"): Count(episodes=1, segments=1, hours=0.01),
        ("oxe", "low"): Count(episodes=1, segments=1, hours=100 / 36000),
    }
    counted = judged_counts(found)
    assert counted.keys() == expected.keys()
    for key, count in expected.items():
        assert (counted[key].episodes, counted[key].segments) == (count.episodes, count.segments)
        assert counted[key].hours == pytest.approx(count.hours)
    assert [(r.code, r.segments) for r in rule_counts(found)] == [
        ("blind", 0),
        ("lost", 0),
        ("retry", 1),
        ("dull", 1),
        ("sound", 3),
        ("rest", 0),
    ]
    run(corpus, policy)
    with Catalog.open(corpus) as catalog:
        stored = stored_counts(catalog)
    assert {k: (c.episodes, c.segments, round(c.hours, 9)) for k, c in stored.items()} == {
        k: (c.episodes, c.segments, round(c.hours, 9)) for k, c in counted.items()
    }


def test_before_any_run_everything_is_in_no_tier(corpus: Path) -> None:
    with Catalog.open(corpus) as catalog:
        counted = stored_counts(catalog)
    assert counted["oxe", "none"] == Count(episodes=2, segments=0, hours=pytest.approx(460 / 36000))


def test_the_latest_run_is_what_holds_and_none_is_lost(corpus: Path, policy: QualityPolicy) -> None:
    before = snapshot.load(corpus).read(corpus, "episodes")
    first = run(corpus, policy)
    stricter = policy_of(TEXT.replace("at_most: 0.5", "at_most: 0.05"))
    second = run(corpus, stricter)
    with Catalog.open(corpus) as catalog:
        rows = catalog.sql("SELECT * FROM tiers ORDER BY uid, segment_index").to_dicts()
        assert catalog.sql("SELECT count(*) FROM tiers_all").item() == 10
        assert catalog.sql(
            "SELECT policy_digest FROM policies ORDER BY snapshot"
        ).to_series().to_list() == [
            policy.digest,
            stricter.digest,
        ]
    assert {row["snapshot"] for row in rows} == {second.number} == {first.number + 1}
    assert {row["policy_digest"] for row in rows} == {stricter.digest}
    mine = [row for row in rows if row["uid"] == uid_of(0)]
    assert [(r["segment_index"], r["start"], r["end"]) for r in mine] == [
        (0, 0, 40),
        (1, 40, 62),
        (2, 62, 100),
    ]
    assert [r["segment_index"] for r in rows if r["uid"] == uid_of(2)] == [0]
    assert {row["tier"] for row in rows} == {"low"}
    assert snapshot.load(corpus).read(corpus, "episodes").equals(before)


def test_a_run_is_renewed_when_numbers_or_the_policy_change(
    corpus: Path, policy: QualityPolicy
) -> None:
    def fresh() -> bool:
        return is_up_to_date(corpus, snapshot.load(corpus), policy)

    assert not fresh()
    run(corpus, policy)
    assert fresh()
    assert not is_up_to_date(corpus, snapshot.load(corpus), load_policy("ei30k")[0])
    append(corpus, {"measurements": [measurement(uid_of(1), "idle_share", 0.9, None, None, 2)]})
    assert not fresh()
    assert tiers_of(corpus, policy)[1] == [(0, 360, "low")]


def test_the_same_run_writes_the_same_rows(
    corpus: Path, policy: QualityPolicy, tmp_path: Path
) -> None:
    current = snapshot.load(corpus)
    parts = []
    for threads in (1, 2):
        found = judge(corpus, current, policy, threads=threads)
        part = commit(
            open_corpus(corpus), current, found, TEXT, run_id="run", disk=LocalStorage()
        ).parts("tiers")[-1]
        parts.append(pq.read_table(corpus / part.path))
        (corpus / snapshot.FOLDER / f"{current.number + 1:08d}.json").unlink()
    assert parts[0].equals(parts[1])


def test_the_columns_are_the_same_however_many_episodes_are_made_at_a_time(
    corpus: Path, policy: QualityPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And DuckDB returns what it decides of them in their order, under the numbers of all episodes."""
    found = judge(corpus, snapshot.load(corpus), policy, threads=2)
    whole, decided = found.frame.to_table(), found.decided
    assert len(found.episodes) > 2
    for size in (1, 2):
        monkeypatch.setattr(frame_module, "BLOCK_EPISODES", size)
        again = judge(corpus, snapshot.load(corpus), policy, threads=2)
        assert len(list(again.frame.batches())) == -(-len(again.episodes) // size)
        assert again.frame.to_table().to_pydict() == whole.to_pydict()
        for one, other in zip(again.decided, decided, strict=True):
            assert one.tolist() == other.tolist()


# --- explain ------------------------------------------------------------------------------------------------------------


def test_explain_says_rule_numbers_thresholds_and_facts(
    corpus: Path, policy: QualityPolicy
) -> None:
    run(corpus, policy)
    current = snapshot.load(corpus)
    found = explain(corpus, current, uid_of(0), policy_in_force(corpus, current, "ei30k"))
    assert (found.state, found.stored, found.policy) == ("committed", "same", "mine v3")
    assert [s["decided_by"] for s in found.segments] == ["sound", "retry", "sound"]
    middle = found.segments[1]
    assert (middle["start_s"], middle["end_s"], middle["at_best"]) == (4.0, 6.2, "high")
    assert {r["code"]: r["holds"] for r in middle["rules"]} == {
        "blind": False,
        "lost": False,
        "retry": True,
        "dull": None,  # pauses were never measured
        "sound": True,
    }
    assert {m["name"]: m["value"] for m in found.measurements}["idle_share"] == 0.1
    assert found.facts["source"] == "egodex"
    append(corpus, {"measurements": [measurement(uid_of(0), "idle_share", 0.9, None, None, 2)]})
    assert explain(corpus, snapshot.load(corpus), uid_of(0), policy).stored == "differs"


def test_explain_of_what_was_never_committed(corpus: Path, policy: QualityPolicy) -> None:
    append(corpus, {"verdicts": [verdict(9, "quarantined", 2)]})
    found = explain(corpus, snapshot.load(corpus), uid_of(9), policy)
    assert (found.state, found.code) == ("quarantined", "corrupt_video")
    assert "is cut" in found.message
    assert found.facts == {}
    assert found.segments == ()
    with pytest.raises(ConfigError, match="no episode has the uid"):
        explain(corpus, snapshot.load(corpus), "nobody", policy)


# --- the commands -------------------------------------------------------------------------------------------------------


def invoke(*words: str) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def test_what_if_touches_nothing_and_tier_commits_once(corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    before = tree(corpus)
    answer = json.loads(invoke("tier", str(corpus), "--policy", str(file), "--dry-run", "--json"))[
        "result"
    ]
    assert tree(corpus) == before
    assert answer["committed"] is False
    cells = {(row["source"], row["tier"]): row for row in answer["tiers"]}
    assert cells["oxe", "none"]["before"]["episodes"] == 2
    assert cells["oxe", "none"]["after"]["episodes"] == 0
    assert cells["egodex", "high"]["after"]["segments"] == 2
    assert "dry run: nothing was changed" in invoke(
        "tier", str(corpus), "--policy", str(file), "--dry-run"
    )
    first = json.loads(invoke("tier", str(corpus), "--policy", str(file), "--json"))["result"]
    again = json.loads(invoke("tier", str(corpus), "--policy", str(file), "--json"))["result"]
    assert (first["committed"], again["committed"], again["up_to_date"]) == (True, False, True)
    assert first["snapshot"] == again["snapshot"] == snapshot.load(corpus).number
    assert "up to date: snapshot" in invoke("tier", str(corpus), "--policy", str(file))


def test_explain_tells_people_and_programs(corpus: Path, policy: QualityPolicy) -> None:
    run(corpus, policy)
    shown = invoke("explain", str(corpus), uid_of(0))
    assert "a second try: share of regrasp at_least 0.5 (measured 1)" in shown
    assert "the catalog has the same tiers" in shown
    answer = json.loads(invoke("explain", str(corpus), uid_of(0), "--json"))["result"]
    assert [s["tier"] for s in answer["segments"]] == ["high", "low", "high"]
    other = json.loads(invoke("explain", str(corpus), uid_of(0), "--policy", "ei30k", "--json"))[
        "result"
    ]
    assert other["policy"] == "ei30k v1"
    assert other["stored"] == "differs"


@pytest.mark.slow
def test_from_raw_recordings_to_tiers(tmp_path: Path) -> None:
    """Bridge-like episodes through ingestion and every measure, and the built-in policy on top."""
    written = oxe.write(tmp_path / "raw")
    run_ingest(written.root, tmp_path / "corpus", source="oxe")
    invoke("measure", str(tmp_path / "corpus"), "--only", "motion", "--workers", "0")
    answer = json.loads(invoke("tier", str(tmp_path / "corpus"), "--dry-run", "--json"))["result"]
    assert {row["tier"]: row["after"]["episodes"] for row in answer["tiers"]} == {
        "none": 0,
        "low": 3,  # jumps, video and the rest were never looked at
    }
    invoke("measure", str(tmp_path / "corpus"), "--workers", "0")
    answer = json.loads(invoke("tier", str(tmp_path / "corpus"), "--json"))["result"]
    assert answer["committed"] is True
    assert {row["tier"]: row["after"]["episodes"] for row in answer["tiers"]} == {
        "none": 0,
        "high": 3,
    }
    with Catalog.open(tmp_path / "corpus") as catalog:
        uid = catalog.sql("SELECT uid FROM tiers LIMIT 1").item()
    assert "sound: true actions" in invoke("explain", str(tmp_path / "corpus"), uid)


def test_an_empty_corpus_has_no_tiers(tmp_path: Path, policy: QualityPolicy) -> None:
    root = write_corpus(tmp_path / "c", [])
    assert decisions(judged(root, policy)) == []
    run(root, policy)
    with Catalog.open(root) as catalog:
        assert catalog.sql("SELECT count(*) FROM tiers").item() == 0


# --- what is counted ----------------------------------------------------------------------------------------------------


def test_a_rule_whose_tier_is_capped_decides_nothing_and_the_tables_agree(
    tmp_path: Path, policy: QualityPolicy
) -> None:
    """Two episodes without actions, one of which would be high, one low; a third is low by its own rule."""
    seen = {"supervises": ["visual_forecasting"]}
    given = [
        Given(whole=FINE, row=seen),
        Given(whole={**FINE, "idle_share": 0.9}, row=seen),
        Given(whole=FINE),
    ]
    found = judge(write_corpus(tmp_path / "c", given), snapshot.load(tmp_path / "c"), policy)
    decided = {r.code: (r.tier, r.segments) for r in rule_counts(found) if r.segments}
    assert decided == {"sound": ("high", 1)}
    capped = [(c.tier, c.rule, c.rule_tier, c.segments) for c in cap_counts(found)]
    assert len(capped) == 2
    assert {(tier, segments) for tier, _, _, segments in capped} == {("actionless", 1)}
    assert ("actionless", "sound", "high", 1) in capped
    for tier in ("high", "low", "actionless", "excluded"):
        rules = sum(r.segments for r in rule_counts(found) if r.tier == tier)
        caps = sum(c.segments for c in cap_counts(found) if c.tier == tier)
        whole = sum(c.segments for (_, of), c in judged_counts(found).items() if of == tier)
        assert rules + caps == whole, tier


def test_the_lacking_measurement_is_named_with_its_segments(tmp_path: Path) -> None:
    root = write_corpus(
        tmp_path / "c", [Given(whole={"idle_share": 0.1}), Given(whole={"jump_z": 0.0})]
    )
    ei30k = load_policy("ei30k")[0]
    last = rule_counts(judge(root, snapshot.load(root), ei30k))[-1]
    names = [n for n in required(ei30k) if n != "idle_share"]
    assert (last.code, last.segments) == ("unproven", 2)
    assert sum(last.lacks.values()) == 2
    assert set(last.lacks) <= set(names)
    shown = CliRunner().invoke(app, ["tier", str(root), "--dry-run"]).output
    assert "missing measurements" in shown
    assert next(iter(last.lacks)) in "".join(shown.split())


def test_a_run_is_known_when_gc_has_removed_its_snapshot(
    corpus: Path, policy: QualityPolicy
) -> None:
    run(corpus, policy)
    append(corpus, {})
    for path in sorted((corpus / snapshot.FOLDER).glob("*.json"))[:-1]:
        path.unlink()
    assert is_up_to_date(corpus, snapshot.load(corpus), policy)
    append(corpus, {"measurements": [measurement(uid_of(1), "idle_share", 0.9, None, None, 2)]})
    assert not is_up_to_date(corpus, snapshot.load(corpus), policy)
