"""Faults put in move the right number far, and what is no fault (another rate, base or side) moves none by more than 5 %."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ingest.curation.measurements.registry import measures
from schemas.geometry import Array, rotmat_from_rotvec
from tests.curation.arms import (
    arm_of,
    following,
    found,
    intervals,
    minimum_jerk,
    numbers,
    recorded,
    smooth_arm,
    view_of,
)
from tests.curation.motion_cases import AHEAD, MINE, ORIGIN, line, one


def everything(view: Any) -> dict[str, Any]:
    return numbers(view, *MINE)


def opened(length: int) -> Array:
    return np.interp(np.arange(length) % 100, [0, 30, 34, 60, 64, 99], [1, 1, 0, 0, 1, 1])


def commanded(source_hz: int, change: Any = lambda T: T) -> Any:
    """Two arms with commands that lead by 0.2 s, recorded at `source_hz`, then `change`d."""
    arms = {}
    for index, side in enumerate(("left", "right")):
        pose = smooth_arm(60, 20 + index)
        asked = change(recorded(lambda t, pose=pose: pose(t + 0.2), 60, source_hz))
        arms[side] = arm_of(
            change(recorded(pose, 60, source_hz)),
            command_m=asked[:, :3, 3],
            command_rotmat=asked[:, :3, :3],
            opening=opened(600),
        )
    return arms


def alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value is None) == (other[name] is None), name
        if value is not None:
            assert other[name] == pytest.approx(value, rel=0.05, abs=2e-3), name


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    return everything(view_of(commanded(30)))


def test_source_rate_changes_nothing(plain: dict[str, Any]) -> None:
    alike(plain, everything(view_of(commanded(15), row={"source_rate_hz": 15.0})))


def test_base_frame_changes_nothing(plain: dict[str, Any]) -> None:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotmat_from_rotvec([0.4, -1.1, 2.0]), [1.0, -2.0, 0.5]
    alike(plain, everything(view_of(commanded(30, lambda poses: T @ poses))))


def test_mirror_changes_nothing(plain: dict[str, Any]) -> None:
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    arms = commanded(30, lambda poses: mirror @ poses @ mirror)
    alike(plain, everything(view_of({"left": arms["right"], "right": arms["left"]})))


def test_noise_on_a_tenth_of_the_steps(plain: dict[str, Any]) -> None:
    arms = commanded(30)
    rng = np.random.default_rng(9)
    noisy = arms["left"].position_m.copy()
    noisy[rng.choice(600, 60, replace=False)] += rng.normal(0, 0.02, (60, 3))
    told = everything(view_of({**arms, "left": replace(arms["left"], position_m=noisy)}))
    assert told["ldlj_4s"] < plain["ldlj_4s"] - 2
    assert told["sparc_4s"] < plain["sparc_4s"] - 0.7
    assert told["acc_rms_m_s2"] > 2 * plain["acc_rms_m_s2"]
    assert plain["jumps"] == 0
    assert told["jumps"] > 10


def test_frozen_column_and_frozen_pose(plain: dict[str, Any]) -> None:
    arms = commanded(30)
    column, pose = arms["left"].position_m.copy(), arms["left"].position_m.copy()
    column[200:260, 2] = column[200, 2]
    view = view_of({**arms, "left": replace(arms["left"], position_m=column)})
    assert intervals(view, "columns", "stuck_s") == [(200, 260)]
    short = arms["left"].position_m.copy()
    short[200:207, 2] = short[200, 2]
    assert (
        intervals(view_of({"left": replace(arms["left"], position_m=short)}), "columns", "stuck_s")
        == []
    )
    assert plain["stuck_share"] == 0.0
    assert plain["constant_columns"] == 0.0
    pose[200:260] = pose[200]
    turned = arms["left"].rotmat.copy()
    turned[200:260] = turned[200]
    view = view_of({**arms, "left": replace(arms["left"], position_m=pose, rotmat=turned)})
    assert intervals(view, "columns", "stuck_s") == [(200, 260)]
    column[:, 2] = 0.3
    gone = everything(view_of({**arms, "left": replace(arms["left"], position_m=column)}))
    assert gone["constant_columns"] == 1.0
    assert gone["tracking_error_m"] > 5 * plain["tracking_error_m"]


def test_a_plane_is_no_stuck_column() -> None:
    """Pushing on a table: the height never changes. And a column that rests for 0.7 s is no stuck pose."""
    flat = line((0, 0.0), (60, 0.6))
    assert numbers(one(flat), "columns")["stuck_share"] == 0.0
    tilted = flat + line((0, 0.0), (20, 0.2), (27, 0.2), (60, 0.5), axis=2)
    told = numbers(one(tilted, command_m=following(tilted)), "columns")
    assert (told["stuck_share"], told["constant_columns"]) == (0.0, 7.0)  # y and the rotation


def test_shuffled_actions(plain: dict[str, Any]) -> None:
    arms = commanded(30)
    order = np.random.default_rng(11).permutation(600)
    shuffled = replace(arms["left"], command_m=arms["left"].command_m[order])
    told = everything(view_of({**arms, "left": shuffled}))
    assert told["tracking_error_m"] > 0.05
    assert plain["tracking_error_m"] < 0.002
    assert told["sparc"] == plain["sparc"]  # the state is what it was


def test_doubled_pause() -> None:
    def paused(steps: int) -> dict[str, Any]:
        there = minimum_jerk(ORIGIN, AHEAD, 30)
        rest = np.tile(2 * AHEAD, (30, 1))  # at the end: no pause
        view = one(np.concatenate([there, np.tile(AHEAD, (steps, 1)), there + AHEAD, rest]))
        (seconds,) = [m.value for m in found(view, "motion") if m.name == "pause_s"]
        return {"pause": seconds, **everything(view)}

    once, twice = paused(20), paused(40)
    assert twice["pause"] - once["pause"] == pytest.approx(2.0)
    assert twice["idle_share"] > once["idle_share"] + 0.05


def test_replayed_actions(plain: dict[str, Any]) -> None:
    arms = commanded(30)
    asked = arms["left"].command_m.copy(), arms["right"].command_m.copy()
    turned = arms["left"].command_rotmat.copy(), arms["right"].command_rotmat.copy()
    for values in (*asked, *turned):
        values[400:500] = values[100:200]
    replayed = {
        side: replace(
            arms[side], command_m=asked[i], command_rotmat=turned[i], opening=np.ones(600)
        )
        for i, side in enumerate(arms)
    }
    told = everything(view_of(replayed))
    assert told["repeated_action_share"] == pytest.approx(100 / 600)
    assert told["repeated_state_share"] == 0.0
    assert plain["repeated_action_share"] == 0.0
    assert intervals(view_of(replayed), "replay", "repeat_s") == [(400, 500)]


def test_all_of_these_are_measures() -> None:
    assert set(MINE) <= set(measures())
