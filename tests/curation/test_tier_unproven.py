"""What a tier may not say: high without numbers, a lack of numbers where facts bar, one task's length by another's, "the same" of a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.corpus import snapshot
from ingest.curation.measurements.registry import output_names
from ingest.curation.tiers.explain import explain
from ingest.curation.tiers.policy import QualityPolicy, load_policy
from ingest.curation.tiers.policy_sql import required
from ingest.curation.tiers.tier import judge
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
from tests.generators.corpus import commit as append
from tests.generators.corpus import uid_of


@pytest.fixture
def policy() -> QualityPolicy:
    return policy_of(TEXT)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", [Given(whole={"idle_share": 0.9}), Given(whole=FINE)])


# --- what was never measured --------------------------------------------------------------------------------------------

FACTS_ONLY_LOW = list(ALL_TASKS[1:])
HANDS_ONLY = {"hoi_no_interaction"}  # of people: it counts for nobody


def lacking(*names: str, **given: Any) -> Given:
    """Everything measured, most of it in vain, but `names`; the arms rest a tenth of the time."""
    whole: dict[str, float | None] = dict.fromkeys(output_names().keys() - set(names))
    whole |= {"idle_share": 0.1} if "idle_share" not in names else {}
    return Given(whole=whole, **given)


def test_the_built_in_policy_wants_every_number_taken_not_every_number_known(
    tmp_path: Path,
) -> None:
    """Only idleness measured: that is not high. All measured, all but idleness in vain: that is."""
    ei30k = load_policy("ei30k")[0]
    names = required(ei30k)
    assert {"jump_z", "frozen_video", "tracking_error_m", "repeat_s", "ldlj_4s"} <= set(names)
    assert not HANDS_ONLY & set(names)
    given = [
        Given(whole={"idle_share": 0.1}),
        lacking(),
        lacking("jump_z"),
        lacking("jump_z", "tracking_error_m"),
        lacking(*HANDS_ONLY, "hoi_hand_share", "sparc"),  # of people; and what no rule asks for
        lacking("idle_share"),
    ]
    found = decisions(judged(write_corpus(tmp_path / "c", given), ei30k))
    assert [s["tier"] for (s,) in found] == ["low", "high", "low", "low", "high", "low"]
    reasons = [[(r["code"], r["text"], r["value"]) for r in s["reasons"]] for (s,) in found]
    said = "not measured enough to be high: "
    count = len(names)
    told = f"of {count} measurements never taken: "
    first = min(n for n in names if n != "idle_share")
    assert reasons[0] == [("unproven", f"{said}{count - 1} {told}{first}, ...", count - 1)]
    assert reasons[2] == [("unproven", f"{said}1 {told}jump_z", 1)]
    assert reasons[3] == [("unproven", f"{said}2 {told}jump_z, ...", 2)]
    assert reasons[5] == [("unproven", f"{said}1 {told}idle_share", 1)]


def test_measured_in_a_later_part_is_measured(tmp_path: Path) -> None:
    ei30k = load_policy("ei30k")[0]
    root = write_corpus(tmp_path / "c", [lacking("jump_z"), lacking("jump_z")])
    append(root, {"measurements": [measurement(uid_of(1), "jump_z", None, None, None, 2)]})
    assert [s["tier"] for (s,) in decisions(judged(root, ei30k))] == ["low", "high"]


def test_a_policy_that_does_not_ask_what_was_never_measured_asks_for_nothing(
    policy: QualityPolicy,
) -> None:
    assert required(policy) == ()


# --- a cap that is the tier of `otherwise` ------------------------------------------------------------------------------


def test_facts_that_bar_policy_are_the_reason_not_a_lack_of_numbers(tmp_path: Path) -> None:
    """Measured completely, low by its facts and by `otherwise`: only the facts are to blame; both where a number lacks."""
    row = {"supervises": FACTS_ONLY_LOW}
    given = [lacking(row=row), lacking("jump_z", row=row), lacking("idle_share")]
    found = decisions(judged(write_corpus(tmp_path / "c", given), load_policy("ei30k")[0]))
    assert [[r["code"] for r in s["reasons"]] for (s,) in found] == [
        ["supervision_limit"],
        ["supervision_limit", "unproven"],
        ["unproven"],
    ]
    assert {s["tier"] for (s,) in found} == {"low"}


def test_a_cap_is_named_beside_what_otherwise_says_and_high_is_no_cap(
    tmp_path: Path, policy: QualityPolicy
) -> None:
    """A policy that does not count numbers cannot say that they are all there: both reasons."""
    given = [Given(row={"supervises": FACTS_ONLY_LOW}), Given()]
    root = write_corpus(tmp_path / "c", given)
    codes = [[r["code"] for r in s["reasons"]] for (s,) in decisions(judged(root, policy))]
    assert codes == [["supervision_limit", "rest"], ["rest"]]
    kind = policy_of(TEXT.replace("code: rest, tier: low", "code: rest, tier: high"))
    codes = [[r["code"] for r in s["reasons"]] for (s,) in decisions(judged(root, kind))]
    assert codes == [["supervision_limit"], ["rest"]]


# --- the others of a task -----------------------------------------------------------------------------------------------


def test_tasks_that_begin_with_the_same_subtask_are_not_compared(tmp_path: Path) -> None:
    """Six of 4 s pass an item, fourteen of 40 s pack a bag; all begin with "Reach". A seventh pack of 4 s is cut off."""
    text = f"{TEXT.split('rules:')[0]}rules:\n" + (
        "  - {code: cut_off, tier: low, text: t, when: {fact: length_fence, below: -1.5, origin: o}}\n"
        "otherwise: {code: rest, tier: high, text: t}\n"
    )
    row = {"tasks": ["Reach", "Grasp"], "embodiment": "agibot_g1"}

    def of(length: int, *whole: tuple[int, int, str]) -> Given:
        return Given(length=length, row=row, tasks=whole)

    given = [of(40 + k % 3, (0, 40 + k % 3, "Pass the item")) for k in range(6)]
    given += [of(400 + k % 5, (0, 400 + k % 5, "Pack the bag")) for k in range(14)]
    given += [of(40, (1, 39, "Pack the bag"))]  # a timestep less at either end is rounding
    given += [of(40, (0, 40, " "), (0, 20, "Pack the bag"))]  # no whole task: among its first texts
    found = judged(write_corpus(tmp_path / "c", given), policy_of(text))
    tiers = [s["tier"] for (s,) in decisions(found)]
    assert tiers == ["high"] * 20 + ["low", "high"]
    one = judge(tmp_path / "c", snapshot.load(tmp_path / "c"), policy_of(text), uid=uid_of(20))
    assert [s["tier"] for (s,) in decisions(one)] == ["low"]
    first = judge(tmp_path / "c", snapshot.load(tmp_path / "c"), policy_of(text), uid=uid_of(0))
    assert [s["tier"] for (s,) in decisions(first)] == ["high"]


# --- explain against the catalog ----------------------------------------------------------------------------------------


SOUND: dict[str, Any] = {
    "code": "sound",
    "text": "fine: idle_share at_most 0.5",
    "value": 0.1,
    "threshold": 0.5,
}
NOT_FAILED = {
    "code": "sound",
    "text": "fine: not (success is false)",
    "value": None,
    "threshold": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": ["visual_forecasting"]},
        {"reasons": []},
        {"reasons": [SOUND, SOUND]},
        {"reasons": [SOUND | {"value": 0.11}, NOT_FAILED]},
        {"reasons": [SOUND | {"value": None}, NOT_FAILED]},
        {"reasons": [SOUND, NOT_FAILED | {"code": "other"}]},
        {"reasons": [SOUND, NOT_FAILED | {"text": "other"}]},
        {"tier": "low"},
    ],
    ids=["tasks", "none", "which", "a number", "no number", "a code", "a text", "tier"],
)
def test_the_catalog_says_the_same_only_if_all_of_it_does(
    corpus: Path, policy: QualityPolicy, change: dict[str, Any]
) -> None:
    after = run(corpus, policy)
    rows = [r for r in after.read(corpus, "tiers").to_pylist() if r["uid"] == uid_of(1)]
    assert [row["reasons"] for row in rows] == [[SOUND, NOT_FAILED]]
    rows = [row | {"snapshot": after.number + 1} for row in rows]
    append(corpus, {"tiers": rows}, "again")
    assert explain(corpus, snapshot.load(corpus), uid_of(1), policy).stored == "same"
    changed = [row | change | {"snapshot": after.number + 2} for row in rows]
    append(corpus, {"tiers": changed}, "changed")
    assert explain(corpus, snapshot.load(corpus), uid_of(1), policy).stored == "differs"
