"""Hand tables and palm geometry, against hand-worked values, the independent scene and scipy's own Kabsch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jobs.demo.raw.hand_scene import PALM_RIGHT, bent_hand
from schemas.errors import ConfigError
from schemas.geometry import geodesic_rad, transform
from schemas.hand import (
    PALM,
    Layout,
    WristAxes,
    filled_thumb_cmc,
    fingertip_vertices,
    fit_palm,
    from_wrist_frame,
    in_wrist_frame,
    joint_names,
    joint_parents,
    keypoints21,
    layout,
    mirrored_points,
    palm_template,
    wrist_axes,
)

SIDES = ("left", "right")
ALL = np.ones(21, dtype=bool)
R = Rotation.from_euler("xyz", [0.3, -0.7, 1.1]).as_matrix()
P = np.array([0.4, -0.2, 1.1])


def placed(points: np.ndarray) -> np.ndarray:
    return (points @ R.T + P)[None]


# --- tables -------------------------------------------------------------------------------------------------------------


def test_the_21_are_a_tree_from_the_wrist() -> None:
    names, parents = joint_names(), joint_parents()
    assert names[0] == "wrist"
    assert names[4::4] == ("thumb_tip", "index_tip", "middle_tip", "ring_tip", "pinky_tip")
    assert parents[0] == -1
    assert all(parent < joint for joint, parent in enumerate(parents))
    assert [parents[f] for f in (1, 5, 9, 13, 17)] == [0] * 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # canonical wrist, thumb CMC, thumb tip, index MCP, pinky tip by the source's own names
        ("arkit25", ("Hand", "ThumbKnuckle", "ThumbTip", "IndexFingerKnuckle", "LittleFingerTip")),
        ("openxr26", ("Wrist", "ThumbMetacarpal", "ThumbTip", "IndexProximal", "PinkyTip")),
        (
            "webxr25",
            (
                "wrist",
                "thumb-metacarpal",
                "thumb-tip",
                "index-finger-phalanx-proximal",
                "pinky-finger-tip",
            ),
        ),
        ("aria_mps21", ("wrist", None, "thumb_tip", "index_proximal", "pinky_tip")),
        ("interhand21", ("wrist", "thumb_cmc", "thumb_tip", "index_mcp", "pinky_tip")),
    ],
)
def test_layouts_by_name(name: str, expected: tuple[str | None, ...]) -> None:
    """egohub takes the metacarpal for the MCP: here it would be `IndexFingerMetacarpal`."""
    order = layout(name)
    found = [order.to21[i] for i in (0, 1, 4, 5, 20)]
    assert tuple(None if i is None else order.names[i] for i in found) == expected


def test_keypoints_are_reordered_and_what_is_missing_is_said() -> None:
    joints = np.arange(21.0)[None, :, None] * np.ones((2, 1, 3))
    points, has = keypoints21(joints, "aria_mps21")
    assert np.flatnonzero(~has).tolist() == [1]
    assert points[0, :, 0].tolist() == [
        5,
        0,
        6,
        7,
        0,
        8,
        9,
        10,
        1,
        11,
        12,
        13,
        2,
        14,
        15,
        16,
        3,
        17,
        18,
        19,
        4,
    ]


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ConfigError, match="arkit25"):
        layout("apple")
    with pytest.raises(ConfigError, match="openxr"):
        wrist_axes("apple")
    with pytest.raises(ConfigError, match="manopth"):
        fingertip_vertices("apple", "left")
    with pytest.raises(ConfigError, match="webxr"):
        palm_template("left", "apple")


def test_tables_refuse_what_is_no_map_and_no_rotation() -> None:
    good = layout("arkit25").model_dump()
    with pytest.raises(ValueError, match="twice"):
        Layout(**good | {"to21": (0, *good["to21"][:-1])})
    with pytest.raises(ValueError, match="indices and names must match"):
        Layout(**good | {"count": 20})
    mirror = ((-1, 0, 0), (0, 1, 0), (0, 0, 1))
    with pytest.raises(ValueError, match="det"):
        WristAxes(**wrist_axes("mano").model_dump() | {"left": mirror})


def test_the_two_fingertip_sets_differ_in_every_finger() -> None:
    for side in SIDES:
        a, b = fingertip_vertices("smplx", side), fingertip_vertices("manopth", side)
        assert all(x != y for x, y in zip(a, b, strict=True))
    assert fingertip_vertices("manopth", "left")[2] == 445
    assert fingertip_vertices("manopth", "right")[2] == 444


@pytest.mark.parametrize(
    ("name", "side", "native_fingers", "native_palm"),
    [
        # which way the fingers and the palm point in the source's own wrist axes, as its documents say
        ("arkit", "right", [-1, 0, 0], [0, -1, 0]),
        ("arkit", "left", [1, 0, 0], [0, 1, 0]),
        ("openxr", "right", [0, 0, -1], [0, -1, 0]),
        ("openxr", "left", [0, 0, -1], [0, -1, 0]),
        ("holoassist_psi", "right", [1, 0, 0], [0, 0, -1]),
        ("holoassist_psi", "left", [1, 0, 0], [0, 0, -1]),
        ("human_policy", "right", [0, -1, 0], [-1, 0, 0]),
        ("dex_retargeting", "left", [-1, 0, 0], [0, 1, 0]),
    ],
)
def test_wrist_axes_say_where_fingers_and_palm_point(
    name: str, side: str, native_fingers: list[int], native_palm: list[int]
) -> None:
    R_src_wrist = wrist_axes(name).T_src_wrist(side)[:3, :3]
    fingers = [-1, 0, 0] if side == "right" else [1, 0, 0]
    np.testing.assert_allclose(R_src_wrist @ fingers, native_fingers)
    np.testing.assert_allclose(R_src_wrist @ [0, -1, 0], native_palm)


# --- palm ---------------------------------------------------------------------------------------------------------------


def test_the_template_is_the_format_pages() -> None:
    np.testing.assert_allclose(palm_template("right"), [PALM_RIGHT[i] for i in PALM])
    np.testing.assert_allclose(palm_template("left"), palm_template("right") * [-1, 1, 1])
    assert np.isnan(palm_template("right", "aria")[1]).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("curl_rad", [0.0, 0.6])
def test_the_wrist_frame_of_a_palm(side: str, curl_rad: float) -> None:
    fit = fit_palm(placed(bent_hand(curl_rad, side)), ALL, side)
    np.testing.assert_allclose(fit.T_ref_wrist[0], transform(R, P), atol=1e-12)
    assert fit.ok.all()
    assert fit.rms_m[0] < 1e-12
    assert fit.scale[0] == pytest.approx(1)


def test_against_scipy() -> None:
    """Noise of a centimetre: the same rotation as scipy's Kabsch, one hand after the other."""
    rng = np.random.default_rng(5)
    points = np.concatenate([placed(bent_hand(0.3)) for _ in range(20)])
    points += rng.normal(scale=0.01, size=points.shape)
    fit = fit_palm(points, ALL, "right")
    template = palm_template("right")
    for k in range(20):
        Y = points[k, PALM]
        wanted, rssd = Rotation.align_vectors(Y - Y.mean(axis=0), template - template.mean(axis=0))
        assert geodesic_rad(fit.T_ref_wrist[k, :3, :3], wanted.as_matrix()) < 1e-9
        assert fit.rms_m[k] == pytest.approx(rssd / np.sqrt(6))
        np.testing.assert_allclose(fit.T_ref_wrist[k, :3, 3], Y[0])


def test_a_child_has_a_smaller_palm_not_a_wrong_one() -> None:
    fit = fit_palm(placed(0.8 * bent_hand(0.3)), ALL, "right")
    assert fit.scale[0] == pytest.approx(0.8)
    assert fit.scaled_rms_m[0] < 1e-9
    assert fit.rms_m[0] > 0.005


def test_the_thumb_root_tells_left_from_right_and_the_rest_does_not() -> None:
    """The palm is nearly flat: a fit of the other hand flips its normal. Format page: 5.3 mm without, 12.1 mm with the thumb."""
    points = placed(bent_hand(0.3, "right"))
    no_thumb = ALL.copy()
    no_thumb[1] = False
    assert fit_palm(points, no_thumb, "left").rms_m[0] < 0.006
    assert fit_palm(points, ALL, "left").rms_m[0] > 0.010


def test_too_few_points_or_a_line_are_no_palm() -> None:
    points = placed(bent_hand(0.3))
    three = np.isin(np.arange(21), [0, 5, 9])
    assert not fit_palm(points, three, "right").ok.any()
    np.testing.assert_array_equal(fit_palm(points, three, "right").T_ref_wrist[0], np.eye(4))
    line = np.linspace(0, 0.1, 21)[None, :, None] * np.array([1.0, 2.0, 3.0])
    assert not fit_palm(line, ALL, "right").ok.any()
    without_wrist = np.isin(np.arange(21), [1, 5, 9, 13, 17])
    assert not fit_palm(points, without_wrist, "right").ok.any()


def test_missing_points_by_sample() -> None:
    points = np.concatenate([placed(bent_hand(0.3))] * 2)
    has = np.tile(ALL, (2, 1))
    has[1, [1, 17]] = False
    points[1, [1, 17]] = np.nan
    fit = fit_palm(points, has, "right")
    np.testing.assert_allclose(fit.T_ref_wrist[1], transform(R, P), atol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_a_made_thumb_root_lies_where_that_subjects_was(side: str) -> None:
    flat = bent_hand(0.0, side)
    without = flat.copy()
    without[1] = 0.0
    made = filled_thumb_cmc(placed(without), transform(R, P)[None], side)
    np.testing.assert_allclose(
        in_wrist_frame(made, transform(R, P)[None])[0, 1], flat[1], atol=1e-3
    )


# --- frames and mirror --------------------------------------------------------------------------------------------------


def test_into_the_wrist_frame_and_back() -> None:
    points = placed(bent_hand(0.4))
    T = transform(R, P)[None]
    inside = in_wrist_frame(points, T)
    np.testing.assert_allclose(inside[0], bent_hand(0.4), atol=1e-12)
    np.testing.assert_allclose(inside[0, 0], 0, atol=1e-12)
    np.testing.assert_allclose(from_wrist_frame(inside, T), points, atol=1e-12)


def test_the_mirror_takes_one_hand_to_the_other() -> None:
    np.testing.assert_allclose(mirrored_points(bent_hand(0.5, "right")), bent_hand(0.5, "left"))
