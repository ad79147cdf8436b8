"""The acceptance tests of a person's hand: the scene's own hand passes, every planted mistake fails."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.check import Check, Verdict
from ingest.doctor.hand_checks import hand_checks
from ingest.doctor.staged_columns import Columns
from ingest.recipe import HandSettings
from jobs.demo.raw.hand_scene import bent_hand
from schemas.hand import joint_names

PASS, FAIL, SILENT = Verdict.PASS, Verdict.FAIL, Verdict.NOT_MEASURABLE
SETTINGS = HandSettings()
CURLS = np.linspace(0.2, 1.0, 20)


def columns(points: np.ndarray, side: str, valid: np.ndarray | None = None) -> Columns:
    """A staged state of one hand: its pose (the identity) and its 21 points."""
    names = [f"{side}.position_m.{a}" for a in "xyz"]
    names += [f"{side}.rot6d_cols.{a}" for a in ("xx", "xy", "xz", "yx", "yy", "yz")]
    names += [f"{side}.hand_keypoints_m.{joint}.{a}" for joint in joint_names() for a in "xyz"]
    pose9 = np.tile([0, 0, 0, 1.0, 0, 0, 0, 1, 0], (len(points), 1))
    parts = tuple(f"{side}.{p}" for p in ("position_m", "rot6d_cols", "hand_keypoints_m"))
    flags = np.ones((len(points), 3)) if valid is None else np.repeat(valid[:, None], 3, axis=1)
    state = np.concatenate([pose9, points.reshape(len(points), -1)], axis=1)
    return Columns(
        values={"observation.state": state, "observation.valid": flags.astype(float)},
        names={"observation.state": tuple(names), "observation.valid": parts},
    )


def hand(side: str, curls: np.ndarray = CURLS) -> np.ndarray:
    return np.stack([bent_hand(curl, side) for curl in curls])


def checked(
    points: np.ndarray, side: str, measured: dict[str, float] | None = None
) -> dict[str, Check]:
    return {c.name: c for c in hand_checks(columns(points, side), measured or {}, SETTINGS)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sound_hand_passes(side: str) -> None:
    found = checked(hand(side), side)
    assert {n: c.verdict for n, c in found.items()} == {"curl": PASS, "bones": PASS}
    assert (found["curl"].value or 0) < -30  # millimetres below the knuckles
    assert "knuckles are 92 mm from the wrist" in found["bones"].explanation


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_hand_mirrored_through_its_palm_or_turned_over(side: str) -> None:
    """A wrong mirror (y instead of x), and ARKit's left axes taken for MANO's (half a turn about the fingers)."""
    for wrong in (np.array([1.0, -1, 1]), np.array([1.0, -1, -1])):
        check = checked(hand(side) * wrong, side)["curl"]
        assert check.verdict is FAIL
        assert "back of the hand" in check.explanation


def test_a_flat_hand_says_nothing_of_its_curl() -> None:
    flat = checked(hand("right", np.zeros(20)), "right")
    assert (flat["curl"].verdict, flat["bones"].verdict) == (SILENT, PASS)
    unseen = columns(hand("right"), "right", np.zeros(20))
    assert {c.verdict for c in hand_checks(unseen, {}, SETTINGS)} == {SILENT}


def test_a_hand_in_millimetres_or_with_swapped_joints() -> None:
    found = checked(hand("right") * 1000, "right")["bones"]
    assert (found.verdict, found.value) == (FAIL, 20)
    swapped = hand("right")
    swapped[:, [5, 8]] = swapped[:, [8, 5]]  # knuckle and tip of the index finger
    check = checked(swapped, "right")["bones"]
    assert check.verdict is FAIL
    assert "wrist-index_mcp" in check.explanation


def test_the_palm_and_the_sources_own_wrist() -> None:
    sound = {
        "wrist_disagreement_deg.right": 5.0,
        "palm_scale.right": 0.95,
        "palm_fit_rms_mm.right": 4.0,
        "palm_scale.left": 9.0,  # another hand's
    }
    found = checked(hand("right"), "right", sound)
    assert {found[n].verdict for n in ("palm_against_wrist", "palm_scale", "palm_fit")} == {PASS}
    wrong = {
        "wrist_disagreement_deg.right": 90.0,
        "palm_scale.right": 1000.0,
        "palm_fit_rms_mm.right": 20.0,
    }
    found = checked(hand("right"), "right", wrong)
    assert {found[n].verdict for n in ("palm_against_wrist", "palm_scale", "palm_fit")} == {FAIL}
    assert "wrong axes" in found["palm_against_wrist"].explanation


def test_shares_are_of_the_frames_with_a_hand() -> None:
    """Present in 40 %: a bit that holds in 30 % holds in three of four frames with a hand, one of 10 % in a quarter."""
    share = "hand_pass_share.left."
    measured = {f"{share}present": 0.4, f"{share}palm": 0.3, f"{share}speed": 0.1}
    found = checked(hand("left"), "left", measured)
    assert found["frames_present"].verdict is SILENT
    assert (found["frames_palm"].verdict, found["frames_palm"].value) == (PASS, 0.3)
    assert found["frames_speed"].verdict is FAIL
    assert "only 25% of the frames with a left hand" in found["frames_speed"].explanation
    absent = checked(hand("left"), "left", {f"{share}present": 0.0, f"{share}palm": 0.0})
    assert absent["frames_palm"].verdict is SILENT
