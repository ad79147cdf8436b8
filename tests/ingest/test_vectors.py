"""The canonical vectors: whose frame, which timestep an action aims at, and what may be learnt from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from ingest.recipe import Recipe
from ingest.transforms.action_vector import Vectors, canonical_vectors, pose9
from schemas.embodiment import Embodiment, embodiment_for, embodiments
from schemas.episode import (
    Camera,
    EncodedImages,
    Episode,
    EpisodeRef,
    Stream,
    Unit,
    gripper_channel,
    pose_channel,
    vector_channel,
)
from schemas.fact import Certainty
from schemas.rate import instants_ns
from schemas.supervision import Task, allowed_tasks
from tests.strategies import poses

TEN = Fraction(10)
MS = 1_000_000
K = 5
AT = instants_ns(K, TEN)
NEXT = instants_ns(K + 1, TEN)[1:]
Z90 = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=float)
AGIBOT = "agibot_g1_gripper"


def moving(count: int = K, R: np.ndarray | None = None) -> np.ndarray:
    """[count, 4, 4]: 1 m to the left per sample, from x = 0.5, rotation constant."""
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = np.eye(3) if R is None else R
    T[:, 0, 3], T[:, 1, 3] = 0.5, np.arange(count)
    return T


def posed(
    name: str, T: np.ndarray, *, t_ns: np.ndarray | None = None, valid: Sequence[bool] = ()
) -> Stream:
    t_ns = instants_ns(len(T), TEN) if t_ns is None else t_ns
    mask = np.array(valid, dtype=bool) if valid else np.ones(len(T), dtype=bool)
    return Stream(spec=pose_channel(name), t_ns=t_ns, values=T, valid=mask)


def gripper(
    name: str, values: Iterable[float], *, t_ns: np.ndarray = AT, binary: bool = False
) -> Stream:
    spec = gripper_channel(name, binary=binary)
    return Stream(spec=spec, t_ns=t_ns, values=np.array(list(values))[:, None])


def vectors(*streams: Stream, body: str | Embodiment = AGIBOT) -> Vectors:
    embodiment = embodiment_for(body) if isinstance(body, str) else body
    episode = Episode(
        ref=EpisodeRef(source="toy", dataset="toy", episode_id="a", root="/raw"),
        embodiment=embodiment.name,
        rate_hz=TEN,
        streams=streams,
    )
    return canonical_vectors(episode, embodiment, AT, NEXT, Recipe())


def slices(found: Vectors, feature: str, name: str) -> np.ndarray:
    assert found.spec is not None
    return found.features[feature].values[:, found.spec.slice(name)]


def mask(found: Vectors, feature: str, name: str) -> list[bool]:
    named = found.features[feature]
    return named.values[:, named.names.index(name)].tolist()


# --- frames -------------------------------------------------------------------------------------------------------------


def test_link7_at_the_identity_gives_the_canonical_axes() -> None:
    """Fingers along z of link7, thumb side along -y, grasp centre 0.23 m out along z."""
    found = vectors(posed("left.T_base_eef", moving()))
    rot6d = slices(found, "observation.state", "left.rot6d_cols")
    np.testing.assert_array_equal(rot6d, [[0, 0, 1, -1, 0, 0]] * K)  # x_can = z, y_can = -x
    position = slices(found, "observation.state", "left.position_m")
    np.testing.assert_allclose(position, [[0.5, k, 0.23] for k in range(K)], atol=1e-7)
    assert found.eef_frame == "hand_xfz"
    assert found.features["observation.state"].values.dtype == np.float32


def test_a_turned_link_turns_the_offset_with_it() -> None:
    """Turned by 90 deg about x: z of link7 points along -y of the base, so the grasp centre is 0.23 m to the right."""
    X90 = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=float)
    found = vectors(posed("left.T_base_eef", moving(R=X90)))
    position = slices(found, "observation.state", "left.position_m")
    np.testing.assert_allclose(position, [[0.5, k - 0.23, 0] for k in range(K)], atol=1e-6)


@given(poses())
def test_the_source_pose_is_recovered_exactly(T_base_src: np.ndarray) -> None:
    """T_can @ inv(T_src_hand) is the wrist again: nothing is lost by the canonical frame."""
    found = vectors(posed("left.T_base_eef", np.tile(T_base_src, (K, 1, 1))))
    T_src_hand = embodiments()[AGIBOT].arms["left"].T_src_hand
    assert T_src_hand is not None
    rot6d = slices(found, "observation.state", "left.rot6d_cols")[0].astype(float)
    x, y = rot6d[:3], rot6d[3:]
    T = np.eye(4)
    T[:3, :3] = np.stack([x, y, np.cross(x, y)], axis=1)
    T[:3, 3] = slices(found, "observation.state", "left.position_m")[0]
    np.testing.assert_allclose(T @ np.linalg.inv(T_src_hand), T_base_src, atol=2e-5)


@given(poses(), poses(), poses())
def test_body_deltas_do_not_depend_on_the_base(
    T_new_base: np.ndarray, T_one: np.ndarray, T_two: np.ndarray
) -> None:
    """inv(T_k) T_k+1 is the same in every base, and conjugated by the constant transform of the hand."""
    T_src_hand = embodiments()[AGIBOT].arms["left"].T_src_hand
    assert T_src_hand is not None
    one, two = T_one @ T_src_hand, T_two @ T_src_hand
    delta = np.linalg.inv(one) @ two
    moved = np.linalg.inv(T_new_base @ one) @ (T_new_base @ two)
    np.testing.assert_allclose(moved, delta, atol=1e-6)
    source_delta = np.linalg.inv(T_one) @ T_two
    np.testing.assert_allclose(
        np.linalg.inv(T_src_hand) @ source_delta @ T_src_hand, delta, atol=1e-6
    )


@pytest.mark.parametrize("body", ["behavior_r1pro", "a_robot_nobody_knows"])
def test_unknown_axes_stay_in_the_source_frame_and_teach_no_actions(body: str) -> None:
    found = vectors(
        posed("left.T_base_eef", moving(R=Z90)),
        gripper("left.gripper_opening", [1.0] * K),
        posed("command.left.T_base_eef", moving()),
        body=body,
    )
    assert found.eef_frame == "source"
    assert found.spec is not None
    assert [s.name for s in found.spec.slices] == ["left.gripper_opening"]
    pose = found.features["observation.source_eef_pose.left"]
    np.testing.assert_array_equal(pose.values[2], [0.5, 2, 0, 0, 1, 0, -1, 0, 0])  # as recorded
    assert pose.names[3:5] == ("source_eef_pose.left.xx", "source_eef_pose.left.xy")
    axes = next(f for f in found.facts if f.name == "eef_axes.left")
    assert axes.certainty is Certainty.UNKNOWN
    tasks, _ = allowed_tasks(facts=found.facts, has_camera=True, action_coverage=1.0)
    assert tasks == (Task.VISUAL_FORECASTING,)


def test_inferred_axes_bar_the_policy_and_known_ones_do_not() -> None:
    for body, is_policy in ((AGIBOT, True), ("galaxea_r1pro", False)):
        found = vectors(posed("left.T_base_eef", moving()), body=body)
        tasks, _ = allowed_tasks(facts=found.facts, has_camera=True, action_coverage=1.0)
        assert (Task.POLICY in tasks) == is_policy, body


def test_sides_have_their_own_transform() -> None:
    T = moving()
    found = vectors(
        posed("left.T_base_eef", T), posed("right.T_base_eef", T), body="unitree_h1_2_inspire"
    )
    left = slices(found, "observation.state", "left.rot6d_cols")
    right = slices(found, "observation.state", "right.rot6d_cols")
    np.testing.assert_array_equal(left[0], [0, -1, 0, 1, 0, 0])
    np.testing.assert_array_equal(right[0], [0, -1, 0, -1, 0, 0])
    assert {f.name for f in found.facts} == {
        f"eef_{what}.{side}" for what in ("axes", "origin") for side in ("left", "right")
    }


def test_pose9_is_position_then_columns() -> None:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Z90, [1, 2, 3]
    np.testing.assert_array_equal(pose9(T[None]), [[1, 2, 3, 0, 1, 0, -1, 0, 0]])


# --- actions ------------------------------------------------------------------------------------------------------------


def test_a_command_is_read_at_the_instant_it_is_due() -> None:
    """Commands are stamped when they are due, one source period after the state: action[k] is the one due at k + 1."""
    state = posed("left.T_base_eef", moving())
    told = moving(K)
    told[:, 2, 3] = (
        np.arange(1, K + 1) * 10.0
    )  # the command issued at k is due at k + 1: 10 (k + 1)
    command = posed("command.left.T_base_eef", told, t_ns=NEXT)
    found = vectors(state, command)
    z = slices(found, "action", "left.position_m")[:, 2]
    np.testing.assert_allclose(z, 0.23 + 10.0 * np.arange(1, K + 1), atol=1e-5)
    assert found.action_source == "commanded"
    assert found.action_coverage == 1.0
    assert mask(found, "action.valid", "left.position_m") == [True] * K


def test_an_achieved_action_is_the_next_state_and_the_last_one_is_not_valid() -> None:
    found = vectors(posed("left.T_base_eef", moving()))
    state = found.features["observation.state"].values
    action = found.features["action"].values
    np.testing.assert_array_equal(action[:-1], state[1:])
    np.testing.assert_array_equal(action[-1], state[-1])  # finite, and marked
    assert mask(found, "action.valid", "left.position_m") == [True] * (K - 1) + [False]
    assert found.action_source == "achieved"
    assert found.action_coverage == pytest.approx((K - 1) / K)


def test_an_action_is_valid_only_where_both_ends_are() -> None:
    """The sample at k = 2 is invalid and its neighbours are more than a gap apart, so it stays invalid."""
    t_ns = AT * 3  # 300 ms apart: no reading across a missing sample
    stream = posed("left.T_base_eef", moving(), t_ns=t_ns, valid=[True, True, False, True, True])
    episode = Episode(
        ref=EpisodeRef(source="toy", dataset="toy", episode_id="a", root="/raw"),
        embodiment=AGIBOT,
        rate_hz=Fraction(10, 3),
        streams=(stream,),
    )
    following = np.append(t_ns[1:], t_ns[-1] + 300 * MS)
    found = canonical_vectors(
        episode, embodiments()[AGIBOT], t_ns, following, Recipe(gap_periods=1)
    )
    assert found.observed.tolist() == [True, True, False, True, True]
    assert mask(found, "action.valid", "left.rot6d_cols") == [True, False, False, True, False]
    assert found.action_coverage == pytest.approx(2 / 5)


def test_a_command_without_a_valid_state_is_no_action() -> None:
    command = posed("command.left.T_base_eef", moving(), t_ns=NEXT)
    held = posed("left.T_base_eef", moving(), valid=[True, False, False, False, True])
    found = vectors(held, command)
    assert mask(found, "action.valid", "left.position_m") == [True, False, False, False, True]


def test_a_mixture_says_so() -> None:
    found = vectors(
        posed("left.T_base_eef", moving()),
        gripper("left.gripper_opening", [1, 1, 0, 0, 1]),
        gripper("command.left.gripper_opening", [1, 0, 0, 1, 1], t_ns=NEXT, binary=True),
    )
    assert found.action_source == "mixed"
    assert slices(found, "action", "left.gripper_opening")[:, 0].tolist() == [1, 0, 0, 1, 1]


def test_a_command_without_a_state_is_a_slice_whose_state_is_masked() -> None:
    """A gripper that is commanded and not measured: the action has it, the state holds a filler."""
    found = vectors(
        posed("left.T_base_eef", moving()),
        gripper("command.left.gripper_opening", [1, 0, 0, 1, 1], t_ns=NEXT, binary=True),
    )
    assert found.spec is not None
    assert (found.spec.width, found.command_only) == (10, ("left.gripper_opening",))
    assert slices(found, "action", "left.gripper_opening")[:, 0].tolist() == [1, 0, 0, 1, 1]
    assert mask(found, "action.valid", "left.gripper_opening") == [True] * K
    assert slices(found, "observation.state", "left.gripper_opening")[:, 0].tolist() == [0] * K
    assert mask(found, "observation.valid", "left.gripper_opening") == [False] * K
    assert found.action_source == "mixed"  # the pose is the next state
    assert found.action_coverage == pytest.approx((K - 1) / K)
    assert found.observed.all()  # what nobody measures is no gap in what is measured


def test_a_pose_that_is_only_commanded_is_a_pose_in_the_hands_axes() -> None:
    found = vectors(
        gripper("left.gripper_opening", [1] * K),
        posed("command.left.T_base_eef", moving(), t_ns=NEXT),
    )
    assert found.command_only == ("left.position_m", "left.rot6d_cols")
    z = slices(found, "action", "left.position_m")[:, 2]
    np.testing.assert_allclose(z, 0.23, atol=1e-6)  # the grasp centre of link7
    filler = slices(found, "observation.state", "left.rot6d_cols")
    np.testing.assert_array_equal(filler, [[1, 0, 0, 0, 1, 0]] * K)  # a rotation, if masked
    assert mask(found, "observation.valid", "left.rot6d_cols") == [False] * K
    assert found.eef_frame == "hand_xfz"
    assert [f.name for f in found.facts if f.name.startswith("eef_axes")]


def test_commands_alone_are_an_action_without_a_state() -> None:
    found = vectors(gripper("command.right.gripper_opening", [1, 0, 0, 1, 1], t_ns=NEXT))
    assert found.spec is not None
    assert (found.spec.names, found.action_source) == (("right.gripper_opening",), "commanded")
    assert (found.action_coverage, found.observed.all()) == (1.0, True)


def test_a_binary_gripper_is_never_blended() -> None:
    t_ns = np.array([0, 150, 350], dtype=np.int64) * MS
    found = vectors(gripper("left.gripper_opening", [1, 0, 1], t_ns=t_ns, binary=True))
    assert slices(found, "observation.state", "left.gripper_opening")[:, 0].tolist() == [
        1.0,
        1.0,
        0.0,
        0.0,
        1.0,
    ]


# --- what lies beside ---------------------------------------------------------------------------------------------------


def test_extras_keep_their_names_and_their_masks() -> None:
    joints = Stream(
        spec=vector_channel("joint_position_rad", 2, Unit.RADIAN, names=("j1", "j2")),
        t_ns=AT,
        values=np.arange(2.0 * K).reshape(K, 2),
    )
    raw = Stream(
        spec=vector_channel("raw_command", 3, Unit.SOURCE, hold=True),
        t_ns=AT,
        values=np.arange(3.0 * K).reshape(K, 3),
    )
    camera = posed("T_world_cam.head", moving())
    found = vectors(joints, raw, camera, posed("left.T_base_eef", moving()))
    assert set(found.features) == {
        "observation.state",
        "observation.valid",
        "observation.joint_position_rad",
        "observation.camera_pose.head",
        "action",
        "action.valid",
        "action.raw",
    }
    assert found.features["observation.joint_position_rad"].names == ("j1", "j2")
    assert found.features["action.raw"].names == ("raw_command.0", "raw_command.1", "raw_command.2")
    np.testing.assert_array_equal(found.features["action.raw"].values, raw.values)
    # a camera pose is no hand: it is never carried into hand_xfz
    np.testing.assert_array_equal(
        found.features["observation.camera_pose.head"].values, pose9(camera.values)
    )
    assert found.features["action.valid"].names == (
        "left.position_m",
        "left.rot6d_cols",
        "raw_command",
    )
    assert not any("image" in name for name in found.features)


def test_without_a_hand_there_is_no_state() -> None:
    raw = Stream(
        spec=vector_channel("raw_command", 1, Unit.SOURCE, hold=True),
        t_ns=AT,
        values=np.zeros((K, 1)),
    )
    found = vectors(raw)
    assert found.spec is None
    assert (found.action_source, found.eef_frame, found.action_coverage) == ("none", "none", 0.0)
    assert set(found.features) == {"action.raw", "action.valid"}
    assert found.observed.all()


def test_an_episode_of_pictures_only_has_no_features() -> None:
    episode = Episode(
        ref=EpisodeRef(source="toy", dataset="toy", episode_id="a", root="/raw"),
        embodiment="human_video",
        rate_hz=TEN,
        streams=(),
        cameras=(Camera(name="head", frames=EncodedImages(images=(b"x",)), t_ns=AT[:1]),),
    )
    found = canonical_vectors(episode, embodiment_for("human_video"), AT, NEXT, Recipe())
    assert (found.features, found.facts) == ({}, ())
    assert found.observed.tolist() == [True] * K
