"""Held-out demonstrations and real episodes with faults: floors under the figures of docs/results/fidelity.md, which
`python -m tests.tier_quality_report` makes from more of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

import pytest

from ingest.curation.tiers.policy import load_policy
from ingest.curation.tiers.tier import Judged
from tests.curation.demonstrations import Demonstration
from tests.curation.held_out import RIGS, finished, perform, recording
from tests.curation.held_out_faults import STYLES, SWEEPS, held_out
from tests.curation.held_out_scores import passes, report, tried
from tests.curation.real_scores import DEFECT_CLASSES, defect_lists, real_report
from tests.curation.scores import Outcome, per_tier

PAGE = Path(__file__).parents[2] / "docs/results/fidelity.md"
CODES = {rule.code for rule in load_policy("ei30k")[0].rules}


def outcome_of(truth: str, *segments: tuple[int, str, str]) -> Outcome:
    """One demonstration: `truth` has h for high, l for low, a for actionless; segments are (end, tier, rule)."""
    names = {"h": "high", "l": "low", "a": "actionless"}
    one = Demonstration(
        fault="pause", codes=("pause",), truth=tuple(names[c] for c in truth), view=None
    )
    starts = [0, *(end for end, _, _ in segments)]
    rows = [
        {"start": start, "end": end, "tier": tier, "reasons": [{"code": code}]}
        for start, (end, tier, code) in zip(starts, segments, strict=False)
    ]
    return Outcome(made=[one], found=cast("Judged", None), segments=[rows])


def test_found_is_half_of_what_is_wrong_under_the_right_rule() -> None:
    """Four wrong timesteps: two of them in a segment of the rule are half, one is not, and another rule does not count."""
    assert outcome_of("hhllllhh", (4, "low", "pause"), (8, "high", "sound")).found_by(0, ["pause"])
    late = outcome_of("hhllllhh", (5, "high", "sound"), (8, "low", "pause"))
    assert not late.found_by(0, ["pause"])
    assert not outcome_of("hhllllhh", (8, "low", "shaky")).found_by(0, ["pause"])


def test_tiers_by_hand() -> None:
    """All 5 low ones are given low, and 1 of 5 high ones too."""
    done = outcome_of("hhhhhlllll", (4, "high", "sound"), (10, "low", "pause"))
    tiers = per_tier(done)
    assert tiers["high"] == (1.0, 0.8, 5)
    assert tiers["low"] == (5 / 6, 1.0, 5)
    assert tiers["excluded"] == (0.0, 0.0, 0)
    assert per_tier(done, [False])["low"] == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("hits", "level", "said"),
    [
        ([0, 0, 4, 4], 0.9, "from 3"),
        ([0, 2, 3, 4], 0.5, "from 2"),
        ([4, 4, 0, 0], 0.5, "up to 2"),
        ([0, 1, 0, 1], 0.5, "never"),
        ([4, 4, 4, 4], 0.9, "all sizes"),
        ([0, 4, 0, 4], 0.9, "2, 4"),
    ],
)
def test_the_size_from_which_on_a_fault_is_found(hits: list[int], level: float, said: str) -> None:
    assert passes({k + 1.0: (h, 4) for k, h in enumerate(hits)}, level) == said


def test_a_page_cannot_be_flattered_by_an_unknown_rule_or_an_unlabelled_fault() -> None:
    """Every fault of the issue is there, and is sought by rules that exist."""
    asked = {"noise", "pause", "truncation", "wrong gripper", "replayed actions", "frozen video"}
    assert asked | {"swapped arms", "retry, time between"} <= SWEEPS.keys()
    assert {code for sweep in SWEEPS.values() for code in (*sweep.codes, *sweep.also)} <= CODES
    assert all(sweep.counts_from <= max(sweep.sizes) for sweep in SWEEPS.values())


@pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.name)
def test_every_fault_is_labelled_where_it_was_put(rig: object) -> None:
    for fault, sweep in SWEEPS.items():
        if rig.name in sweep.rigs:  # type: ignore[attr-defined]
            made = recording(rig, 800_001)  # type: ignore[arg-type]
            sweep.make(made, sweep.sizes[-1])
            done = finished(made, fault, sweep.codes, has_pictures=False)
            assert len(done.truth) == done.view.length  # type: ignore[union-attr]
            assert set(done.truth) - {"high"}, fault
    made = recording(rig, 800_002)  # type: ignore[arg-type]
    perform(made)
    assert set(made.truth) == {"high"}


@pytest.mark.slow
def test_held_out_demonstrations_without_pictures(tmp_path: Path) -> None:
    """Floors well under the figures of the page: seeds of their own, one of each."""
    found = report(tried(tmp_path / "c", held_out(1, 1, first=200_000, has_pictures=False)))
    faults = found["faults"]
    assert found["auroc"] > 0.85
    tries = ("retry, time between", "retry, lifted by", "pause", "rest at an end")
    for name in (
        "noise",
        *tries,
        "replayed actions",
        "swapped arms",
        "looped",
        "teleport",
        "stuck column",
    ):
        assert faults[name]["recall"] >= 0.8, (name, faults[name])
    for name in ("truncation", "wrong gripper"):
        assert faults[name]["recall"] >= 0.5, (name, faults[name])
    assert found["tiers"]["high"]["precision"] > 0.85
    for style in STYLES:
        if style != "slow":
            assert found["styles"][style]["lost_share"] <= 0.15, (style, found["styles"][style])


@pytest.mark.slow
@pytest.mark.real
def test_real_episodes_with_faults_put_in(samples: Path, tmp_path: Path) -> None:
    found = real_report(samples, tmp_path, only_largest=True)
    hits: Counter[str] = Counter()
    tries: Counter[str] = Counter()
    for row in found["faults"]:
        hits[row["fault"]] += row["found"]
        tries[row["fault"]] += row["of"]
    for fault in ("noise", "pause", "rest at an end", "looped", "stuck column", "swapped arms"):
        assert hits[fault] >= 0.75 * tries[fault] > 0, fault
    assert found["untouched"]["robocasa_gr1"]["rules"] == {}
    assert found["untouched"]["oxe"] == {"of": 25, "rules": {}, "timesteps": {"high": 475}}
    assert found["handover"]["by_label"] == found["handover"]["failed"] == 3


@pytest.mark.real
def test_every_class_of_the_defect_lists_is_accounted_for(samples: Path) -> None:
    rows = defect_lists(samples / "agibot_defect_lists" / "filter_store")
    assert {row["class"]: row["of"] for row in rows} == {
        "Inconsistent_frams_length.jsonl": 1,
        "camera_extrinsic.jsonl: eef_out_of_frame_ratio_too_high": 19,
        "camera_extrinsic.jsonl: missing_files:extrinsic": 10,
        "still_frames.jsonl": 1,
    }
    assert {row["class"] for row in rows} == DEFECT_CLASSES.keys()
    assert sum(row["known_defect"] for row in rows) == 30  # a still range sets nothing aside
    shown = PAGE.read_text()
    assert all(
        f"| `{row['class']}` | {row['of']} | {row['known_defect']} |" in shown for row in rows
    )
