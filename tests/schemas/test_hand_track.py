"""A hand that breaks a rule cannot be made, and the message names side and field."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.errors import Code, ConfigError, SourceError
from schemas.hand_track import HandTrack, ManoPose

N = 4


def make(**given: Any) -> HandTrack:
    return HandTrack(
        **{
            "side": "left",
            "t_ns": np.arange(N) * 10,
            "present": np.ones(N, dtype=bool),
            "joints_m": np.zeros((N, 21, 3)),
        }
        | given
    )


def mano(**given: Any) -> ManoPose:
    return ManoPose(
        **{
            "global_orient": np.tile(np.eye(3), (N, 1, 1)),
            "trans_m": np.arange(N * 3.0).reshape(N, 3),
            "trans_is": "wrist",
            "betas": np.zeros(10),
            "hand_axis_angle_rad": np.zeros((N, 45)),
            "is_flat_hand_mean": True,
        }
        | given
    )


def not_finite() -> np.ndarray:
    joints = np.zeros((N, 21, 3))
    joints[2, 5] = np.nan
    return joints


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"joints_m": np.zeros((N, 20, 3))}, Code.SHAPE_MISMATCH, "left hand joints_m"),
        ({"present": np.ones(3, dtype=bool)}, Code.SHAPE_MISMATCH, "present"),
        ({"confidence": np.ones((N, 20))}, Code.SHAPE_MISMATCH, "confidence"),
        ({"t_ns": np.array([0, 10, 10, 30])}, Code.CLOCK_NOT_INCREASING, "sample 2"),
        ({"joints_m": not_finite()}, Code.NOT_FINITE, "sample 2"),
        (
            {"T_frame_wrist": np.tile(np.diag([1, 1, -1, 1.0]), (N, 1, 1))},
            Code.NOT_A_ROTATION,
            "deviates from a rotation matrix by",
        ),
        (
            {"joints_m": None, "mano": mano().only(np.array([1, 1, 1, 0], bool))},
            Code.SHAPE_MISMATCH,
            "3 MANO",
        ),
    ],
)
def test_what_a_source_may_get_wrong(given: dict[str, Any], code: Code, said: str) -> None:
    with pytest.raises(SourceError, match=said) as caught:
        make(**given)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"side": "middle"}, ValueError),
        ({"joints_m": None}, ValueError),
        ({"t_ns": np.arange(N) * 10.0}, TypeError),
        ({"wrist_axes": "apple"}, ConfigError),
        ({"layout": "apple"}, ConfigError),
    ],
)
def test_what_an_adapter_may_get_wrong(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make(**given)


def test_an_absent_hand_may_be_anything_and_becomes_nothing() -> None:
    present = np.array([True, True, False, True])
    T = np.tile(np.eye(4), (N, 1, 1))
    T[2] = np.nan
    hand = make(joints_m=not_finite(), present=present, T_frame_wrist=T)
    assert hand.joints_m is not None
    assert hand.T_frame_wrist is not None
    np.testing.assert_array_equal(hand.joints_m[2], 0)
    np.testing.assert_array_equal(hand.T_frame_wrist[2], np.eye(4))


def test_arrays_cannot_be_changed_afterwards() -> None:
    hand = make(mano=mano())
    assert hand.mano is not None
    for array in (hand.joints_m, hand.present, hand.t_ns, hand.mano.trans_m):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_mano_has_one_form_of_fingers() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        mano(hand_pca=np.zeros((N, 15)))
    with pytest.raises(ValueError, match="exactly one"):
        mano(hand_axis_angle_rad=None)
    with pytest.raises(ValueError, match="trans_is"):
        mano(trans_is="somewhere")
    with pytest.raises(SourceError, match="betas"):
        mano(betas=np.zeros(16))


def test_some_of_the_samples() -> None:
    rows = np.array([True, False, True, False])
    some = mano(hand_axis_angle_rad=None, hand_pca=np.arange(N * 15.0).reshape(N, 15)).only(rows)
    np.testing.assert_array_equal(some.trans_m, [[0, 1, 2], [6, 7, 8]])
    assert some.hand_pca is not None
    assert some.hand_pca.shape == (2, 15)
