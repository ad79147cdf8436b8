"""Smoothness, limits, gripper and end points: published and hand-worked values, and plain loops as oracles."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.curation.measurements.arm import switches
from ingest.curation.measurements.each.smoothness import log_dimensionless_jerk, spectral_arc_length
from schemas.geometry import Array, rotmat_from_rotvec
from tests.curation.arms import (
    ArmPath,
    arm_of,
    found,
    intervals,
    minimum_jerk,
    numbers,
    recorded,
    smooth_arm,
    view_of,
    with_masks,
)
from tests.curation.motion_cases import AHEAD, ORIGIN, line, one


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


def test_rests_at_the_ends_are_in_seconds() -> None:
    """At 10 Hz: 3 s of rest, 2 s of way, 4 s of rest."""
    told = numbers(one(line((0, 0.0), (30, 0.0), (50, 0.4), (90, 0.4))), "motion")
    assert told["idle_head_s"] == pytest.approx(3.0, abs=0.3)
    assert told["idle_tail_s"] == pytest.approx(4.0, abs=0.3)


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
