"""The built-in policy on episodes whose right answer is known: rests, failed tries, outliers among the others of a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.corpus import snapshot
from ingest.curation.measurements.each.trajectory import MEASURE as TRAJECTORY
from ingest.curation.tiers.explain import explain
from ingest.curation.tiers.policy import load_policy
from tests.curation.arms import ArmPath, intervals, numbers, view_of
from tests.curation.demonstrations import BODIES, recording, retry, stored
from tests.curation.tier_corpus import Given, decisions, judged, of_view, policy_of, write_corpus
from tests.generators.corpus import commit, uid_of

ei30k = load_policy("ei30k")[0]


def at_x(x: np.ndarray) -> ArmPath:
    """An arm that moves along x, metres at 10 Hz."""
    return ArmPath(position_m=np.stack([x, 0 * x, 0 * x], axis=1))


def steps(*parts: tuple[int, float]) -> np.ndarray:
    """x after so many steps of so many metres each, part after part."""
    moves = np.concatenate([np.full(count, size) for count, size in parts])
    return np.concatenate([[0.0], np.cumsum(moves)])


def test_rests_and_pauses_by_hand() -> None:
    """2 s of rest, 3 s of motion, 1 s of pause, 3 s of motion, 0.4 s of rest: 94 steps, of which 34 are idle."""
    view = view_of({"left": at_x(steps((20, 0), (30, 0.02), (10, 0), (30, 0.02), (4, 0)))})
    assert intervals(view, "motion", "rest_s") == [(0, 20)]  # 0.4 s at the end are none
    assert intervals(view, "motion", "pause_s") == [(50, 60)]
    told = numbers(view, "motion")
    assert told["idle_share"] == pytest.approx(34 / 94)
    assert told["idle_between_share"] == pytest.approx(14 / 74)  # without the 2 s


def test_an_episode_of_nothing_but_rest_has_nothing_between() -> None:
    view = view_of({"left": at_x(steps((60, 0)))})
    assert intervals(view, "motion", "rest_s") == [(0, 60)]
    assert numbers(view, "motion")["idle_between_share"] is None


def test_a_long_stop_is_low_and_what_is_around_it_is_not(tmp_path: Path) -> None:
    """6 of 10 s are one pause: the episode is idle most of the time, its other segments are not."""
    whole = {"idle_share": 0.6, "idle_between_share": 0.1}
    stretches = {"pause_dead_s": [(20, 80, 6.0)], "rest_dead_s": []}
    older = {"idle_share": 0.6}  # measured before `idle_between_share` was: as strict as then
    given = [Given(whole=whole, stretches=stretches, is_measured=True)]
    given.append(Given(whole=older, stretches=stretches))
    first, second = decisions(judged(write_corpus(tmp_path / "c", given), ei30k))
    assert [(s["start"], s["end"], s["tier"]) for s in first] == [
        (0, 20, "high"),
        (20, 80, "low"),
        (80, 100, "high"),
    ]
    assert {s["tier"] for s in second} == {"low"}
    assert all("idle" in {r["code"] for r in s["reasons"]} for s in second)


def test_a_still_head_is_set_apart(tmp_path: Path) -> None:
    """AgiBot 327/648642: still_frames.jsonl keeps 113 to 1228 of its frames at 30 Hz, so 3.8 s at the head are still."""
    row = {"embodiment": "robot", "cameras": [], "facts": [], "success": None}
    row |= {"tasks": [""], "task_counts": [411], "supervision_limits": []}
    view = view_of({"left": at_x(steps((38, 0), (370, 0.02), (2, 0)))}, row=row)
    ((head, body),) = decisions(judged(write_corpus(tmp_path / "c", [of_view(view)]), ei30k))
    assert (head["start"], head["end"], head["tier"]) == (0, 38, "low")
    assert {r["code"] for r in head["reasons"]} == {"rest"}
    assert body["tier"] == "high"


def test_an_expert_with_a_failed_try_is_high_low_high(tmp_path: Path) -> None:
    """Through every measure: the second of three segments holds the try, within half a second of where it was."""
    body = next(b for b in BODIES if b.name == "one_arm")
    made = recording(body, seed=4242)
    retry(made)
    start = made.truth.index("low")
    end = start + made.truth.count("low")
    given = of_view(stored(made, has_pictures=False))
    (segments,) = decisions(judged(write_corpus(tmp_path / "c", [given]), ei30k))
    assert [s["tier"] for s in segments] == ["high", "low", "high"]
    assert {r["code"] for r in segments[1]["reasons"]} == {"retry"}
    assert abs(segments[1]["start"] - start) <= 5
    assert abs(segments[1]["end"] - end) <= 5


# --- among the others of a task -----------------------------------------------------------------------------------------

ROW = {"tasks": ["fold the towel"], "task_counts": [1], "embodiment": "ur5"}


@pytest.mark.parametrize(("others", "is_told"), [(6, True), (3, False)])
def test_explain_names_an_outlier_of_length(tmp_path: Path, others: int, is_told: bool) -> None:
    """4 s among demonstrations of about 10 s, ending in motion; among fewer than five nothing is said."""
    lengths = [*[100, 104, 98, 102, 96, 101][:others], 40]
    whole = {"idle_share": 0.1, "end_speed_m_s": 0.2}
    root = write_corpus(
        tmp_path / "c",
        [Given(length=n, whole=whole, row=dict(ROW), is_measured=True) for n in lengths],
    )
    current = snapshot.load(root)
    (short,) = explain(root, current, uid_of(others), ei30k).segments
    assert short["decided_by"] == ("cut_off" if is_told else "sound")
    if is_told:
        (reason,) = [r for r in short["reasons"] if "length_fence" in str(r.values())]
        # ln(40) is below the lower quartile of the logs, in interquartile ranges
        log = np.log(np.array(lengths) / 10)
        low, high = np.quantile(log, [0.25, 0.75])
        assert reason["value"] == pytest.approx((log[-1] - low) / max(high - low, 0.05), rel=1e-6)
        assert reason["threshold"] == -1.5
    (usual,) = explain(root, current, uid_of(0), ei30k).segments
    assert usual["decided_by"] == "sound"


def test_who_ends_in_motion_among_those_who_rest(tmp_path: Path) -> None:
    """0.3 m/s where six others rest: cut off, though as long as they; told alike of one episode and of all."""
    speeds = [0.0, 0.005, 0.01, 0.0, 0.005, 0.01, 0.3]
    given = [
        Given(whole={"idle_share": 0.1, "end_speed_m_s": v}, row=dict(ROW), is_measured=True)
        for v in speeds
    ]
    root = write_corpus(tmp_path / "c", given)
    every = decisions(judged(root, ei30k))
    assert [one["tier"] for (one,) in every] == ["high"] * 6 + ["low"]
    (cut,) = explain(root, snapshot.load(root), uid_of(6), ei30k).segments
    assert cut["decided_by"] == "cut_off"
    (reason,) = [r for r in cut["reasons"] if "end_speed_fence" in str(r.values())]
    # the upper quartile is 0.01, the least spread 0.02
    assert reason["value"] == pytest.approx((0.3 - 0.01) / 0.02)


def test_explain_names_a_demonstration_unlike_the_others(tmp_path: Path) -> None:
    """Six go 0.5 m along x, a seventh turns aside halfway; the rule is a user's, the built-in policy has none of the kind."""
    policy = policy_of(
        "policy: mine\nversion: 1\nabout: a test\nsegments: {min_length_s: 1.0, origin: ours}\nconditions: {}\n"
        "rules:\n  - {code: unlike, tier: low, text: t, "
        "when: {fact: task_deviation_ratio, above: 3, origin: ours}}\n"
        "otherwise: {code: rest, tier: high, text: t}\n"
    )
    rng = np.random.default_rng(0)
    vectors = []
    for index in range(7):
        path = np.stack([np.linspace(0, 0.5, 100), np.zeros(100), np.zeros(100)], axis=1)
        path += rng.uniform(-0.005, 0.005, 3)
        if index == 6:
            path[50:, 1] += np.linspace(0, 0.4, 50)
        assert TRAJECTORY.vectors is not None
        vectors.append(TRAJECTORY.vectors(view_of({"left": ArmPath(position_m=path)})))
    root = write_corpus(tmp_path / "c", [Given(row=dict(ROW)) for _ in vectors])
    rows = [
        {"uid": uid_of(i), "kind": kind, "version": TRAJECTORY.version, "vector": vector.tolist()}
        for i, found in enumerate(vectors)
        for kind, vector in found.items()
    ]
    commit(root, {"signatures": rows}, "run-2")
    current = snapshot.load(root)
    (odd,) = explain(root, current, uid_of(6), policy).segments
    assert odd["decided_by"] == "unlike"
    (reason,) = odd["reasons"]
    assert reason["value"] > 3
    for index in range(6):
        (usual,) = explain(root, current, uid_of(index), policy).segments
        assert usual["decided_by"] == "rest"
