"""A MANO fit finds the hand that made the points, and its residual tells when there is none."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.raw import mano_model as generator
from benchmarks.raw.mano_model import finger_rotvec
from ingest.models.mano import ManoHand, ManoHands
from ingest.models.mano_fit import ManoFit, fit_mano
from jobs.demo.raw.hand_scene import HandScene
from schemas.errors import SourceError
from schemas.geometry import geodesic_rad
from schemas.hand_track import ManoPose

pytest.importorskip("smplx")
ALL = np.ones(21, dtype=bool)
TIMES_S = np.arange(6) / 10


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> ManoHands:
    return ManoHands.open(generator.write(tmp_path_factory.mktemp("mano")), fingertips="smplx")


def truth(side: str) -> ManoPose:
    scene = HandScene()
    poses = np.stack([scene.T_world_wrist(t, side) for t in TIMES_S])
    return ManoPose(
        global_orient=poses[:, :3, :3],
        trans_m=poses[:, :3, 3],
        trans_is="wrist",
        betas=np.array([0.8, -0.5, *[0.0] * 8]),
        hand_axis_angle_rad=np.stack([finger_rotvec(scene, t, side).reshape(45) for t in TIMES_S]),
        is_flat_hand_mean=True,
    )


def points_of(hand: ManoHand, side: str) -> np.ndarray:
    return hand.joints21_and_wrist(truth(side))[0]


@pytest.mark.parametrize(
    ("side", "steps"),
    [("right", 150), pytest.param("left", 400, marks=pytest.mark.slow)],
)
def test_the_hand_that_made_the_points_is_found(hands: ManoHands, side: str, steps: int) -> None:
    hand, wanted = hands.hand(side), truth(side)
    fit = fit_mano(hand, points_of(hand, side), ALL, steps=steps)
    assert fit.accepted.all()
    assert fit.mean_m.max() < 0.001
    assert fit.largest_m.max() < 0.002
    assert np.abs(fit.mano.trans_m - wanted.trans_m).max() < 0.002
    off_rad = geodesic_rad(fit.mano.global_orient, wanted.global_orient)
    assert np.rad2deg(off_rad).max() < 2.0


def test_missing_points_have_no_say(hands: ManoHands) -> None:
    hand = hands.hand("right")
    points = points_of(hand, "right")
    has = np.ones((len(points), 21), dtype=bool)
    has[:, 8] = False
    points[:, 8] = 7.0
    points[2, 12] = np.nan
    fit = fit_mano(hand, points, has, steps=60)
    assert fit.accepted.all()
    assert fit.largest_m.max() < 0.005


def test_points_that_are_no_hand_are_not_accepted(hands: ManoHands) -> None:
    hand = hands.hand("right")
    points = points_of(hand, "right")
    points[3, 8] += [0.0, 0.3, 0.0]
    points[4] = (points[4] - points[4, 0]) * 2 + points[4, 0]
    fit = fit_mano(hand, points, ALL, steps=60)
    assert fit.largest_m[3] > 0.02
    assert not fit.accepted[[3, 4]].any()


def test_the_other_hand_fits_worse(hands: ManoHands) -> None:
    """The side comes from the source; a fit with the wrong one is not accepted."""
    fit = fit_mano(hands.hand("left"), points_of(hands.hand("right"), "right"), ALL, steps=60)
    assert not fit.accepted.any()


def test_without_a_palm_there_is_no_start(hands: ManoHands) -> None:
    hand, has = hands.hand("right"), ALL.copy()
    has[[1, 5, 9]] = False
    with pytest.raises(SourceError, match="frame 0 has too few palm points"):
        fit_mano(hand, points_of(hand, "right"), has)


def test_a_fit_is_accepted_below_5_mm_on_average_and_20_mm_at_worst() -> None:
    mean_m, largest_m = (
        np.array([0.004, 0.004, 0.006, 0.006]),
        np.array([0.019, 0.021, 0.019, 0.021]),
    )
    fit = ManoFit(mano=truth("right"), mean_m=mean_m, largest_m=largest_m)
    assert fit.accepted.tolist() == [True, False, False, False]
