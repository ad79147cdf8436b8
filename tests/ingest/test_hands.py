"""Hands from sources' words to canonical ones, against the analytic scene; and the mistakes that people make, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.raw import mano_model
from ingest.pipeline.assets import Assets, hand_model_for
from ingest.recipe import HandSettings, Recipe
from ingest.transforms.action_vector import canonical_vectors
from ingest.transforms.camera import T_upright_world
from ingest.transforms.hand_validity import BITS
from ingest.transforms.hands import CanonicalHand, canonical_hands
from jobs.demo.raw.hand_scene import HandScene
from schemas.embodiment import embodiment_for
from schemas.episode import Camera, EncodedImages, Episode, EpisodeRef, Stream, pose_channel
from schemas.errors import SourceError
from schemas.geometry import geodesic_rad, inverse
from schemas.hand import wrist_axes
from schemas.hand_track import HandTrack, ManoPose
from schemas.rate import instants_ns

RATE_HZ = 30
SCENE = HandScene(duration_s=1.5)
COUNT = 46
T_S = np.arange(COUNT) / RATE_HZ
T_NS = instants_ns(COUNT, Fraction(RATE_HZ))
REF = EpisodeRef(source="toy", dataset="toy", episode_id="e", root="/")
# An upright world in ARKit's words: y up, z toward the wearer's back.
T_YUP_ZUP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def wrists(side: str) -> np.ndarray:
    return np.stack([SCENE.T_world_wrist(t, side) for t in T_S])


def joints(side: str) -> np.ndarray:
    return np.stack([SCENE.joints_world(t, side) for t in T_S])


CAM = np.stack([SCENE.T_world_cam(t) for t in T_S])


def track(side: str = "right", **given: Any) -> HandTrack:
    """Joints in the world, as most sources have them, with what a test changes."""
    return HandTrack(
        **{
            "side": side,
            "t_ns": T_NS,
            "present": np.ones(COUNT, dtype=bool),
            "joints_m": joints(side),
            "view": "head",
        }
        | given
    )


def episode(*hands: HandTrack, T_world_cam: np.ndarray | None = CAM, **given: Any) -> Episode:
    camera = Camera(
        name="head",
        frames=EncodedImages(images=(b"x",) * COUNT),
        t_ns=T_NS,
        K_cam=SCENE.K_cam,
        K_size=(SCENE.width, SCENE.height),
    )
    poses = (
        ()
        if T_world_cam is None
        else (Stream(spec=pose_channel("T_world_cam.head"), t_ns=T_NS, values=T_world_cam),)
    )
    return Episode(
        **{
            "ref": REF,
            "embodiment": "human_hands",
            "rate_hz": Fraction(RATE_HZ),
            "streams": poses,
            "cameras": (camera,),
            "hands": hands,
            "world_up": "+z",
        }
        | given
    )


def canonical(*hands: HandTrack, **given: Any) -> tuple[Episode, tuple[CanonicalHand, ...]]:
    return canonical_hands(episode(*hands, **given), Recipe(), None)


def worst(found: Episode, side: str = "right") -> tuple[float, float, float]:
    """Worst wrist position in mm, rotation in degrees, keypoint in mm, over the valid samples."""
    pose, points = found.stream(f"{side}.T_base_eef"), found.stream(f"{side}.hand_keypoints_m")
    assert pose is not None
    assert points is not None
    assert pose.valid.any()
    T = wrists(side)
    keypoints = np.stack([SCENE.joints_wrist(t, side) for t in T_S])
    ok = pose.valid
    return (
        float(np.abs(pose.values[ok, :3, 3] - T[ok, :3, 3]).max() * 1000),
        float(np.rad2deg(geodesic_rad(pose.values[ok, :3, :3], T[ok, :3, :3]).max())),
        float(np.abs(points.values[ok] - keypoints[ok]).max() * 1000),
    )


def is_true(found: Episode, side: str = "right") -> bool:
    mm, deg, point_mm = worst(found, side)
    return mm < 1e-6 and deg < 1e-5 and point_mm < 1e-6


def in_source_axes(side: str, name: str) -> np.ndarray:
    """[N, 4, 4] the true wrist as a source with these axes would store it."""
    return wrists(side) @ inverse(wrist_axes(name).T_src_wrist(side))


# --- every way in which a source tells a hand ---------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
def test_joints_alone(side: str) -> None:
    found, (hand,) = canonical(track(side))
    assert is_true(found, side)
    assert hand.validity.valid.all()
    assert set(hand.validity.unknown) == {"confident", "camera"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("axes", ["mano", "arkit", "openxr", "holoassist_psi", "umetrack"])
def test_native_wrist_axes(side: str, axes: str) -> None:
    found, (hand,) = canonical(
        track(side, T_frame_wrist=in_source_axes(side, axes), wrist_axes=axes)
    )
    assert is_true(found, side)
    assert hand.measured[f"wrist_disagreement_deg.{side}"] < 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_hand_in_a_moving_camera_ends_in_the_world(side: str) -> None:
    seen = np.stack([SCENE.in_cam(SCENE.joints_world(t, side), t) for t in T_S])
    found, (hand,) = canonical(track(side, joints_m=seen, frame="head"))
    assert is_true(found, side)
    assert hand.has_motion_removed
    assert "camera" not in hand.validity.unknown


def test_a_world_with_y_up_is_turned_upright() -> None:
    T = np.einsum("ab,nbc->nac", T_YUP_ZUP, CAM)
    turned = joints("right") @ T_YUP_ZUP[:3, :3].T
    found, (hand,) = canonical(track(joints_m=turned), T_world_cam=T, world_up="+y")
    assert is_true(found)
    assert hand.validity.valid.all()
    pose = found.stream("T_world_cam.head")
    assert pose is not None
    np.testing.assert_allclose(pose.values, CAM, atol=1e-12)


@pytest.mark.parametrize("up", ["+x", "-x", "+y", "-y", "+z", "-z"])
def test_upright_worlds_are_rotations_that_put_up_up(up: str) -> None:
    T = T_upright_world(up)
    axis = np.eye(3)["xyz".index(up[1])] * (1 if up[0] == "+" else -1)
    np.testing.assert_allclose(T[:3, :3] @ axis, [0, 0, 1], atol=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)


class Model:
    """MANO as the scene would answer: what this stage does with it, not the model, is tested here."""

    def joints21_and_wrist(self, side: str, mano: ManoPose) -> tuple[np.ndarray, np.ndarray]:
        at = [round(v) for v in mano.trans_m[:, 0]]
        return joints(side)[at], wrists(side)[at]


def mano_track(present: np.ndarray) -> HandTrack:
    index = np.arange(COUNT, dtype=float)
    pose = ManoPose(
        global_orient=np.tile(np.eye(3), (COUNT, 1, 1)),
        trans_m=np.stack([index, index, index], axis=1),
        trans_is="wrist",
        betas=np.zeros(10),
        hand_axis_angle_rad=np.zeros((COUNT, 45)),
        is_flat_hand_mean=True,
    )
    return track(joints_m=None, mano=pose, present=present)


def test_mano_parameters_go_through_the_model_where_there_is_a_hand() -> None:
    present = np.ones(COUNT, dtype=bool)
    present[5:9] = False
    found, (hand,) = canonical_hands(episode(mano_track(present)), Recipe(), Model())
    assert is_true(found)
    np.testing.assert_array_equal(hand.validity.bits[:, 0], present)


def test_mano_without_a_model_is_this_episodes_trouble() -> None:
    with pytest.raises(SourceError, match="MANO"):
        canonical(mano_track(np.ones(COUNT, dtype=bool)))


def test_a_wrist_without_fingers_is_kept_and_says_what_it_lacks() -> None:
    found, (hand,) = canonical(track(joints_m=None, T_frame_wrist=wrists("right")))
    assert found.stream("right.hand_keypoints_m") is None
    assert hand.validity.valid.all()
    assert {"palm", "bones", "angles", "in_view"} <= set(hand.validity.unknown)


def test_a_thumb_root_is_made_where_the_source_has_none() -> None:
    order = [4, 8, 12, 16, 20, 0, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19]
    found, _ = canonical(
        track(
            joints_m=joints("right")[:, order],
            layout="umetrack20",
            T_frame_wrist=wrists("right"),
            wrist_axes="umetrack",
        )
    )
    points = found.stream("right.hand_keypoints_m")
    assert points is not None
    made = points.values[:, 1]
    # the ratio was measured on this very palm: a constant of millimetres remains
    np.testing.assert_allclose(made, np.tile([-0.0257, -0.0179, 0.0263], (COUNT, 1)), atol=1e-3)


# --- what is not known is not pretended ---------------------------------------------------------------------------------


def test_without_a_camera_pose_the_hand_stays_in_its_camera_and_teaches_no_action() -> None:
    seen = np.stack([SCENE.in_cam(SCENE.joints_world(t, "right"), t) for t in T_S])
    lost, hands = canonical(track(joints_m=seen, frame="head"), T_world_cam=None)
    assert not hands[0].has_motion_removed
    assert {f.name: f.value for f in lost.facts}["camera_motion_removed"] == "false"
    at = instants_ns(10, Fraction(10))
    vectors = canonical_vectors(
        lost, embodiment_for("human_hands"), at, at + 100_000_000, Recipe(), hands
    )
    assert vectors.features["observation.valid"].values.all()
    assert not vectors.features["action.valid"].values.any()
    assert vectors.action_coverage == 0.0


def test_a_hole_in_the_camera_poses_is_a_hole_in_the_hand() -> None:
    seen = np.stack([SCENE.in_cam(SCENE.joints_world(t, "right"), t) for t in T_S])
    whole = episode(track(joints_m=seen, frame="head"))
    valid = np.ones(COUNT, dtype=bool)
    valid[10:30] = False
    holed = replace(whole, streams=(replace(whole.streams[0], valid=valid),))
    found, (hand,) = canonical_hands(holed, Recipe(), None)
    assert is_true(found)
    assert hand.validity.bits[:10, BITS.index("camera")].all()
    assert not hand.validity.bits[12:28, BITS.index("camera")].any()


# --- eight tests, each with a hand that fails it and no other -----------------------------------------------------------


def only_fails(hand: CanonicalHand, bit: str, at: int) -> None:
    failed = {b for b, ok in zip(BITS, hand.validity.bits[at], strict=True) if not ok}
    assert failed == {bit}


def moved(change: Callable[[np.ndarray], np.ndarray], at: slice = slice(20, 21)) -> np.ndarray:
    points = joints("right").copy()
    points[at] = change(points[at])
    return points


def test_an_absent_hand_fails_what_is_known() -> None:
    present = np.ones(COUNT, dtype=bool)
    present[20] = False
    points = joints("right").copy()
    points[20] = np.nan
    _, (hand,) = canonical(track(present=present, joints_m=points))
    assert not hand.validity.valid[20]
    assert hand.validity.valid[[19, 21]].all()


def test_low_confidence() -> None:
    confidence = np.full((COUNT, 21), 0.9)
    confidence[20, 0] = 0.0032  # EgoDex's floor
    confidence[25, :7] = 0.05  # 14 of 21 are left
    confidence[30, :6] = 0.05
    confidence[30, 0] = 0.5  # 16 are left, the wrist among them
    _, (hand,) = canonical(track(confidence=confidence))
    only_fails(hand, "confident", 20)
    only_fails(hand, "confident", 25)
    assert hand.validity.valid[30]


def test_out_of_view() -> None:
    """The camera looks away: the hand is as good as ever, and not in the picture."""
    away = CAM.copy()
    away[20, :3, :3] = away[20, :3, :3] @ Rotation.from_euler("y", 80, degrees=True).as_matrix()
    _, (hand,) = canonical(track(), T_world_cam=away)
    only_fails(hand, "in_view", 20)


def test_behind_the_camera_is_not_in_view() -> None:
    behind = CAM.copy()
    behind[20, :3, :3] = behind[20, :3, :3] @ np.diag([-1.0, 1.0, -1.0])
    _, (hand,) = canonical(track(), T_world_cam=behind)
    only_fails(hand, "in_view", 20)


def test_a_wrist_that_disagrees_with_its_palm() -> None:
    T = wrists("right")
    T[:, :3, :3] = T[:, :3, :3] @ Rotation.from_euler("x", 30, degrees=True).as_matrix()
    _, (hand,) = canonical(track(T_frame_wrist=T))
    only_fails(hand, "palm", 20)


def test_a_bone_that_grows() -> None:
    def longer(points: np.ndarray) -> np.ndarray:
        points = points.copy()
        points[:, 8] += 0.3 * (points[:, 8] - points[:, 7])  # 22 mm becomes 28.6 mm
        return points

    _, (hand,) = canonical(track(joints_m=moved(longer)))
    only_fails(hand, "bones", 20)


def test_a_finger_that_bends_backwards_through_itself() -> None:
    def folded(points: np.ndarray) -> np.ndarray:
        points = points.copy()
        bone = points[:, 8] - points[:, 7]
        back = points[:, 6] - points[:, 7]
        length = np.linalg.norm(bone, axis=1, keepdims=True)
        points[:, 8] = points[:, 7] + length * back / np.linalg.norm(back, axis=1, keepdims=True)
        return points

    _, (hand,) = canonical(track(joints_m=moved(folded)))
    only_fails(hand, "angles", 20)


def test_a_hand_that_jumps() -> None:
    _, (hand,) = canonical(
        track(joints_m=moved(lambda p: p + np.array([0.0, 0.12, 0.0])))
    )  # 3.6 m/s
    for at in (19, 20, 21):  # both steps are too fast, so neither end can be believed
        only_fails(hand, "speed", at)
    assert hand.validity.valid[[18, 22]].all()


def test_thresholds_are_the_recipes() -> None:
    recipe = Recipe(hands=HandSettings(speed_max_m_s=5.0))
    jump = track(joints_m=moved(lambda p: p + np.array([0.0, 0.12, 0.0])))
    _, (hand,) = canonical_hands(episode(jump), recipe, None)
    assert hand.validity.valid.all()


# --- on the 10 Hz grid --------------------------------------------------------------------------------------------------


def test_an_action_needs_every_sample_up_to_its_target() -> None:
    """Sample 10 is bad, at 333 ms: between timesteps 3 and 4, hitting neither."""
    present = np.ones(COUNT, dtype=bool)
    present[10] = False
    found, hands = canonical(track(present=present))
    at = instants_ns(10, Fraction(10))
    vectors = canonical_vectors(
        found, embodiment_for("human_hands"), at, at + 100_000_000, Recipe(), hands
    )
    valid = dict(
        zip(
            vectors.features["action.valid"].names,
            vectors.features["action.valid"].values.T.tolist(),
            strict=True,
        )
    )
    assert valid["right.position_m"] == [
        True,
        True,
        True,
        False,
        True,
        True,
        True,
        True,
        True,
        False,
    ]
    assert vectors.features["observation.valid"].values.all()
    bits = vectors.features["observation.hand_validity"]
    assert bits.names == tuple(f"right.{bit}" for bit in BITS)
    assert bits.values[3].all()
    assert bits.values.shape == (10, 8)


def test_the_wrist_comes_back_from_the_grasp_centre() -> None:
    """Origin 0.13 m along the fingers: the registry's constant, and undone exactly."""
    found, hands = canonical(track())
    at = instants_ns(10, Fraction(10))
    body = embodiment_for("human_hands")
    vectors = canonical_vectors(found, body, at, at + 100_000_000, Recipe(), hands)
    state, spec = vectors.features["observation.state"].values, vectors.spec
    assert spec is not None
    hand_p = state[:, spec.slice("right.position_m")]
    for k, t in enumerate(at / 1e9):
        T = SCENE.T_world_wrist(float(t), "right")
        np.testing.assert_allclose(hand_p[k], T[:3, 3] + T[:3, :3] @ [-0.13, 0, 0], atol=1e-6)
        x_axis = state[k, spec.slice("right.rot6d_cols")][:3]
        np.testing.assert_allclose(x_axis, -T[:3, 0], atol=1e-6)  # out along the fingers


# --- mistakes that people make ------------------------------------------------------------------------------------------


def test_planted_millimetres_read_as_metres() -> None:
    _, (hand,) = canonical(track(joints_m=joints("right") * 1000))
    assert not hand.validity.valid.any()


def test_planted_transposed_extrinsics() -> None:
    seen = np.stack([SCENE.in_cam(SCENE.joints_world(t, "right"), t) for t in T_S])
    found, _ = canonical(track(joints_m=seen, frame="head"), T_world_cam=inverse(CAM))
    assert not is_true(found)
    assert worst(found)[0] > 100
    wrong_view, (hand,) = canonical(track(), T_world_cam=inverse(CAM))
    assert not hand.validity.valid.any()
    assert wrong_view is not None


def test_planted_quaternion_order() -> None:
    """wxyz read as xyzw turns the wrist away from its palm."""
    T = wrists("right")
    xyzw = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    T[:, :3, :3] = Rotation.from_quat(np.roll(xyzw, 1, axis=1)).as_matrix()
    _, (hand,) = canonical(track(T_frame_wrist=T))
    assert not hand.validity.bits[:, BITS.index("palm")].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_planted_wrong_hand_with_a_native_wrist(side: str) -> None:
    """The other hand's axes: a source that mixes left and right up is seen by every palm."""
    other = "left" if side == "right" else "right"
    T = in_source_axes(side, "holoassist_psi")
    _, (hand,) = canonical(
        track(other, joints_m=joints(side), T_frame_wrist=T, wrist_axes="holoassist_psi")
    )
    assert not hand.validity.bits[:, BITS.index("palm")].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_planted_wrong_hand_by_palm_alone_is_seen_by_its_thumb(side: str) -> None:
    other = "left" if side == "right" else "right"
    found, _ = canonical(track(other, joints_m=joints(side)))
    pose = found.stream(f"{other}.T_base_eef")
    assert pose is not None
    assert not pose.valid.any()


def test_planted_wrong_wrist_axes() -> None:
    T = in_source_axes("left", "arkit")
    _, (hand,) = canonical(track("left", T_frame_wrist=T, wrist_axes="mano"))
    assert not hand.validity.bits[:, BITS.index("palm")].any()


def test_planted_degrees() -> None:
    """A rotation vector in degrees read as radians."""
    T = wrists("right")
    rotvec_deg = np.rad2deg(Rotation.from_matrix(T[:, :3, :3]).as_rotvec())
    T[:, :3, :3] = Rotation.from_rotvec(rotvec_deg).as_matrix()
    _, (hand,) = canonical(track(T_frame_wrist=T))
    assert hand.validity.valid.mean() < 0.2  # now and then a palm agrees by chance


@pytest.mark.slow
def test_a_fit_gives_finger_angles_and_its_residual(tmp_path: Path) -> None:
    """On 46 samples of a hand that the generated model can be exactly: the bend of the index finger comes back."""
    pytest.importorskip("smplx")
    model = hand_model_for(Assets(mano_dir=str(mano_model.write(tmp_path))), HandSettings())
    found, (hand,) = canonical_hands(
        episode(track()), Recipe(hands=HandSettings(fit_mano=True)), model
    )
    angles = found.stream("right.hand_joints_rad")
    assert angles is not None
    assert angles.valid.all()
    assert hand.measured["mano_fit_mean_mm.right"] < 2.0
    assert hand.measured["mano_fit_accepted_share.right"] == 1.0
    # Index PIP about z: the bend. A twist about the bone moves no point of it, so no fit can know it.
    truth = np.stack([SCENE.curl_rad(t, "right") for t in T_S])
    bend = angles.values.reshape(COUNT, 15, 3)[:, 1, 2]
    assert np.rad2deg(np.abs(bend - truth)).max() < 5


def test_a_fit_without_a_model_is_refused() -> None:
    with pytest.raises(SourceError, match="MANO"):
        canonical_hands(episode(track()), Recipe(hands=HandSettings(fit_mano=True)), None)


@pytest.mark.parametrize("what", ["never valid", "of another time"])
def test_poses_that_cover_no_sample_remove_no_motion(what: str) -> None:
    """A pose stream that is there and says nothing about these samples must not pass for a pose."""
    seen = np.stack([SCENE.in_cam(SCENE.joints_world(t, "right"), t) for t in T_S])
    whole = episode(track(joints_m=seen, frame="head"))
    stream = whole.streams[0]
    if what == "never valid":
        stream = replace(stream, valid=np.zeros(COUNT, dtype=bool))
    else:
        stream = replace(stream, t_ns=stream.t_ns + 10**11)
    found, hands = canonical_hands(replace(whole, streams=(stream,)), Recipe(), None)
    assert not hands[0].has_motion_removed
    assert not hands[0].believed.any()
    told = {f.name: f.value for f in found.facts}
    assert told["camera_motion_removed"] == "false"
    assert told["hand_frame.right"] == "head"


def test_poses_for_a_part_leave_the_rest_unbelieved() -> None:
    """The trajectory ends before the hand is seen: nothing of the hand may be composed with a stale pose."""
    seen = np.stack([SCENE.in_cam(SCENE.joints_world(t, "right"), t) for t in T_S])
    present = np.arange(COUNT) >= 24
    whole = episode(track(joints_m=seen, frame="head", present=present))
    early = replace(whole.streams[0], t_ns=T_NS[:8], values=CAM[:8], valid=np.ones(8, dtype=bool))
    _, (hand,) = canonical_hands(replace(whole, streams=(early,)), Recipe(), None)
    assert not hand.believed.any()


def test_fingers_of_mano_do_not_replace_the_sources_own_wrist() -> None:
    turned = wrists("right").copy()
    turned[:, :3, :3] = turned[:, :3, :3] @ Rotation.from_euler("x", 7, degrees=True).as_matrix()
    both = replace(mano_track(np.ones(COUNT, dtype=bool)), T_frame_wrist=turned)
    found, _ = canonical_hands(episode(both), Recipe(), Model())
    pose = found.stream("right.T_base_eef")
    assert pose is not None
    np.testing.assert_allclose(pose.values, turned, atol=1e-9)


def test_camera_poses_are_upright_without_hands_too() -> None:
    T = np.einsum("ab,nbc->nac", T_YUP_ZUP, CAM)
    found, _ = canonical(T_world_cam=T, world_up="+y")
    pose = found.stream("T_world_cam.head")
    assert pose is not None
    np.testing.assert_allclose(pose.values, CAM, atol=1e-12)
