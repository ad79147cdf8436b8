"""Motion and action measures: published and hand-worked values, plain loops as oracles, invariances, and faults put in on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ingest.curation.arm import switches
from ingest.curation.measure.replay import repeated
from ingest.curation.measure.smoothness import log_dimensionless_jerk, spectral_arc_length
from ingest.curation.measures import measures
from schemas.geometry import Array, rotmat_from_rotvec
from tests.curation.arms import (
    ArmPath,
    arm_of,
    following,
    found,
    intervals,
    minimum_jerk,
    numbers,
    recorded,
    smooth_arm,
    view_of,
    with_masks,
)

MINE = (
    "motion",
    "smoothness",
    "limits",
    "reversals",
    "gripper",
    "command",
    "columns",
    "validity",
    "length",
    "endpoints",
    "swap",
    "replay",
    "trajectory",
)
ORIGIN, AHEAD = np.zeros(3), np.array([0.3, 0.0, 0.0])


def line(*knots: tuple[int, float], axis: int = 0) -> Array:
    """[K, 3] straight lines between (timestep, metres) along an axis."""
    at, metres = zip(*knots, strict=True)
    out = np.zeros((at[-1] + 1, 3))
    out[:, axis] = np.interp(np.arange(at[-1] + 1), at, metres)
    return out


def one(position_m: Array, **more: Any) -> Any:
    return view_of({"left": ArmPath(position_m=position_m, **more)})


# Smoothness


def test_published_values() -> None:
    """The doctests of siva82kb/smoothness: a Gaussian speed profile at 100 Hz, cut off at 10 Hz."""
    t = np.arange(-1, 1, 0.01)
    speed = np.exp(-5 * t**2)
    sparc = spectral_arc_length(speed[None], 100.0, 10.0)
    assert sparc[0] == pytest.approx(-1.41403, abs=5e-6)
    jerk = np.abs(np.diff(speed, 2)) * 100**2
    assert log_dimensionless_jerk(jerk[None], speed[None], 100.0)[0] == pytest.approx(
        -5.81636, abs=5e-6
    )


def test_spectral_arc_length_by_a_loop() -> None:
    speed = np.abs(np.random.default_rng(1).normal(0.1, 0.05, 37))
    size = 64 * 16
    amplitude = [
        abs(sum(v * np.exp(-2j * np.pi * k * n / size) for n, v in enumerate(speed)))
        for k in range(size // 2 + 1)
    ]
    amplitude = [a / max(amplitude) for a in amplitude]
    last = max(k for k, a in enumerate(amplitude) if a >= 0.05)
    expected = -sum(np.hypot(1 / last, amplitude[k + 1] - amplitude[k]) for k in range(last))
    assert spectral_arc_length(speed[None], 10.0)[0] == pytest.approx(expected)


def test_sine() -> None:
    """x = A sin(w t): acceleration A w^2 / sqrt 2; LDLJ over T is -ln(T^4 w^4 / 2) whatever A: at 0.25 Hz and 4 s -6.66."""
    w, A = 2 * np.pi * 0.25, 0.2
    t = np.arange(400) / 10
    x = one(np.stack([A * np.sin(w * t), 0 * t, 0 * t], axis=1))
    told = numbers(x, "smoothness", "reversals")
    assert told["acc_rms_m_s2"] == pytest.approx(A * w**2 / np.sqrt(2), rel=0.01)
    assert told["ldlj_4s"] == pytest.approx(-np.log(4**4 * w**4 / 2), rel=0.02)
    assert told["reversals_per_s"] == pytest.approx(0.5, abs=0.026)  # twice a period


def test_long_is_not_jerky() -> None:
    """The same reach 3 and 30 times: over the whole episode LDLJ would fall by ln 10^4 = 9."""
    there, back = minimum_jerk(ORIGIN, AHEAD, 20), minimum_jerk(AHEAD, ORIGIN, 20)
    reach = np.concatenate([there[:-1], back[:-1]])
    short, long = (numbers(one(np.tile(reach, (n, 1))), "smoothness") for n in (3, 30))
    assert short["ldlj_4s"] == pytest.approx(long["ldlj_4s"], rel=0.01)
    assert short["sparc_4s"] == pytest.approx(long["sparc_4s"], rel=0.02)


def test_still_arm_has_no_smoothness() -> None:
    noise = np.random.default_rng(2).normal(0, 1e-5, (200, 3))
    told = numbers(one(noise), "smoothness", "reversals", "motion", "command")
    for name in ("sparc", "sparc_4s", "ldlj_4s", "acc_rms_m_s2", "reversals_per_s", "action_lag_s"):
        assert told[name] is None
    assert told["idle_share"] == 1.0


def test_slow_sources() -> None:
    """5 Hz on a 10 Hz grid is straight lines with kinks: neither jerky, nor is a jump two calm steps."""
    pose = smooth_arm(60, 5)
    fine, coarse = recorded(pose, 60, 30), recorded(pose, 60, 5)
    row = {"source_rate_hz": 5.0}
    truth = numbers(view_of({"left": arm_of(fine)}), "smoothness", "limits")
    taken = numbers(view_of({"left": arm_of(coarse)}, row=row), "smoothness", "limits")
    for name in ("acc_rms_m_s2", "acc_max_m_s2", "ldlj_4s", "sparc", "sparc_4s"):
        assert taken[name] == pytest.approx(truth[name], rel=0.06)
    coarse[100:, 0, 3] += 0.3  # between source samples 49 and 50
    coarse[99, 0, 3] += 0.15
    jumped = view_of({"left": arm_of(coarse)}, row=row)
    assert intervals(jumped, "limits", "jump_z") == [(98, 101)]


# Limits, gripper, end points


def test_limits_by_hand() -> None:
    """40 cm in one step is 4 m/s; a quarter turn in one step 15.7 rad/s; 2 of 50 steps are over."""
    path = line((0, 0.0), (20, 0.0), (21, 0.4), (22, 0.8), (50, 0.8))
    turn = rotmat_from_rotvec(np.outer(np.arange(51) >= 40, [0, 0, np.pi / 2]))
    joints = (("j",), np.linspace(0, 1.0, 51)[:, None])
    view = view_of(
        {"left": ArmPath(position_m=path, rotmat=turn)},
        extras={"observation.joint_position_rad": joints},
    )
    view = with_masks(view, "observation.valid", {"joint_position_rad": np.ones(51)})
    told = numbers(view, "limits", "motion")
    assert told["speed_max_m_s"] == pytest.approx(4.0)
    assert told["turn_rate_max_rad_s"] == pytest.approx(np.pi / 2 * 10)
    assert told["over_limit_share"] == pytest.approx(2 / 50)
    assert told["acc_max_m_s2"] == pytest.approx(20.0)  # 4 m/s in a step, averaged 1, 2, 1
    assert told["joint_speed_max_rad_s"] == pytest.approx(0.2, rel=1e-4)


def test_a_swift_movement_is_no_jump_and_a_jump_is() -> None:
    swift = np.concatenate([minimum_jerk(ORIGIN, AHEAD, 10), np.tile(AHEAD, (40, 1))])
    assert numbers(one(swift), "limits")["jumps"] == 0
    reach = np.concatenate([minimum_jerk(ORIGIN, 2 * AHEAD, 5), np.tile(2 * AHEAD, (40, 1))])
    assert numbers(one(reach), "limits")["jumps"] == 0  # 60 cm in half a second, in whatever phase
    jump = swift.copy()
    jump[30:] += [0, 0.1, 0]
    assert intervals(one(jump), "limits", "jump_z") == [(29, 31)]
    glitch = swift.copy()
    glitch[30] += [0, 0.1, 0]
    told = numbers(one(glitch), "limits")
    assert told["jumps"] == 2  # there and back
    rest = one(np.where(np.arange(60)[:, None] >= 30, [0.0, 0.1, 0.0], 0.0))
    # excess 0.1 m over the least scale of 3 mm, halved by the turn that does not jump
    assert numbers(rest, "limits")["jump_z_max"] == pytest.approx(0.1 / 0.003 / 2)


def loop_toggles(opening: Array) -> list[int]:
    state, at = None, []
    for k, value in enumerate(opening):
        now = "open" if value > 0.7 else "closed" if value < 0.3 else state
        if state is not None and now != state:
            at.append(k)
        state = now
    return at


def test_toggles_by_a_loop() -> None:
    opening = np.random.default_rng(3).uniform(0, 1, 300)
    level = (opening > 0.7).astype(np.int8) - (opening < 0.3).astype(np.int8)
    at, to = switches(level)
    assert at.tolist() == loop_toggles(opening)
    assert (to == np.where(opening[at] > 0.7, 1, -1)).all()


def test_noise_between_the_thresholds_is_no_toggle() -> None:
    path = line((0, 0.0), (99, 0.5))
    opening = 0.5 + 0.19 * np.sin(np.arange(100))
    opening[:2] = 0.0, 1.0
    told = numbers(one(path, opening=opening), "gripper")
    assert told["gripper_toggles_per_s"] == pytest.approx(0.1)  # at 1, and none since


def test_jaws_that_stop_at_a_thing_are_closed() -> None:
    """Shut to 0.45, as far as it goes: closed under 0.45 + 0.3 x 0.55 = 0.615. Of a way of 0.2 nothing can be said."""
    opening = np.ones(100)
    opening[20:25] = opening[35:] = 0.45
    told = numbers(one(line((0, 0.0), (99, 0.0)), opening=opening), "gripper")
    assert told["gripper_toggles_per_s"] == pytest.approx(0.3)
    told = numbers(one(line((0, 0.0), (99, 0.0)), opening=0.8 + 0.2 * (opening > 0.5)), "gripper")
    assert told["gripper_toggles_per_s"] == 0.0


def test_regrasp_is_an_interval_and_transport_is_none() -> None:
    """Closed at 20, open at 25, closed at 35: 1.5 s in one place; the same on a way of 30 cm is two grasps."""
    opening = np.ones(100)
    opening[20:25] = opening[35:] = 0.0
    still = one(line((0, 0.0), (15, 0.3), (99, 0.3)), opening=opening)
    assert intervals(still, "gripper", "regrasp") == [(20, 36)]
    assert [m.value for m in found(still, "gripper") if m.name == "regrasp"] == [1.5]
    moving = one(line((0, 0.0), (99, 2.0)), opening=opening)
    assert numbers(moving, "gripper")["regrasps"] == 0
    late = np.ones(300)
    late[20:25] = late[170:] = 0.0  # 15 s after the first closing, then 15.1 s
    place = line((0, 0.0), (299, 0.0))
    assert intervals(one(place, opening=late), "gripper", "regrasp") == [(20, 171)]
    late[170] = 1.0
    assert numbers(one(place, opening=late), "gripper")["regrasps"] == 0


@pytest.mark.parametrize(
    ("up_m", "opened_m", "first", "count"),
    [
        (0.10, 0.0, 0.25, 1),  # lifted by 10 cm, put back, taken again: 4 s
        (0.20, 0.0, 0.25, 0),  # used up there, then put back
        (0.10, 0.06, 0.25, 0),  # let go 6 cm away: transported
        (0.20, 0.20, 0.0, 1),  # shut on nothing, opened aloft, back again
        (0.20, 0.20, 0.21, 0),  # 0.04 thinner is a thing all the same
    ],
)
def test_a_try_is_told_by_its_places_and_by_what_is_held(
    up_m: float, opened_m: float, first: float, count: int
) -> None:
    height = np.interp(np.arange(100), [0, 20, 30, 40, 55, 99], [0, 0, up_m, opened_m, 0, 0])
    opening = np.ones(100)
    opening[20:40], opening[60:] = first, 0.25
    path = height[:, None] * np.array([0.0, 0.0, 1.0])
    assert numbers(one(path, opening=opening), "gripper")["regrasps"] == count


def test_an_estimate_that_wanders_rests_and_a_slow_hand_does_not() -> None:
    """A pause of 3 s amid moves: off by a slow millimetre it is found as without; creeping at 2 cm/s is no rest."""
    moves = np.concatenate(
        [minimum_jerk(ORIGIN, AHEAD, 20), np.tile(AHEAD, (30, 1)), minimum_jerk(AHEAD, ORIGIN, 20)]
    )
    rng, keep = np.random.default_rng(1), np.exp(-0.2)
    wander = rng.normal(0, 0.001, moves.shape)
    for k in range(1, len(wander)):
        wander[k] = keep * wander[k - 1] + np.sqrt(1 - keep**2) * wander[k]
    (clean,) = intervals(one(moves), "motion", "pause_dead_s")
    (found_,) = intervals(one(moves + wander), "motion", "pause_dead_s")
    assert np.abs(np.array(found_) - clean).max() <= 4
    creeping = moves + np.arange(len(moves))[:, None] * [0.0, 0.002, 0.0]
    assert intervals(one(creeping), "motion", "pause_s") == []
    shaken = moves + rng.normal(0, 0.005, moves.shape)
    assert (
        intervals(one(shaken), "motion", "pause_s") == []
    )  # the error widens the limit to the double, not to any size


def test_dead_time_is_beyond_the_usual_stop_of_the_same_demonstrator() -> None:
    """Stops of 1.2 s at three places, then one of 1.7 s: not 0.8 s more than usual; one of 3 s is. Alone 1.7 s is dead."""

    def stopping(*seconds: float) -> list[tuple[int, int]]:
        places = [ORIGIN if k % 2 else AHEAD for k in range(len(seconds) + 1)]
        parts = [minimum_jerk(ORIGIN, places[0], 10)]
        for stop, here, there in zip(seconds, places, places[1:], strict=False):
            parts += [np.tile(here, (round(stop * 10), 1)), minimum_jerk(here, there, 10)]
        return intervals(one(np.concatenate(parts)), "motion", "pause_dead_s")

    assert len(stopping(1.2, 1.2, 1.2, 1.7)) == 0
    assert len(stopping(1.2, 1.2, 1.2, 3.0)) == 1
    assert len(stopping(1.7)) == 1
    assert len(stopping(2.5, 2.5, 2.5, 2.5)) == 4  # who stalls again and again has no right to it


def test_chatter_by_hand() -> None:
    """Toggles at 50, 52, ..., 60: six in [50, 61), 5.45 a second there, 0.6 a second over 10 s."""
    opening = np.ones(100)
    opening[50:52] = opening[54:56] = opening[58:60] = 0.0
    view = one(line((0, 0.0), (99, 0.5)), opening=opening)
    (row,) = [m for m in found(view, "gripper") if m.name == "gripper_chatter"]
    assert (row.start, row.end) == (50, 61)
    assert row.value == pytest.approx(6 / 1.1)
    assert numbers(view, "gripper")["gripper_toggles_per_s"] == pytest.approx(0.6)


def test_path_efficiency_is_between_toggles() -> None:
    """There straight (1) and back by a detour of a right angle (0.3 + 0.4 for 0.5): (0.5 + 0.5) / (0.5 + 0.7)."""
    path = np.concatenate(
        [
            np.linspace([0, 0, 0], [0.3, 0.4, 0], 21),
            np.linspace([0.3, 0.4, 0], [0.0, 0.4, 0], 11)[1:],
            np.linspace([0.0, 0.4, 0], [0.0, 0.0, 0], 11)[1:],
        ]
    )
    opening = np.where(np.arange(41) < 20, 1.0, 0.0)
    told = numbers(one(path, opening=opening), "endpoints")
    assert told["path_efficiency"] == pytest.approx(1.0 / 1.2, rel=1e-5)
    assert numbers(one(path, opening=np.ones(41)), "endpoints")["path_efficiency"] is None


def test_a_cut_recording_ends_in_motion() -> None:
    whole = np.concatenate([minimum_jerk(ORIGIN, AHEAD, 40), np.tile(AHEAD, (20, 1))])
    told, cut = numbers(one(whole), "endpoints"), numbers(one(whole[:21]), "endpoints")
    assert told["end_speed_m_s"] == pytest.approx(0.0, abs=1e-6)
    assert cut["end_speed_m_s"] == pytest.approx(0.3 / 4 * 1.875, rel=0.1)  # the top of the bell
    assert told["end_spread_m"] < cut["end_spread_m"]
    rng = np.random.default_rng(4)
    trembles = one(whole + rng.normal(0, 0.01, whole.shape))  # 1 cm there and back is no way
    assert numbers(trembles, "endpoints")["end_speed_m_s"] < 0.04


# Commands


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


# Gaps, hands, nothing


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


# Invariance: no number changes by more than 5 % (quality_signals.md 5)


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


# Injected faults move the right number, and it is far from where it was


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
