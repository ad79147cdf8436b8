"""The closed-loop study without its simulator: what is recorded, how a policy is let act, and the formulas of the report.

A toy world stands for Meta-World; what needs the real one is at the end, and reported as not run without the extra `sim`.
"""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise, product
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest

from adapters.metaworld_hdf5.adapter import MetaWorldHdf5
from benchmarks.routing.compare import compared
from benchmarks.routing.page import page
from benchmarks.routing.plan import Budget, Play, Take, takes
from benchmarks.routing.record import Recording, is_whole, record_all, write
from benchmarks.routing.replay import Playback
from benchmarks.routing.rollout import rollout
from benchmarks.routing.scenes import TASKS, Task
from benchmarks.routing.settings import Settings
from benchmarks.routing.state import State
from benchmarks.routing.statistics import auroc, auroc_estimate, paired_difference, wilson
from benchmarks.routing.stored import Judged, Stored
from benchmarks.routing.tiers import report
from benchmarks.routing.trained import rolled_out, rollout_report, scenes
from schemas.errors import ConfigError
from schemas.geometry import rotmat_from_rotvec, transform
from training.policy.embodiments import integrated
from training.policy.observation import ActionChunk, Observation
from training.rollout.loop import Horizon, RolloutOutcome, scene_seed
from training.rollout.sawyer import Felt, as_target, body_position_m, hand_pose, spec

DOWN_WXYZ = np.array([0.5**0.5, 0.0, 0.5**0.5, 0.0])
TASK = Task(name="toy", instruction="go there")
START_M, GOAL_M = np.array([0.0, 0.6, 0.2]), np.array([0.05, 0.7, 0.12])


class Toy:
    """A hand that is where it was told to be one timestep ago; it succeeds within a centimetre of the goal."""

    def __init__(self, goal_m: np.ndarray = GOAL_M) -> None:
        self.goal_m, self.is_success = goal_m, False
        self.targets: list[np.ndarray] = []
        self.openings: list[bool] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def reset(self, seed: int) -> None:
        self.is_success, self.targets, self.openings = False, [], []
        self.target_m = self.position_m = START_M.copy()
        self.num_pictures = 0

    def action_towards(self, target_m: np.ndarray, *, is_open: bool) -> np.ndarray:
        return np.append(target_m, float(is_open))

    def hold(self, action: np.ndarray) -> None:
        self.position_m, self.target_m = self.target_m, action[:3]
        self.targets.append(action[:3].copy())
        self.openings.append(bool(action[3]))
        self.is_success |= bool(np.linalg.norm(self.target_m - self.goal_m) < 0.01)

    def felt(self) -> Felt:
        return felt(self.position_m, self.target_m)

    def picture(self) -> np.ndarray:
        self.num_pictures += 1
        return np.full((2, 2, 3), self.num_pictures - 1, np.uint8)


class Goes:
    """Goes straight to the goal, 2 cm a timestep, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def act(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        assert observation.history is not None
        at = np.asarray(observation.history[-1][:3])
        goal_m = hand_pose(GOAL_M, DOWN_WXYZ)[:3, 3]
        targets = []
        for _ in range(4):
            away = goal_m - at
            at = at + away * min(1.0, 0.02 / max(float(np.linalg.norm(away)), 1e-9))
            targets.append(as_target(transform(np.eye(3), at), 0.0))
        return ActionChunk(spec=spec(), targets=np.array(targets), t_s=np.arange(1, 5) / 10)


# --- letting a policy act -----------------------------------------------------------------------------------------------


def test_the_grasp_centre_is_45_mm_below_the_body() -> None:
    T = hand_pose(START_M, DOWN_WXYZ)
    np.testing.assert_allclose(T[:3, 3], [0.0, 0.6, 0.155], atol=1e-9)
    np.testing.assert_allclose(T[:3, 0], [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(body_position_m(T, DOWN_WXYZ), START_M, atol=1e-9)


def test_the_layout_is_that_of_a_corpus() -> None:
    assert spec().width == 10
    names = spec().names
    assert (names[0], names[3], names[9]) == (
        "left.position_m.x",
        "left.rot6d_cols.xx",
        "left.gripper_opening",
    )


def test_a_policy_reaches_its_goal_and_is_asked_as_seldom_as_the_horizon_says() -> None:
    world, policy = Toy(), Goes()
    outcome = rollout(policy, world, TASK, 0, Horizon(execute=3, past_steps=(-2, 0)))
    away = float(np.linalg.norm(GOAL_M - START_M))
    expected = int(np.ceil((away - 0.01) / 0.02))
    assert outcome == RolloutOutcome(
        task="toy", seed=0, success_at=expected, length=expected, num_asked=-(-expected // 3)
    )
    assert world.openings == [False] * expected


def test_a_policy_that_does_nothing_fails_at_the_limit() -> None:
    stays = Goes()
    outcome = rollout(stays, Toy(goal_m=np.full(3, 9.0)), TASK, 0, Horizon(execute=4, limit=10))
    assert (outcome.is_success, outcome.length, outcome.num_asked) == (False, 10, 3)


def test_what_is_shown_is_of_its_time() -> None:
    """Picture k is of timestep k; before the start there is nothing, and the last is always now."""
    world, policy = Toy(goal_m=np.full(3, 9.0)), Goes()
    rollout(policy, world, TASK, 0, Horizon(execute=2, past_steps=(-3, 0), limit=7))
    shown = [o.pictures["front"][:, 0, 0, 0].tolist() for o in policy.seen]
    assert shown == [[0], [2], [1, 4], [3, 6]]
    assert {o.text for o in policy.seen} == {"go there"}


def test_history_begins_where_the_hand_is_and_goes_on_with_what_was_told() -> None:
    world, policy = Toy(goal_m=np.full(3, 9.0)), Goes()
    rollout(policy, world, TASK, 0, Horizon(execute=2, limit=5))
    first, second = (np.asarray(policy.seen[i].history) for i in (0, 1))
    np.testing.assert_allclose(first, [as_target(hand_pose(START_M, DOWN_WXYZ), 1.0)], atol=1e-9)
    told = [as_target(hand_pose(p, DOWN_WXYZ), 0.0) for p in world.targets[:2]]
    np.testing.assert_allclose(second, [*first, *told], atol=1e-9)


@pytest.mark.parametrize("execute", [1, 5, 16])
def test_a_recording_comes_back_through_chunks(execute: int) -> None:
    """Motions, chained again chunk by chunk, lead through the very targets that they were made of."""
    rng = np.random.default_rng(0)
    R = hand_pose(START_M, DOWN_WXYZ)[:3, :3]
    count = 23
    body_m = START_M + np.cumsum(0.01 * rng.standard_normal((count, 3)), axis=0)
    hand = [hand_pose(p, DOWN_WXYZ) for p in (START_M, *body_m)]
    motions = np.array([np.r_[R.T @ (b - a)[:3, 3], 0, 0, 0] for a, b in pairwise(hand)])
    opening = (rng.random(count) > 0.5).astype(float)
    episode = Stored(episode_id="toy/0", motions=motions, T_start=hand[0], opening=opening)
    np.testing.assert_allclose(integrated(motions, hand[0]), hand[1:], atol=1e-12)
    world = Toy(goal_m=np.full(3, 9.0))
    horizon = Horizon(execute=execute, limit=count)
    rollout(Playback(episode=episode, executed=execute), world, TASK, 0, horizon)
    np.testing.assert_allclose(world.targets, body_m, atol=1e-9)
    assert world.openings == [bool(o) for o in opening]


def test_a_wish_to_turn_moves_nothing_but_the_grasp_centre() -> None:
    """The simulator's hand cannot turn: a target that is turned asks for its place, seen from the hand as it is."""
    T = hand_pose(START_M, DOWN_WXYZ)
    turned = T @ transform(rotmat_from_rotvec([0.3, 0.2, 0.1]), np.zeros(3))
    np.testing.assert_allclose(body_position_m(turned, DOWN_WXYZ), START_M, atol=1e-9)


def test_every_cell_of_a_seed_meets_the_same_scenes_and_none_that_was_recorded() -> None:
    recorded = {take.seed for take in takes(Budget(), 0)}
    for task in TASKS:
        met = scenes(task, ("final", 0), 50)
        assert met == scenes(task, ("final", 0), 50)
        assert len(set(met)) == 50
        others = {*scenes(task, ("validation", 0), 50), *scenes(task, ("final", 1), 50)}
        assert not (recorded | others) & set(met)


def test_only_trained_tasks_are_rolled_out() -> None:
    tasks = (TASK, TASKS[0], Task(name="other", instruction="x", is_trained=False))
    outcomes = rolled_out(
        Goes(),
        key=("final", 0),
        count=2,
        horizon=Horizon(limit=3),
        tasks=tasks[1:],
        world_of=lambda _: Toy(),
    )
    answer = rollout_report(outcomes)
    assert {r["task"] for r in answer["rollouts"]} == {TASKS[0].name}
    assert answer["success"]["count"] == 2


# --- what is recorded -----------------------------------------------------------------------------------------------------


def test_a_plan_is_the_same_again_and_its_numbers_tell_nothing() -> None:
    wanted = list(takes(Budget(), 0))
    assert wanted == list(takes(Budget(), 0))
    assert wanted != list(takes(Budget(), 1))
    assert len({t.name for t in wanted}) == len({t.seed for t in wanted}) == len(wanted)
    trained = [t for t in wanted if t.task == "reach-v3"]
    assert sorted(t.number for t in trained) == list(range(380))
    plays = [t.play for t in trained if t.has_actions]
    counts = {play: plays.count(play) for play in Play}
    assert counts == {
        "expert": 60,
        "noisy": 80,
        "other_goal": 27,
        "stopped_early": 27,
        "random": 26,
    }
    early = sum(t.play is Play.EXPERT and t.has_actions for t in trained if t.number < 60)
    assert 3 < early < 20, "60 experts of 380 are dealt over all numbers"


def felt(position_m: np.ndarray, target_m: np.ndarray) -> Felt:
    return Felt(
        position_m=position_m,
        quat_wxyz=DOWN_WXYZ,
        gap_m=0.1,
        target_m=target_m,
        target_quat_wxyz=DOWN_WXYZ,
    )


def recording(num: int = 6) -> Recording:
    out = Recording(success_at=4)
    for k in range(num):
        at = START_M + np.array([0.001 * k, 0.0, 0.0])
        after = START_M - np.array([0.0, 0.0, 0.002 * (k + 1)])
        out.felt.append(felt(at, at))
        out.after.append(felt(at, after))
        out.actions.append(np.array([0.0, 0.0, -0.025, 1.0]))
        out.pictures.append(np.full((32, 48, 3), 20 * k, np.uint8))
    return out


TAKE = Take(task="reach-v3", number=7, seed=3, play=Play.NOISY, sigma=1.0)


def test_what_is_written_is_what_the_adapter_reads(tmp_path: Path) -> None:
    write(tmp_path, TAKE, recording())
    adapter = MetaWorldHdf5()
    (ref,) = adapter.discover(tmp_path, adapter.survey(tmp_path, {}))
    episode = adapter.load(ref)
    told = episode.stream("command.left.T_base_eef")
    assert told is not None
    np.testing.assert_allclose(told.values[2, :3, 3], [0.0, 0.6, 0.194])
    assert told.t_ns.tolist() == [100_000_000 * (k + 1) for k in range(6)]
    assert episode.instructions[0].text == "move the hand to the red ball"
    assert episode.success is None


def test_a_video_has_no_numbers(tmp_path: Path) -> None:
    video = Take(task="reach-v3", number=8, seed=3, play=Play.EXPERT, has_actions=False)
    write(tmp_path, video, recording())
    adapter = MetaWorldHdf5()
    (ref,) = adapter.discover(tmp_path, adapter.survey(tmp_path, {}))
    assert adapter.load(ref).streams == ()


@pytest.mark.parametrize("suffix", [".hdf5", ".mp4", ".label.json"])
def test_an_episode_is_whole_with_all_of_its_files(suffix: str, tmp_path: Path) -> None:
    assert not is_whole(tmp_path, TAKE)
    write(tmp_path, TAKE, recording())
    assert is_whole(tmp_path, TAKE)
    counts = record_all(tmp_path, [TAKE], progress=lambda done, whole: None)
    assert counts == {"recorded": 0, "kept": 1, "timesteps": 0}
    (tmp_path / f"{TAKE.name}{suffix}").unlink()
    assert not is_whole(tmp_path, TAKE)


def test_the_same_play_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, TAKE, recording())
    for suffix in (".hdf5", ".mp4", ".label.json"):
        one, two = ((tmp_path / n / f"{TAKE.name}{suffix}").read_bytes() for n in ("one", "two"))
        assert one == two, suffix


# --- settings, state, arms ------------------------------------------------------------------------------------------------


def test_a_step_is_done_once_and_other_settings_are_refused(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, int]:
        calls.append(1)
        return {"n": len(calls)}

    assert State(tmp_path, {"seed": 0}).once("a", work) == {"n": 1}
    assert State(tmp_path, {"seed": 0}).once("a", work) == {"n": 1}
    with pytest.raises(ConfigError, match="other seed"):
        State(tmp_path, {"seed": 1})


def test_a_step_that_broke_is_done_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        State(tmp_path, {}).once("a", lambda: {"n": 1 // 0})
    assert State(tmp_path, {}).once("a", lambda: {"n": 2}) == {"n": 2}


def test_settings_of_a_file_are_those_of_a_run(tmp_path: Path) -> None:
    """What is recorded is shared by all trainings, so only that must be the same."""
    State(tmp_path, Settings().of_data()).once("a", dict)
    longer = Settings(num_steps=9, scenes="validation")
    assert State(tmp_path, longer.of_data()).done == {"a": {}}
    with pytest.raises(ConfigError, match="other budget"):
        State(tmp_path, Settings(budget=Budget.quick()).of_data())


# --- formulas -------------------------------------------------------------------------------------------------------------


def test_wilson_of_a_textbook() -> None:
    """Known values: 8 of 10 is 0.490 to 0.943; 0 of 10 is 0 to 0.278 (z = 1.96)."""
    some, none, all_ = wilson(8, 10), wilson(0, 10), wilson(10, 10)
    assert (some.value, some.low, some.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert (none.low, none.high) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert (all_.low, all_.high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 0).as_dict() == {"value": None, "low": None, "high": None, "count": 0}


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    score, good = rng.integers(0, 4, 40), rng.random(40) > 0.4
    pairs = list(product(score[good], score[~good]))
    expected = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    assert auroc(score, good) == pytest.approx(expected)
    estimate = auroc_estimate(score, good, rng)
    assert estimate.low < expected < estimate.high
    assert np.isnan(auroc([1, 2], [True, True]))


def test_differences_are_of_the_same_seed() -> None:
    """One is better by 0.1 in every seed, whatever the seeds: paired, that is certain."""
    other = np.array([0.1, 0.5, 0.9, 0.3, 0.7])
    found = paired_difference(other + 0.1, other, np.random.default_rng(0))
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.count == 5


def test_arms_are_compared_seed_by_seed() -> None:
    def answer(*success: bool) -> dict[str, object]:
        outcomes = [
            RolloutOutcome(task="t", seed=i, success_at=5 if s else None, length=9, num_asked=2)
            for i, s in enumerate(success)
        ]
        return rollout_report(outcomes)

    def line(tier: str, value: float, task: str = "policy") -> dict[str, object]:
        about = {"task": task, "embodiment": "all", "tier": tier, "metric": "m"}
        return about | {"model": {"value": value}}

    arms = {
        "high": {0: answer(True, False), 1: answer(False, False)},
        "routed": {0: answer(True, True), 1: answer(True, False)},
    }
    errors = {
        arm: {
            s: {
                "lines": [
                    *(line("all", v + 0.1 * s), line("high", 9.0), line("all", 9.0, "other")),
                    line("all", 9.0) | {"metric": "normalised_l1"},
                ]
            }
            for s in (0, 1)
        }
        for arm, v in (("high", 0.3), ("routed", 0.1))
    }
    found = compared(arms, errors, seed=0)
    assert found["error"]["high"] == {"m": {"0": 0.3, "1": 0.4}}
    assert found["error_difference"]["routed - high, m"]["value"] == pytest.approx(-0.2)
    assert found["success"]["routed"]["value"] == 0.75
    assert found["by_task"]["high"]["t"]["count"] == 4
    assert found["by_seed"] == {"high": {"0": 0.5, "1": 0.0}, "routed": {"0": 1.0, "1": 0.5}}
    assert found["difference"]["routed - high"]["value"] == 0.5


def judged(number: int, play: Play, *, tier: str, is_success: bool, acts: bool = True) -> Judged:
    label = {"play": play, "sigma": 0.0, "is_success": is_success, "has_actions": acts}
    return Judged(
        episode_id=f"reach-v3/{number:06d}",
        label=label,
        tier_steps={tier: 9},
        length=9,
        codes=("x",),
    )


def test_tiers_are_held_against_labels() -> None:
    found = [judged(k, Play.EXPERT, tier="high", is_success=True) for k in range(4)]
    found += [judged(k, Play.RANDOM, tier="low", is_success=False) for k in range(4, 7)]
    found += [judged(k, Play.OTHER_GOAL, tier="high", is_success=False) for k in range(7, 10)]
    found += [judged(10, Play.EXPERT, tier="actionless", is_success=True, acts=False)]
    answer = report(found, seed=0)
    assert (answer["episodes"], answer["videos"]) == (10, 1)
    assert answer["success_auroc"]["value"] == pytest.approx((4 * 3 + 0.5 * 4 * 3) / (4 * 6))
    assert answer["expert_against"]["random"]["value"] == 1.0
    assert answer["expert_against"]["other_goal"]["value"] == 0.5


def test_the_page_says_what_there_is() -> None:
    """Step by step; a figure that nothing can be said of is a dash, not a number."""
    found = [judged(k, Play.EXPERT, tier="high", is_success=True) for k in range(3)]
    text = page({"judge": report(found, seed=0)})
    assert "| success, all tasks | – |" in text
    assert "| expert | True | high | x | 3 |" in text
    assert page({}) == ""


# --- with the simulator ---------------------------------------------------------------------------------------------------

needs_sim = pytest.mark.skipif(
    find_spec("metaworld") is None, reason="NOT RUN: metaworld is not installed (extra sim)"
)


@needs_sim
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_scene_is_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Played in a fresh world and in one that was used before: the same numbers to the last bit."""
    from benchmarks.routing.record import play
    from training.rollout.sawyer import World

    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    take = Take(task="reach-v3", number=0, seed=scene_seed(0, 9), play=Play.EXPERT)
    with World("reach-v3") as world:
        one = play(take, world, has_pictures=False)
        two = play(take, world, has_pictures=False)
    with World("reach-v3") as world:
        three = play(take, world, has_pictures=False)
    assert one.success_at is not None
    for other in (two, three):
        np.testing.assert_array_equal(one.actions, other.actions)
        a, b = ([f.position_m for f in r.felt] for r in (one, other))
        np.testing.assert_array_equal(a, b)
    centre = hand_pose(one.felt[0].position_m, one.felt[0].quat_wxyz)[:3, 3]
    with World("reach-v3") as world:
        world.reset(take.seed)
        np.testing.assert_allclose(centre, world._env.tcp_center, atol=2e-3)
