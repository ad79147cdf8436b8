"""What the source's own clocks and commands say: rates, gaps, absolute or delta, and which end of a gripper is open."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ingest.check import Check, Verdict
from ingest.doctor.stream_checks import clock_checks, command_checks, xyz_triples
from ingest.recipe import Recipe
from schemas.action_probe import Motion, compare, opening_correlation
from schemas.episode import (
    Episode,
    EpisodeRef,
    Stream,
    Unit,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.fact import Certainty, fact

RECIPE = Recipe()
PASS, FAIL, SILENT = Verdict.PASS, Verdict.FAIL, Verdict.NOT_MEASURABLE
PERIOD_NS = 50_000_000
T_NS = np.arange(120, dtype=np.int64) * PERIOD_NS
JAWS = np.interp(T_NS, [1e9, 1.5e9, 3e9, 3.5e9], [1.0, 0.0, 0.0, 1.0])


def way(t_ns: np.ndarray) -> np.ndarray:
    """[N, 3] metres: sways about (0.4, 0, 0.3) by 10 cm, 0.1 m/s."""
    t = t_ns / 1e9
    return np.stack(
        [0.4 + 0.1 * np.sin(1.1 * t), 0.1 * np.sin(1.7 * t + 1), 0.3 + 0.05 * t], axis=1
    )


def poses(p: np.ndarray) -> np.ndarray:
    T = np.tile(np.eye(4), (len(p), 1, 1))
    T[:, :3, 3] = p
    return T


def stream(
    name: str, values: np.ndarray, t_ns: np.ndarray = T_NS, **how: tuple[str, ...]
) -> Stream:
    if name.endswith("T_base_eef"):
        return Stream(spec=pose_channel(name), t_ns=t_ns, values=values)
    if name.endswith("gripper_opening"):
        return Stream(
            spec=gripper_channel(name, binary=False), t_ns=t_ns, values=values.reshape(-1, 1)
        )
    unit = Unit.SOURCE if name == "raw_command" else Unit.RADIAN
    return Stream(spec=vector_channel(name, values.shape[1], unit, **how), t_ns=t_ns, values=values)


def checked(*streams: Stream, kind: str = "") -> dict[str, Check]:
    said = (fact("action_kind", kind, Certainty.CODE, "a test"),) if kind else ()
    episode = Episode(
        ref=EpisodeRef(source="s", dataset="s", episode_id="e", root="/"),
        embodiment="panda_hand",
        rate_hz=Fraction(20),
        streams=streams,
        facts=said,
    )
    return {c.name: c for c in command_checks(episode, RECIPE)}


# --- clocks -------------------------------------------------------------------------------------------------------------


def clocks(*pairs: tuple[str, np.ndarray], stated_hz: float = 20.0) -> dict[str, Check]:
    return {c.name: c for c in clock_checks(dict(pairs), stated_hz, RECIPE)}


def test_the_slowest_clock_has_the_stated_rate() -> None:
    found = clocks(("camera head", T_NS), ("left.T_base_eef", T_NS), ("source_state", T_NS // 2))
    assert set(found) == {"rate", "gaps of camera head and 1 more", "gaps of source_state"}
    assert (found["rate"].verdict, found["rate"].value) == (PASS, pytest.approx(20.0))
    assert "camera head and 1 more, has a median step of 50.00 ms" in found["rate"].explanation


def test_a_rate_that_the_instants_deny() -> None:
    check = clocks(("camera head", T_NS), stated_hz=30.0)["rate"]
    assert (check.verdict, check.value) == (FAIL, pytest.approx(20.0))
    assert "which is 20 Hz instead of the documented 30" in check.explanation
    assert clocks(("camera head", T_NS), stated_hz=10.0)["rate"].verdict is FAIL


def test_gaps_are_counted_and_the_longest_is_told() -> None:
    holey = np.delete(T_NS, [*range(10, 18), *range(40, 60)])
    check = clocks(("left.T_base_eef", holey))["gaps of left.T_base_eef"]
    assert (check.verdict, check.value) == (FAIL, 2)
    assert "has 2 gaps; the longest step is 1.05 s" in check.explanation
    small = np.delete(T_NS, [10, 11])
    assert clocks(("x", small))["gaps of x"].verdict is PASS  # 150 ms: nothing the recipe minds
    assert clocks(("x", T_NS[:1])) == {}


# --- commands -----------------------------------------------------------------------------------------------------------


def test_an_absolute_command_is_followed() -> None:
    state = stream("left.T_base_eef", poses(way(T_NS)))
    due = T_NS + PERIOD_NS  # stamped when due: the very next state, 5 mm short of it
    told = stream("command.left.T_base_eef", poses(way(due) + 0.005), due)
    check = checked(state, told)["commanded_position"]
    assert (check.verdict, check.side) == (PASS, "left")
    assert "comes within 0.00866 m" in check.explanation


def test_a_displacement_taken_for_a_target() -> None:
    state = stream("left.T_base_eef", poses(way(T_NS)))
    steps = way(T_NS + PERIOD_NS) - way(T_NS)
    told = stream("command.left.T_base_eef", poses(steps), T_NS + PERIOD_NS)
    check = checked(state, told)["commanded_position"]
    assert check.verdict is FAIL
    assert "is a displacement" in check.explanation


@pytest.mark.parametrize(("scale", "shift_m"), [(1000.0, 0.0), (1.0, 0.5)])
def test_a_command_in_another_unit_or_frame(scale: float, shift_m: float) -> None:
    state = stream("left.T_base_eef", poses(way(T_NS)))
    due = T_NS + PERIOD_NS
    told = stream("command.left.T_base_eef", poses(way(due) * scale + shift_m), due)
    check = checked(state, told)["commanded_position"]
    assert check.verdict is FAIL
    assert "wrong unit or frame" in check.explanation


def test_commanded_joints() -> None:
    names = ("a", "b")
    q = np.stack([np.sin(T_NS / 1e9), np.cos(T_NS / 7e8)], axis=1)
    state = stream("joint_position_rad", q, names=(*names,))
    due = T_NS + PERIOD_NS
    swapped = stream(
        "command.joint_position_rad", np.roll(q, 1, axis=1)[1:], due[:-1], names=names[::-1]
    )
    assert checked(state, swapped)["commanded_joints"].verdict is PASS  # by name, not by place
    degrees = stream("command.joint_position_rad", np.rad2deg(q[1:]), due[:-1], names=names)
    assert checked(state, degrees)["commanded_joints"].verdict is FAIL
    deltas = stream("command.joint_position_rad", np.diff(q, axis=0), due[:-1], names=names)
    assert checked(state, deltas)["commanded_joints"].verdict is FAIL
    other = stream("command.joint_position_rad", q[1:, :1], due[:-1], names=("c",))
    assert checked(state, other) == {}
    assert checked(state) == {}


def test_gripper_polarity_inverted() -> None:
    state = stream("left.gripper_opening", JAWS)
    due = T_NS + PERIOD_NS
    for asked, verdict, r in ((JAWS, PASS, 1.0), (1 - JAWS, FAIL, -1.0)):
        check = checked(state, stream("command.left.gripper_opening", asked, due))[
            "gripper_polarity"
        ]
        assert (check.verdict, check.value) == (verdict, pytest.approx(r, abs=0.05))
    still = checked(state, stream("command.left.gripper_opening", np.ones(len(due)), due))
    assert still["gripper_polarity"].verdict is SILENT
    other = np.sin(T_NS / 1e8) / 2 + 0.5
    lost = checked(state, stream("command.left.gripper_opening", other, due))["gripper_polarity"]
    assert lost.verdict is SILENT
    assert "does not follow" in lost.explanation


# --- the source's own action ------------------------------------------------------------------------------------------


RAW_NAMES = ("speed", "arm_dx", "arm_dy", "arm_dz", "arm_drx", "arm_dry", "arm_drz", "gripper")


def raw(xyz: np.ndarray) -> Stream:
    rng = np.random.default_rng([3])
    values = rng.normal(size=(len(xyz), len(RAW_NAMES)))
    values[:, 1:4] = xyz
    return stream("raw_command", values, names=RAW_NAMES)


def test_delta_or_absolute_against_what_the_facts_say() -> None:
    state = stream("left.T_base_eef", poses(way(T_NS)))
    steps = (way(T_NS + PERIOD_NS) - way(T_NS)) / 0.05  # a controller's -1..1
    targets = way(T_NS + PERIOD_NS)
    for xyz, stated, verdict in (
        (steps, "delta", PASS),
        (steps, "absolute targets", FAIL),
        (targets, "absolute targets", PASS),
        (targets, "delta of the pose", FAIL),
        (targets, "", SILENT),
        (targets, "absolute target: pose at issue plus a bounded delta", SILENT),
    ):
        check = checked(state, raw(xyz), kind=stated)["raw_command"]
        assert check.verdict is verdict, stated
        assert check.explanation.startswith("arm_dx, arm_dy, arm_dz look like eef_")
    exact = checked(state, raw(steps))["raw_command"].value
    assert exact == pytest.approx(1.0, abs=1e-6)  # of the step that follows its issue, and no other
    assert (
        "the facts state" in checked(state, raw(steps), kind="absolute")["raw_command"].explanation
    )


def test_joint_targets_are_no_position() -> None:
    state = stream("left.T_base_eef", poses(way(T_NS)))
    assert checked(state, stream("raw_command", np.ones((120, 2)), names=("q1", "q2"))) == {}
    assert xyz_triples(RAW_NAMES) == ((1, 2, 3), (4, 5, 6))
    assert xyz_triples(("x", "y")) == ()
    assert xyz_triples(("left_x", "right_y", "left_z")) == ()


# --- the numbers --------------------------------------------------------------------------------------------------------


def test_an_arm_that_reaches_out_is_told_absolute() -> None:
    """Its positions point the way it moves, so the cosine alone would call them displacements."""
    x = np.linspace(0.3, 0.6, 60)
    p = np.stack([x, 0.01 * x, 0.2 * x], axis=1)
    motion = compare(p[1:], np.diff(p, axis=0), np.zeros((59, 3)), p[1:])
    assert motion.cosine_state > 0.9
    assert motion.kind(Fraction(10)) == "eef_absolute"


def test_numbers_that_do_not_decide() -> None:
    few: Motion = compare(np.ones((5, 3)), np.ones((5, 3)), np.ones((5, 3)), np.ones((5, 3)))
    assert few.kind(None) is None
    assert not few.is_followed
    assert opening_correlation(np.zeros(0), np.zeros(0)) is None
    assert opening_correlation(np.ones(40), np.arange(40.0)) is None
    assert opening_correlation(np.arange(40.0), np.arange(40.0)) == pytest.approx(1.0)
