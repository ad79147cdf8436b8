"""Measures of commands, and of recordings with gaps, of hands or of nothing: hand-worked values, and plain loops as oracles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ingest.curation.measurements.each.replay import repeated
from schemas.geometry import rotmat_from_rotvec
from tests.curation.arms import (
    ArmPath,
    arm_of,
    following,
    found,
    numbers,
    recorded,
    smooth_arm,
    view_of,
    with_masks,
)
from tests.curation.motion_cases import MINE, line, one


def bimanual(seed: int = 7, length: int = 300, lead: int = 2) -> dict[str, ArmPath]:
    """Two arms whose state follows the command `lead` timesteps later."""
    arms = {}
    for index, side in enumerate(("left", "right")):
        poses = recorded(smooth_arm(40, seed + index), length / 10 + 1, 30)
        arms[side] = arm_of(
            poses[:length],
            command_m=poses[lead : length + lead, :3, 3],
            command_rotmat=poses[lead : length + lead, :3, :3],
        )
    return arms


@pytest.mark.parametrize(("shift", "lag_s"), [(0, 0.2), (3, 0.5), (-3, -0.1)])
def test_lag_finds_a_time_shift(shift: int, lag_s: float) -> None:
    view = view_of({"left": bimanual(lead=2 + shift)["left"]}) if shift > -2 else None
    if view is None:  # actions three steps late: padded with the first
        arm = bimanual(lead=2)["left"]
        late = np.concatenate([np.repeat(arm.command_m[:1], 3, axis=0), arm.command_m[:-3]])  # type: ignore[index]
        view = view_of({"left": replace(arm, command_m=late)})
    told = numbers(view, "command")
    assert told["action_lag_s"] == pytest.approx(lag_s)
    assert told["tracking_error_m"] == pytest.approx(0.0, abs=2e-3)


def test_achieved_action_is_the_next_state_and_a_copy_is_the_state() -> None:
    poses = recorded(smooth_arm(40, 7), 30, 30)
    achieved = numbers(view_of({"left": arm_of(poses)}), "command")
    assert (achieved["action_is_next_state"], achieved["action_is_copy"]) == (1.0, 0.0)
    assert (achieved["action_lag_s"], achieved["tracking_error_m"]) == (0.1, 0.0)
    copied = arm_of(poses, command_m=poses[:, :3, 3], command_rotmat=poses[:, :3, :3])
    told = numbers(view_of({"left": copied}), "command")
    assert (told["action_is_next_state"], told["action_is_copy"]) == (0.0, 1.0)
    assert told["action_lag_s"] == 0.0


def test_tracking_error_by_hand() -> None:
    """5 cm and 0.1 rad beside the next state, always."""
    poses = recorded(smooth_arm(40, 7), 30, 30)
    beside = rotmat_from_rotvec([0.0, 0.1, 0.0])
    arm = arm_of(
        poses,
        command_m=np.array([0.0, 0.0, 0.05]) + following(poses[:, :3, 3]),
        command_rotmat=following(poses[:, :3, :3]) @ beside,
    )
    told = numbers(view_of({"left": arm}), "command")
    assert told["tracking_error_m"] == pytest.approx(0.05, rel=0.1)
    assert told["tracking_error_rad"] == pytest.approx(0.1, rel=0.1)


def test_raw_command_at_its_bounds() -> None:
    """A sine cut at +-0.8 by hand: 2 asin(0.8) / pi of a cycle is inside; zero as a bound and switches do not count."""
    t = np.arange(1000)
    cut = np.clip(np.sin(0.0618 * t), -0.8, 0.8)
    raw = np.stack([cut, np.maximum(np.sin(0.05 * t), 0.0), t % 2], axis=1)
    extras = {
        "action.raw": (("a", "b", "c"), raw),
        "observation.joint_position_rad": (("j",), raw[:, :1]),
    }
    view = view_of({}, extras=extras)
    view = with_masks(view, "action.valid", {"raw_command": np.ones(1000)})
    view = with_masks(view, "observation.valid", {"joint_position_rad": np.ones(1000)})
    told = numbers(view, "columns")
    assert told["command_clipped_share"] == pytest.approx(1 - 2 * np.arcsin(0.8) / np.pi, abs=0.01)
    assert told["raw_is_copy"] == 0.0  # one element of three is a copy: not the median
    free = {**extras, "action.raw": (("a",), np.sin(0.0618 * t)[:, None])}
    inside = with_masks(view_of({}, extras=free), "action.valid", {"raw_command": np.ones(1000)})
    assert numbers(inside, "columns")["command_clipped_share"] == 0.0
    only = view_of({}, extras={**extras, "action.raw": (("a",), raw[:, :1])})
    only = with_masks(only, "action.valid", {"raw_command": np.ones(1000)})
    assert numbers(only, "columns")["raw_is_copy"] == 1.0


def test_the_worst_arm_is_told() -> None:
    """Leads of 0 and 1 timesteps: 0 is the odd one. Straight and crooked: crooked. One rests: that is no rest."""
    arms = {"left": bimanual(lead=0)["left"], "right": bimanual(lead=1)["right"]}
    assert numbers(view_of(arms), "command")["action_lag_s"] == 0.0
    opening = np.where(np.arange(41) < 20, 1.0, 0.0)
    straight = ArmPath(position_m=line((0, 0.0), (40, 0.4)), opening=opening)
    crooked = ArmPath(position_m=line((0, 0.0), (10, 0.2), (19, 0.0), (40, 0.4)), opening=opening)
    told = numbers(view_of({"left": straight, "right": crooked}), "endpoints")
    assert told["path_efficiency"] == pytest.approx(
        numbers(view_of({"right": crooked}), "endpoints")["path_efficiency"]
    )
    rests = ArmPath(position_m=line((0, 0.0), (40, 0.0)))
    assert numbers(view_of({"left": straight, "right": rests}), "motion")["idle_share"] == 0.0


def test_stride_of_slow_sources() -> None:
    """3 Hz: 3.33 timesteps are up to 4; 5 Hz 2; 10 Hz and 30 Hz 1."""
    arm = ArmPath(position_m=line((0, 0.0), (40, 0.4)))
    for source_hz, stride in ((3.0, 4), (5.0, 2), (10.0, 1), (30.0, 1)):
        (found_arm,) = view_of({"left": arm}, row={"source_rate_hz": source_hz}).arms
        assert found_arm.stride == stride
        assert found_arm.thinned.rate_hz == (2.5 if stride == 4 else 10.0)


def test_swapped_arms() -> None:
    arms = bimanual()
    own = numbers(view_of(arms), "swap")["arms_swapped"]
    swapped = {
        side: replace(
            arms[side], command_m=arms[other].command_m, command_rotmat=arms[other].command_rotmat
        )
        for side, other in (("left", "right"), ("right", "left"))
    }
    other = numbers(view_of(swapped), "swap")["arms_swapped"]
    assert own < -0.7
    assert other == pytest.approx(-own, abs=1e-6)
    assert numbers(view_of({"left": arms["left"]}), "swap")["arms_swapped"] is None


def test_repeats_by_loops() -> None:
    rows = np.random.default_rng(5).normal(size=(100, 4))
    rows[60:75] = rows[10:25]
    rows[29:55] = rows[29]  # rest is no repeat
    rows[80:97] = np.tile(rows[80:85], (4, 1))[:17]  # nor is what it overlaps
    expected = np.zeros(100, dtype=bool)
    for k in range(91):
        window = rows[k : k + 10]
        if (window[1:] != window[:-1]).any(axis=1).sum() >= 5 and any(
            (rows[j : j + 10] == window).all() for j in range(k - 9)
        ):
            expected[k : k + 10] = True
    assert expected.sum() == 15
    assert expected[60:75].all()
    assert (repeated(rows, 10) == expected).all()


def test_nothing_is_read_across_a_gap() -> None:
    """The arm is 1 m elsewhere after a gap: no speed, no jump, no path; half the timesteps are believed."""
    path = np.concatenate([line((0, 0.0), (49, 0.1)), line((0, 1.0), (49, 1.1))])
    valid = np.ones(100, dtype=bool)
    valid[40:60] = False
    told = numbers(one(path, valid=valid), "motion", "limits", "validity")
    assert told["path_length_m"] == pytest.approx(0.1 * 78 / 49)
    assert told["jumps"] == 0
    assert told["speed_max_m_s"] == pytest.approx(0.1 / 49 * 10, rel=1e-3)
    assert (told["state_valid_share"], told["gap_max_s"]) == (0.8, 2.0)


def test_garbage_in_a_gap_changes_nothing() -> None:
    """Poses that are marked not valid are thrown 1 m away: no number may notice."""
    arm = bimanual()["left"]
    valid = np.ones(300, dtype=bool)
    valid[[62, 63]] = False  # 62: a window of 4 s would just fit with the two beyond
    valid[110:] = False
    thrown = arm.position_m.copy()
    thrown[~valid] += 1.0
    thrown[115:] = arm.command_m[110:-5]  # type: ignore[index]
    names = ("motion", "smoothness", "limits", "reversals", "command", "endpoints", "trajectory")
    view, other = (
        with_state(view_of({"left": replace(arm, position_m=p, valid=valid)}))
        for p in (arm.position_m, thrown)
    )
    assert numbers(view, *names) == numbers(other, *names)


def with_state(view: Any) -> Any:
    """All of its commands valid, whatever the state."""
    return replace(view, columns={**view.columns, "action.valid": np.ones((300, 2))})


def test_hands_in_a_moving_camera_have_no_motion() -> None:
    view = view_of(
        {"left": arm_of(recorded(smooth_arm(20, 1), 20, 30))}, row={"camera_motion_removed": False}
    )
    told = numbers(view, "motion", "smoothness", "limits", "command", "trajectory")
    assert set(told.values()) == {None}


def test_hand_bits() -> None:
    """Left: present 8 of 10, in_view 4 of those 8; right: always all eight."""
    names = tuple(f"{s}.{b}" for s in ("left", "right") for b in ("present", "confident", "in_view", "palm", "bones", "angles", "speed", "camera"))  # fmt: skip
    bits = np.ones((10, 16))
    bits[8:, 0] = 0
    bits[4:8, 2] = 0
    told = numbers(view_of({}, extras={"observation.hand_validity": (names, bits)}), "validity")
    assert told["hand_valid_share"] == 1.0
    assert told["hand_valid_share_worst"] == pytest.approx(0.4)
    assert told["hand_worst_bit_share"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", MINE)
def test_tiny_and_empty_episodes(name: str) -> None:
    for length in (1, 2, 3, 11, 21):
        arm = ArmPath(
            position_m=line((0, 0.0), (length, 1.0))[:length], opening=np.linspace(0, 1, length)
        )
        found(view_of({"left": arm, "right": arm}), name)
        found(one(arm.position_m, valid=np.zeros(length, dtype=bool)), name)
    assert all(m.value is None or name == "length" for m in found(view_of({}, extras={"observation.valid": (("x",), np.ones((5, 1)))}), name))  # fmt: skip
